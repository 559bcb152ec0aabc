include: "../rules/common.smk"
include: "../rules/figures.smk"


rule stage:
    default_target: True
    input:
        rules.figures.output,

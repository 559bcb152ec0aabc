include: "../rules/common.smk"
include: "../rules/masks.smk"


rule stage:
    default_target: True
    input:
        rules.masks.output,

include: "../rules/common.smk"
include: "../rules/base_checkpoint.smk"


rule stage:
    default_target: True
    input:
        rules.base_checkpoint.output,

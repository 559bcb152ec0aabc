include: "../rules/common.smk"
include: "../rules/tables.smk"


rule stage:
    default_target: True
    input:
        rules.tables.output,

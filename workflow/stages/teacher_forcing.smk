include: "../rules/common.smk"
include: "../rules/teacher_forcing.smk"


rule stage:
    default_target: True
    input:
        rules.teacher_forcing.output,

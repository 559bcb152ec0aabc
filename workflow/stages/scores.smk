include: "../rules/common.smk"
include: "../rules/scores.smk"


rule stage:
    default_target: True
    input:
        SCORES,

include: "../rules/common.smk"
include: "../rules/episodes.smk"


rule stage:
    default_target: True
    input:
        rules.episodes.output,

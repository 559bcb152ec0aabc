include: "../rules/common.smk"
include: "../rules/manifest.smk"


rule stage:
    default_target: True
    input:
        rules.manifest.output,

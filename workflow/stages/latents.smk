include: "../rules/common.smk"
include: "../rules/latents.smk"


rule stage:
    default_target: True
    input:
        LATENTS,

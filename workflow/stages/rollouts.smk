include: "../rules/common.smk"
include: "../rules/rollouts.smk"


for name in ROLLED_OUT:

    rule:
        name:
            f"rollouts_{name}"
        input:
            expand("data/rollouts/{model}/seed-{seed}.safetensors", model=name, seed=SEEDS),


rule stage:
    default_target: True
    input:
        ROLLOUTS,

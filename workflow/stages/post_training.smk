include: "../rules/common.smk"
include: "../rules/post_training.smk"


rule stage:
    default_target: True
    input:
        "checkpoints/post_trained", "results/training/post_trained.csv",

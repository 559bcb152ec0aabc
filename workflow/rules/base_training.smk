# Trains your own base checkpoint, if base_checkpoint.location names it. (The tabletop's ships with the repository.) A killed training
# resumes from its last saved state.
rule base_training:
    input:
        episodes="data/episodes",
        perceptual=perceptual_file(),
        start_from=PARAMS.base_training.start_from or [],
        code=code("base_training"),
    output:
        checkpoint=directory(OWN_BASE),
    log:
        "logs/base_training.log",
    benchmark:
        "results/benchmarks/base_training.tsv"
    priority: 100
    conda:
        "../envs/persistworld.yml"
    threads: 1
    resources:
        gpu=GPUS,
    params:
        **sections("base_training", "episodes", "latents", "rollout.history_index", "seed", "world_model"),
    shell:
        launch(
            "(persistworld base_training --output {output} --threads {threads}"
            " && for file in {input.perceptual}; do cp $file {output}; done) 2>&1 | tee {log}"
        )

# A base checkpoint of one's own, made when base_checkpoint.location names it; the tabletop's ships with the repository. Minutes for
# droid_sample; for longer trainings call `persistworld base-training` yourself: it takes up where it was stopped, this rule does not.
rule base_training:
    input:
        episodes="data/episodes",
        perceptual=perceptual_file(),
        code=code("base_training"),
    output:
        checkpoint=directory(OWN_BASE),
    params:
        **sections("base_training", "episodes", "latents", "rollout.history_index", "seed", "world_model"),
    log:
        "logs/base_training.log",
    benchmark:
        "results/benchmarks/base_training.tsv"
    conda:
        "../envs/persistworld.yml"
    threads: 1
    priority: 100
    resources:
        mem_mb=2500,
        runtime=1440,
        gpu=GPUS,
    shell:
        launch(
            "(rm -rf runs/base_training && persistworld base_training --output {output} --threads {threads}"
            " && for file in {input.perceptual}; do cp $file {output}; done) 2>&1 | tee {log}"
        )

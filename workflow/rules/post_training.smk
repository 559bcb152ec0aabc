# Highest priority, since most other jobs wait for it.
rule post_training:
    input:
        base="checkpoints/base",
        own_base=lambda wildcards: f"checkpoints/{REGISTRY[wildcards.model].base}",
        latents=LATENTS,
        manifest="data/manifest.json",
        episodes="data/episodes",
        code=code("post_training"),
    output:
        checkpoint=directory("checkpoints/{model}"),
        training="results/training/{model}.csv",
    log:
        "logs/post_training-{model}.log",
    benchmark:
        "results/benchmarks/post_training-{model}.tsv"
    wildcard_constraints:
        model=one_of(REGISTRY.post_trainings),
    priority: 90
    conda:
        "../envs/persistworld.yml"
    threads: half_of_the_cores
    resources:
        gpu=GPUS,
    params:
        **sections("episodes", "latents", "metrics", "post_training", "rollout.history_index", "seed"),
    shell:
        launch("persistworld post_training --run {wildcards.model} --threads {threads} 2>&1 | tee {log}")

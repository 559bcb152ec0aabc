# Highest priority: everything that matters waits for it.
rule post_training:
    input:
        base="checkpoints/base",
        latents=LATENTS,
        manifest="data/manifest.json",
        episodes="data/episodes",
        code=code("post_training"),
    output:
        checkpoint=directory("checkpoints/{run}"),
        training="results/training/{run}.csv",
    params:
        post_training=lambda wildcards: asdict(PARAMS.for_run(wildcards.run).post_training),
        **sections("episodes", "latents", "metrics", "rollout.history_index", "seed"),
    log:
        "logs/post_training-{run}.log",
    benchmark:
        "results/benchmarks/post_training-{run}.tsv"
    conda:
        "../envs/persistworld.yml"
    threads: half_of_the_cores
    priority: 90
    resources:
        mem_mb=2500,
        runtime=4320,
        gpu=GPUS,
    shell:
        launch("persistworld post_training --run {wildcards.run} --threads {threads} 2>&1 | tee {log}")

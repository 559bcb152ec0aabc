rule own_history:
    input:
        base="checkpoints/base",
        latents=LATENTS,
        manifest="data/manifest.json",
        code=code("own_history"),
    output:
        checkpoint=directory("checkpoints/own_history"),
        training="results/training/own_history.csv",
    log:
        "logs/own_history.log",
    benchmark:
        "results/benchmarks/own_history.tsv"
    priority: 80
    conda:
        "../envs/persistworld.yml"
    threads: half_of_the_cores
    resources:
        gpu=GPUS,
    params:
        **sections("episodes", "latents", "metrics", "own_history", "post_training", "rollout.history_index", "seed"),
    shell:
        launch("persistworld own_history --threads {threads} 2>&1 | tee {log}")

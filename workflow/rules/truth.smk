rule truth:
    input:
        episodes="data/episodes",
        latents=LATENTS,
        manifest="data/manifest.json",
        base="checkpoints/base",
        code=code("truth"),
    output:
        truth=directory("data/truth"),
    log:
        "logs/truth.log",
    benchmark:
        "results/benchmarks/truth.tsv"
    priority: 15
    conda:
        "../envs/persistworld.yml"
    threads: 1
    resources:
        gpu=GPUS,
    params:
        **sections(*TRUTH_BY),
    shell:
        launch("persistworld truth --threads {threads} 2>&1 | tee {log}")

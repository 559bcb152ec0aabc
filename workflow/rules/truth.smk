rule truth:
    input:
        episodes="data/episodes",
        latents=LATENTS,
        manifest="data/manifest.json",
        base="checkpoints/base",
        code=code("truth"),
    output:
        truth=directory("data/truth"),
    params:
        **sections("episodes", "evaluation.episodes", "evaluation.split", "rollout.chunks", "world_model"),
    log:
        "logs/truth.log",
    benchmark:
        "results/benchmarks/truth.tsv"
    conda:
        "../envs/persistworld.yml"
    threads: 1
    priority: 15
    resources:
        mem_mb=2000,
        runtime=240,
        gpu=GPUS,
    shell:
        launch("persistworld truth --threads {threads} 2>&1 | tee {log}")

rule latents:
    input:
        episodes="data/episodes",
        base="checkpoints/base",
        code=code("latents"),
    output:
        latents="data/latents/shard-{shard}.safetensors",
        index="data/latents/shard-{shard}.json",
    params:
        **sections("episodes", "latents", "seed"),
    log:
        "logs/latents-{shard}.log",
    benchmark:
        "results/benchmarks/latents-{shard}.tsv"
    conda:
        "../envs/persistworld.yml"
    threads: 1
    priority: 100
    resources:
        mem_mb=2000,
        runtime=240,
        gpu=GPUS,
    shell:
        launch("persistworld latents --shard {wildcards.shard} --threads {threads} 2>&1 | tee {log}")

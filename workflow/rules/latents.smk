rule latents:
    input:
        episodes="data/episodes",
        base="checkpoints/base",
        code=code("latents"),
    output:
        latents="data/latents/shard-{shard}.safetensors",
        index="data/latents/shard-{shard}.json",
    log:
        "logs/latents-{shard}.log",
    benchmark:
        "results/benchmarks/latents-{shard}.tsv"
    priority: 100
    conda:
        "../envs/persistworld.yml"
    threads: 1
    resources:
        gpu=GPUS,
    params:
        **sections("episodes", "latents", "seed"),
    shell:
        launch("persistworld latents --shard {wildcards.shard} --threads {threads} 2>&1 | tee {log}")

rule scores:
    input:
        rollouts=rollouts_of,
        episodes="data/episodes",
        latents=LATENTS,
        manifest="data/manifest.json",
        masks="data/masks.safetensors",
        base="checkpoints/base",
        code=code("scores"),
    output:
        scores="results/scores/{model}.parquet",
    params:
        **sections("episodes", "evaluation", "masks", "metrics", "paper.scale", "rollout", "world_model"),
    log:
        "logs/scores-{model}.log",
    benchmark:
        "results/benchmarks/scores-{model}.tsv"
    conda:
        "../envs/persistworld.yml"
    threads: 1
    priority: 10
    resources:
        mem_mb=2000,
        runtime=240,
        gpu=GPUS,
    shell:
        launch("persistworld scores --model {wildcards.model} --threads {threads} 2>&1 | tee {log}")

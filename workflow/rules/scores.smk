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
    log:
        "logs/scores-{model}.log",
    benchmark:
        "results/benchmarks/scores-{model}.tsv"
    priority: 10
    conda:
        "../envs/persistworld.yml"
    threads: 1
    resources:
        gpu=GPUS,
    params:
        **sections("episodes", "evaluation", "masks", "metrics", "paper.scale", "rollout", "world_model"),
    shell:
        launch("persistworld scores --model {wildcards.model} --threads {threads} 2>&1 | tee {log}")

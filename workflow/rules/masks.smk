rule masks:
    input:
        episodes="data/episodes",
        manifest="data/manifest.json",
        code=code("masks"),
    output:
        masks="data/masks.safetensors",
        metrics="results/metrics/masks.json",
    log:
        "logs/masks.log",
    benchmark:
        "results/benchmarks/masks.tsv"
    conda:
        MASKS_ENVIRONMENT
    threads: 1
    resources:
        gpu=GPUS,
    params:
        **sections("episodes", "evaluation.episodes", "evaluation.split", "masks", "rollout.chunks", "world_model"),
    shell:
        launch("persistworld masks --threads {threads} 2>&1 | tee {log}")


WANTED.append(rules.masks.output.metrics)

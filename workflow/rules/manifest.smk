rule manifest:
    input:
        episodes="data/episodes",
        latents=LATENTS,
        base="checkpoints/base",
        code=code("manifest"),
    output:
        manifest="data/manifest.json",
    params:
        **sections("episodes", "latents", "world_model"),
    log:
        "logs/manifest.log",
    benchmark:
        "results/benchmarks/manifest.tsv"
    conda:
        "../envs/persistworld.yml"
    threads: 1
    priority: 100
    resources:
        mem_mb=1000,
        runtime=60,
    shell:
        "persistworld manifest --threads {threads} 2>&1 | tee {log}"

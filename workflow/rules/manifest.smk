rule manifest:
    input:
        episodes="data/episodes",
        latents=LATENTS,
        base="checkpoints/base",
        code=code("manifest"),
    output:
        manifest="data/manifest.json",
    log:
        "logs/manifest.log",
    benchmark:
        "results/benchmarks/manifest.tsv"
    priority: 100
    conda:
        "../envs/persistworld.yml"
    threads: 1
    params:
        **sections("episodes", "latents", "world_model"),
    shell:
        "persistworld manifest --threads {threads} 2>&1 | tee {log}"

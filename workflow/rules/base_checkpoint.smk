rule base_checkpoint:
    input:
        source=base_files(),
        code=code("base_checkpoint"),
    output:
        checkpoint=directory("checkpoints/base"),
    params:
        **sections("base_checkpoint", "episodes", "world_model"),
    log:
        "logs/base_checkpoint.log",
    benchmark:
        "results/benchmarks/base_checkpoint.tsv"
    conda:
        "../envs/persistworld.yml"
    threads: 1
    priority: 100
    resources:
        mem_mb=1000,
        runtime=120,
    shell:
        "persistworld base_checkpoint --threads {threads} 2>&1 | tee {log}"

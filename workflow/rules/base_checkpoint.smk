rule base_checkpoint:
    input:
        source=base_files(),
        code=code("base_checkpoint"),
    output:
        checkpoint=directory("checkpoints/base"),
    log:
        "logs/base_checkpoint.log",
    benchmark:
        "results/benchmarks/base_checkpoint.tsv"
    priority: 100
    conda:
        "../envs/persistworld.yml"
    threads: 1
    params:
        **sections("base_checkpoint", "episodes", "world_model"),
    shell:
        "persistworld base_checkpoint --threads {threads} 2>&1 | tee {log}"

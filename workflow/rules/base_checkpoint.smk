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


# The base checkpoint of variants that name another base.
rule variant_base:
    input:
        source=lambda wildcards: base_files(PARAMS.for_run(REGISTRY.bases[wildcards.own_base])),
        base="checkpoints/base",
        code=code("base_checkpoint"),
    output:
        checkpoint=directory("checkpoints/{own_base}"),
    log:
        "logs/variant_base-{own_base}.log",
    benchmark:
        "results/benchmarks/variant_base-{own_base}.tsv"
    conda:
        "../envs/persistworld.yml"
    threads: 1
    params:
        **sections("episodes", "world_model"),
        base_checkpoint=lambda wildcards: asdict(PARAMS.for_run(REGISTRY.bases[wildcards.own_base]).base_checkpoint),
    shell:
        "persistworld base_checkpoint --name {wildcards.own_base} --threads {threads} 2>&1 | tee {log}"

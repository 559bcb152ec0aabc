# One variant (params.yaml, variants) beside the base and the controls; not part of `all`.
rule variant:
    input:
        scores=expand("results/scores/{model}.parquet", model=[*REGISTRY.of_role(REGISTRY.names, "base", "control"), "{variant}"]),
        code=code("variant"),
        labels=LABELS,
    output:
        metrics="results/metrics/{variant}.json",
    params:
        **sections("evaluation", "paper", "seed", "variants"),
    log:
        "logs/variant-{variant}.log",
    benchmark:
        "results/benchmarks/variant-{variant}.tsv"
    conda:
        "../envs/persistworld.yml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=60,
    shell:
        "persistworld variant --model {wildcards.variant} --threads {threads} 2>&1 | tee {log}"


# The base checkpoint of variants that name their own.
rule variant_base:
    input:
        source=lambda wildcards: base_files(PARAMS.for_run(REGISTRY.bases[wildcards.own_base])),
        base="checkpoints/base",
        code=code("base_checkpoint"),
    output:
        checkpoint=directory("checkpoints/{own_base}"),
    params:
        base_checkpoint=lambda wildcards: asdict(PARAMS.for_run(REGISTRY.bases[wildcards.own_base]).base_checkpoint),
        **sections("episodes", "world_model"),
    log:
        "logs/variant_base-{own_base}.log",
    benchmark:
        "results/benchmarks/variant_base-{own_base}.tsv"
    conda:
        "../envs/persistworld.yml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=120,
    shell:
        "persistworld base_checkpoint --name {wildcards.own_base} --threads {threads} 2>&1 | tee {log}"

# The metrics of one variant (params.yaml, variants), compared with the base and the controls. Not part of `all`.
rule variant:
    input:
        scores=expand("results/scores/{model}.parquet", model=[*REGISTRY.of_role(REGISTRY.names, "base", "control"), "{model}"]),
        code=code("variant"),
        labels=LABELS,
    output:
        metrics="results/metrics/{model}.json",
    log:
        "logs/variant-{model}.log",
    benchmark:
        "results/benchmarks/variant-{model}.tsv"
    wildcard_constraints:
        model=one_of(PARAMS.variants),
    conda:
        "../envs/persistworld.yml"
    threads: 1
    params:
        **sections("evaluation", "paper", "seed"),
        labels={name: variant.label if variant else "" for name, variant in PARAMS.variants.items()},
    shell:
        "persistworld variant --model {wildcards.model} --threads {threads} 2>&1 | tee {log}"


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

# One more model, a variant or a control that evaluation.models does not name, compared with the base and its rivals. Not part of `all`.
rule comparison:
    input:
        scores=lambda wildcards: expand(
            "results/scores/{model}.parquet", model=[*REGISTRY.rivals(wildcards.model, MODELS), wildcards.model]
        ),
        code=code("comparison"),
        labels=LABELS,
    output:
        metrics="results/metrics/{model}.json",
    log:
        "logs/comparison-{model}.log",
    benchmark:
        "results/benchmarks/comparison-{model}.tsv"
    wildcard_constraints:
        model=one_of(COMPARED),
    conda:
        "../envs/persistworld.yml"
    threads: 1
    params:
        **sections("evaluation", "paper", "seed"),
        labels={name: variant.label if variant else "" for name, variant in PARAMS.variants.items()},
    shell:
        "persistworld comparison --model {wildcards.model} --threads {threads} 2>&1 | tee {log}"

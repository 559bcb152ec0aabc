# A variant of the post-training (params.yaml, variants) beside the base and the control; no part of `all`.
rule variant:
    input:
        scores=expand("results/scores/{model}.parquet", model=["base", "teacher_forced", "{model}"]),
        code=code("variant"),
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
    shell:
        "persistworld variant --model {wildcards.model} --threads {threads} 2>&1 | tee {log}"

# A variant of the post-training (params.yaml, variants) beside the base and the control; no part of `all`.
rule variant:
    input:
        scores=expand("results/scores/{model}.parquet", model=["base", "teacher_forced", "{variant}"]),
        code=code("variant"),
    output:
        metrics="results/metrics/{variant}.json",
    params:
        **sections("evaluation", "paper", "seed"),
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

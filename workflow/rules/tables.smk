rule tables:
    input:
        scores=SCORES,
        code=code("tables"),
        labels=LABELS,
    output:
        metrics=expand("results/metrics/{name}.json", name=["table_1", "table_2", "paired"]),
        details="results/metrics/paired_details.json",
        data=expand("results/tables/table_{number}.{kind}", number=[1, 2], kind=["csv", "tex"]),
        table_1=report("results/tables/table_1.md", caption="../report/table_1.rst", category="Tables"),
        table_2=report("results/tables/table_2.md", caption="../report/table_2.rst", category="Tables"),
    log:
        "logs/tables.log",
    benchmark:
        "results/benchmarks/tables.tsv"
    conda:
        "../envs/persistworld.yml"
    threads: 1
    params:
        **sections("evaluation", "paper", "seed", "variants"),
    shell:
        "persistworld tables --threads {threads} 2>&1 | tee {log}"


WANTED.append(rules.tables.output)

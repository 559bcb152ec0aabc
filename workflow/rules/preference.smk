rule preference:
    input:
        scores=expand("results/scores/{model}.parquet", model=SIDE_BY_SIDE),
        votes=[] if IN_ARCHIVE else ["assets/votes.csv"],
        code=code("preference"),
        labels=LABELS,
    output:
        numbers="results/metrics/preference.json",  # not named `metrics`: a hundred numbers, which repeat those of the tables
        vector="results/figures/figure_6.pdf",
        figure_6=report("results/figures/figure_6.png", caption="../report/figure_6.rst", category="Figures"),
    log:
        "logs/preference.log",
    benchmark:
        "results/benchmarks/preference.tsv"
    conda:
        "../envs/persistworld.yml"
    threads: 1
    params:
        **sections("evaluation", "paper", "seed", "variants"),
    shell:
        "persistworld preference --threads {threads} 2>&1 | tee {log}"


WANTED.append(rules.preference.output)

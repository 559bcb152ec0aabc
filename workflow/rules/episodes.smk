rule episodes:
    input:
        code=code("episodes"),
    output:
        episodes=directory("data/episodes"),
    log:
        "logs/episodes.log",
    benchmark:
        "results/benchmarks/episodes.tsv"
    priority: 100
    conda:
        "../envs/persistworld.yml"
    threads: all_cores
    params:
        **sections("episodes", "seed"),
    shell:
        "persistworld episodes --threads {threads} 2>&1 | tee {log}"

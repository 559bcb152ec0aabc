rule episodes:
    input:
        code=code("episodes"),
    output:
        episodes=directory("data/episodes"),
    params:
        **sections("episodes", "seed"),
    log:
        "logs/episodes.log",
    benchmark:
        "results/benchmarks/episodes.tsv"
    conda:
        "../envs/persistworld.yml"
    threads: all_cores
    priority: 100
    resources:
        mem_mb=lambda wildcards, threads: 500 + 500 * threads,
        runtime=60,
    shell:
        "persistworld episodes --threads {threads} 2>&1 | tee {log}"

rule report_page:
    input:
        scores=SCORES,
        figures=expand("results/figures/figure_{number}.png", number=[*FIGURES, 6]),
        checkpoints=expand("checkpoints/{model}", model=CHECKPOINTS),
        training=TRAINING,
        rollouts=SHOWN,
        truth=RECORDED,
        base="checkpoints/base",
        manifest="data/manifest.json",
        masks="data/masks.safetensors",
        code=code("report"),
        labels=LABELS,
    output:
        page=report("results/report.html", caption="../report/report.rst", category="Report"),
    log:
        "logs/report.log",
    benchmark:
        "results/benchmarks/report.tsv"
    conda:
        "../envs/persistworld.yml"
    threads: 1
    resources:
        gpu=GPUS,
    params:
        **sections(*SECTIONS),
    shell:
        "persistworld report --threads {threads} 2>&1 | tee {log}"


WANTED.append(rules.report_page.output)

rule figures:
    input:
        scores=SCORES,
        rollouts=SHOWN,
        truth=RECORDED,
        manifest="data/manifest.json",
        masks="data/masks.safetensors",
        base="checkpoints/base",
        code=code("figures"),
        labels=LABELS,
    output:
        vector=expand("results/figures/figure_{number}.pdf", number=FIGURES),
        figure_3=report("results/figures/figure_3.png", caption="../report/figure_3.rst", category="Figures"),
        figure_4=report("results/figures/figure_4.png", caption="../report/figure_4.rst", category="Figures"),
        figure_5=report("results/figures/figure_5.png", caption="../report/figure_5.rst", category="Figures"),
        figure_11=report("results/figures/figure_11.png", caption="../report/figure_11.rst", category="Figures"),
    log:
        "logs/figures.log",
    benchmark:
        "results/benchmarks/figures.tsv"
    conda:
        "../envs/persistworld.yml"
    threads: 1
    resources:
        gpu=GPUS,
    params:
        **sections("episodes", "evaluation", "masks", "paper", "rollout.chunks", "seed", "variants", "world_model"),
    shell:
        "persistworld figures --threads {threads} 2>&1 | tee {log}"


WANTED.append(rules.figures.output)

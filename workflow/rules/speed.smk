# Table "speed": quality and time of the rollouts by the number of sampler steps. Not part of `all`: snakemake speed. Nothing is trained.
SPEED = PARAMS.derived.speed  # (model, sampler steps) -> run
if SPEED:

    rule speed_table:
        input:
            scores=expand("results/scores/{run}.parquet", run=SPEED.values()),
            checkpoints=expand(
                "checkpoints/{folder}",
                folder=list(dict.fromkeys(name for run in SPEED.values() for name in (REGISTRY[run].checkpoint, REGISTRY[run].base))),
            ),
            latents=LATENTS,
            manifest="data/manifest.json",
            code=code("speed_table"),
            labels=LABELS,
        output:
            metrics="results/metrics/speed.json",
            data=expand("results/tables/speed.{kind}", kind=["csv", "tex"]),
            vector="results/figures/speed.pdf",
            pareto=report("results/figures/speed.png", caption="../report/speed.rst", category="Speed"),
            page=report("results/ablations/speed.html", caption="../report/speed.rst", category="Speed"),
            table=report("results/tables/speed.md", caption="../report/speed.rst", category="Speed"),
        log:
            "logs/speed_table.log",
        benchmark:
            "results/benchmarks/speed_table.tsv"
        conda:
            "../envs/persistworld.yml"
        threads: 1
        resources:
            gpu=GPUS and 1,
        params:
            **sections("evaluation", "latents", "paper", "rollout", "seed", "speed"),
        shell:
            "persistworld speed_table --threads {threads} 2>&1 | tee {log}"


rule speed:
    input:
        ["results/metrics/speed.json"] if SPEED else [],
    localrule: True

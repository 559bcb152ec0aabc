# What scores depend on. The headline protocol and everything in paper/ only concern what is made of them.
SCORED_BY = sections(
    "episodes", "evaluation.convention", "evaluation.episodes", "evaluation.seeds", "evaluation.split", "masks", "metrics", "rollout.chunks", "world_model"
)


rule scores:
    input:
        rollouts=rollouts_of,
        truth=TRUTH,
        manifest="data/manifest.json",
        masks="data/masks.safetensors",
        base="checkpoints/base",
        code=code("scores"),
    output:
        scores="results/scores/{model}.parquet",
    params:
        **SCORED_BY,
    log:
        "logs/scores-{model}.log",
    benchmark:
        "results/benchmarks/scores-{model}.tsv"
    conda:
        "../envs/persistworld.yml"
    threads: 1
    priority: 10
    resources:
        mem_mb=2000,
        runtime=240,
        gpu=GPUS,
    shell:
        launch("persistworld scores --model {wildcards.model} --threads {threads} 2>&1 | tee {log}")


# The models without rollouts: one job, since they change only together.
rule baseline_scores:
    input:
        truth=TRUTH,
        manifest="data/manifest.json",
        masks="data/masks.safetensors",
        base="checkpoints/base",
        code=code("scores"),
    output:
        scores=expand("results/scores/{model}.parquet", model=BASELINES),
    params:
        **SCORED_BY,
    log:
        "logs/baseline_scores.log",
    benchmark:
        "results/benchmarks/baseline_scores.tsv"
    conda:
        "../envs/persistworld.yml"
    threads: 1
    priority: 10
    resources:
        mem_mb=2000,
        runtime=240,
        gpu=GPUS,
    shell:
        launch(f"persistworld scores --model {' '.join(BASELINES)} --threads {{threads}} 2>&1 | tee {{log}}")

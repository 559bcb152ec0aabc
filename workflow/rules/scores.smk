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
    log:
        "logs/scores-{model}.log",
    benchmark:
        "results/benchmarks/scores-{model}.tsv"
    priority: 10
    conda:
        "../envs/persistworld.yml"
    threads: 1
    resources:
        gpu=GPUS,
    params:
        **sections(*SCORED_BY),
    shell:
        launch("persistworld scores --model {wildcards.model} --threads {threads} 2>&1 | tee {log}")


# The models without rollouts. They share a job, since they always change together.
rule baseline_scores:
    input:
        truth=TRUTH,
        manifest="data/manifest.json",
        masks="data/masks.safetensors",
        base="checkpoints/base",
        code=code("scores"),
    output:
        scores=expand("results/scores/{model}.parquet", model=BASELINES),
    log:
        "logs/baseline_scores.log",
    benchmark:
        "results/benchmarks/baseline_scores.tsv"
    priority: 10
    conda:
        "../envs/persistworld.yml"
    threads: 1
    resources:
        gpu=GPUS,
    params:
        **sections(*SCORED_BY),
        models=" ".join(BASELINES),
    shell:
        launch("persistworld scores --model {params.models} --threads {threads} 2>&1 | tee {log}")

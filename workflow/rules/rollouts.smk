# All seeds of a model in one job. A stopped one keeps the finished seeds in runs/.
rule rollouts:
    input:
        checkpoints=checkpoints_of,
        latents=LATENTS,
        manifest="data/manifest.json",
        code=code("rollouts"),
    output:
        rollouts=expand("data/rollouts/{{model}}/seed-{seed}.safetensors", seed=SEEDS),
    params:
        rollout=lambda wildcards: asdict(PARAMS.for_run(wildcards.model).rollout),
        **sections("episodes", "evaluation.episodes", "evaluation.seeds", "evaluation.split", "latents", "seed"),
    log:
        "logs/rollouts-{model}.log",
    benchmark:
        "results/benchmarks/rollouts-{model}.tsv"
    conda:
        "../envs/persistworld.yml"
    threads: 1
    priority: 20
    resources:
        mem_mb=2000,
        runtime=720,
        gpu=GPUS,
    shell:
        launch("persistworld rollouts --model {wildcards.model} --threads {threads} 2>&1 | tee {log}")

# One job rolls out all seeds of a model. A stopped job keeps its finished seeds in runs/.
rule rollouts:
    input:
        checkpoints=checkpoints_of,
        latents=LATENTS,
        manifest="data/manifest.json",
        code=code("rollouts"),
    output:
        rollouts=expand("data/rollouts/{{model}}/seed-{seed}.safetensors", seed=SEEDS),
    log:
        "logs/rollouts-{model}.log",
    benchmark:
        "results/benchmarks/rollouts-{model}.tsv"
    priority: 20
    conda:
        "../envs/persistworld.yml"
    threads: 1
    resources:
        gpu=GPUS,
    params:
        **sections(*ROLLED_OUT_BY),
    shell:
        launch("persistworld rollouts --model {wildcards.model} --threads {threads} 2>&1 | tee {log}")

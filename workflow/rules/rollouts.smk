rule rollouts:
    input:
        checkpoint="checkpoints/{model}",
        latents=LATENTS,
        manifest="data/manifest.json",
        code=code("rollouts"),
    output:
        rollouts="data/rollouts/{model}/seed-{seed}.safetensors",
    log:
        "logs/rollouts-{model}-{seed}.log",
    benchmark:
        "results/benchmarks/rollouts-{model}-{seed}.tsv"
    priority: 20
    conda:
        "../envs/persistworld.yml"
    threads: 1
    resources:
        gpu=GPUS,
    params:
        **sections("evaluation", "rollout"),
    shell:
        launch("persistworld rollouts --model {wildcards.model} --seed {wildcards.seed} --threads {threads} 2>&1 | tee {log}")

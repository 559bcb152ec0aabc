rule rollouts:
    input:
        checkpoint="checkpoints/{model}",
        latents=LATENTS,
        manifest="data/manifest.json",
        code=code("rollouts"),
    output:
        rollouts="data/rollouts/{model}/seed-{seed}.safetensors",
    params:
        **sections("evaluation", "rollout"),
    log:
        "logs/rollouts-{model}-{seed}.log",
    benchmark:
        "results/benchmarks/rollouts-{model}-{seed}.tsv"
    conda:
        "../envs/persistworld.yml"
    threads: 1
    priority: 20
    resources:
        mem_mb=2000,
        runtime=720,
        gpu=GPUS,
    shell:
        launch("persistworld rollouts --model {wildcards.model} --seed {wildcards.seed} --threads {threads} 2>&1 | tee {log}")

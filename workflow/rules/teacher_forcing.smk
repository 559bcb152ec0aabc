rule teacher_forcing:
    input:
        base="checkpoints/base",
        latents=LATENTS,
        manifest="data/manifest.json",
        code=code("teacher_forcing"),
    output:
        checkpoint=directory("checkpoints/teacher_forced"),
        training="results/training/teacher_forced.csv",
    log:
        "logs/teacher_forcing.log",
    benchmark:
        "results/benchmarks/teacher_forcing.tsv"
    priority: 80
    conda:
        "../envs/persistworld.yml"
    threads: half_of_the_cores
    resources:
        gpu=GPUS,
    params:
        **sections("base_training", "control", "episodes", "latents", "post_training", "rollout.history_index", "seed"),
    shell:
        launch("persistworld teacher_forcing --threads {threads} 2>&1 | tee {log}")

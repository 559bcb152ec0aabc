# Beside Table 1: Frechet distances, and how well the arm follows its commands. Not part of `all`: snakemake fidelity.
rule pose_reader:
    # Reads the arm's pose from frames; learns from the recorded frames of training episodes.
    input:
        episodes="data/episodes",
        latents=LATENTS,
        manifest="data/manifest.json",
        base="checkpoints/base",
        code=code("pose_reader"),
    output:
        reader=directory("checkpoints/pose_reader"),
    log:
        "logs/pose_reader.log",
    benchmark:
        "results/benchmarks/pose_reader.tsv"
    conda:
        "../envs/persistworld.yml"
    threads: 1
    resources:
        gpu=GPUS and 1,
    params:
        **sections("episodes", "seed", "world_model"),
    shell:
        "persistworld pose_reader --threads {threads} 2>&1 | tee {log}"


rule fidelity:
    input:
        rollouts=ROLLOUTS,
        truth=TRUTH,
        latents=LATENTS,
        manifest="data/manifest.json",
        base="checkpoints/base",
        reader="checkpoints/pose_reader",
        code=code("fidelity"),
        labels=LABELS,
    output:
        metrics="results/metrics/fidelity.json",
        page="results/fidelity.html",
        data=expand("results/tables/fidelity.{kind}", kind=["csv", "tex"]),
        vector="results/figures/action_following.pdf",
        table=report("results/tables/fidelity.md", caption="../report/fidelity.rst", category="Beside Table 1"),
        plot=report("results/figures/action_following.png", caption="../report/action_following.rst", category="Beside Table 1"),
    log:
        "logs/fidelity.log",
    benchmark:
        "results/benchmarks/fidelity.tsv"
    conda:
        "../envs/persistworld.yml"
    threads: 1
    resources:
        gpu=GPUS and 1,
    params:
        **sections("episodes", "evaluation", "metrics.lpips", "paper", "rollout.chunks", "seed", "variants", "world_model"),
    shell:
        "persistworld fidelity --threads {threads} 2>&1 | tee {log}"

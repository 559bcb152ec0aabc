# Tables 3 to 11 and the other axes of params.yaml's section `ablations`. Not part of `all`: snakemake ablations, or table_5.
# A row is trained by the rule post_training. Its evaluation, which all rows and the base share, has episodes and a length of its own.
if AXES:

    rule ablation_truth:
        input:
            episodes="data/episodes",
            latents=LATENTS,
            manifest="data/manifest.json",
            base="checkpoints/base",
            code=code("truth"),
        output:
            truth=directory("data/ablation_truth"),
        log:
            "logs/ablation_truth.log",
        benchmark:
            "results/benchmarks/ablation_truth.tsv"
        priority: 15
        conda:
            "../envs/persistworld.yml"
        threads: 1
        resources:
            gpu=GPUS,
        params:
            **sections(*TRUTH_BY, model=ABLATION),
            model=ABLATION,
        shell:
            launch("persistworld truth --model {params.model} --threads {threads} 2>&1 | tee {log}")

    rule ablation_rollouts:
        input:
            checkpoints=checkpoints_of,
            latents=LATENTS,
            manifest="data/manifest.json",
            code=code("rollouts"),
        output:
            rollouts=expand("data/rollouts/{{model}}/seed-{seed}.safetensors", seed=ABLATION_SEEDS),
        log:
            "logs/ablation_rollouts-{model}.log",
        benchmark:
            "results/benchmarks/ablation_rollouts-{model}.tsv"
        wildcard_constraints:
            model=one_of(ABLATED),
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

    rule ablation_scores:
        input:
            rollouts=expand("data/rollouts/{{model}}/seed-{seed}.safetensors", seed=ABLATION_SEEDS),
            truth=ABLATION_TRUTH,
            manifest="data/manifest.json",
            base="checkpoints/base",
            code=code("scores"),
        output:
            scores="results/scores/{model}.parquet",
        log:
            "logs/ablation_scores-{model}.log",
        benchmark:
            "results/benchmarks/ablation_scores-{model}.tsv"
        wildcard_constraints:
            model=one_of(ABLATED),
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

    rule ablation_table:
        input:
            scores=ablation_scores_of,
            training=ablation_logs_of,
            code=code("ablation_table"),
            labels=LABELS,
        output:
            metrics="results/metrics/{axis}.json",
            data=expand("results/tables/{{axis}}.{kind}", kind=["csv", "tex"]),
            vector="results/figures/{axis}.pdf",
            curves=report("results/figures/{axis}.png", caption="../report/ablation_curves.rst", category="Ablations"),
            page=report("results/ablations/{axis}.html", caption="../report/ablation_page.rst", category="Ablations"),
            table=report("results/tables/{axis}.md", caption="../report/ablation.rst", category="Ablations"),
        log:
            "logs/ablation_table-{axis}.log",
        benchmark:
            "results/benchmarks/ablation_table-{axis}.tsv"
        wildcard_constraints:
            axis=one_of(AXES),
        conda:
            "../envs/persistworld.yml"
        threads: 1
        params:
            **sections("evaluation", "paper", "seed", model=ABLATION),
            axis=lambda wildcards: asdict(AXES[wildcards.axis]),
            runs=lambda wildcards: ROWS[wildcards.axis],
        shell:
            "persistworld ablation_table --axis {wildcards.axis} --threads {threads} 2>&1 | tee {log}"

    # table_3 .. table_11, and a target for each other axis.
    for AXIS in AXES:

        rule:
            name:
                AXIS
            input:
                f"results/metrics/{AXIS}.json",
            localrule: True


rule ablations:
    input:
        expand("results/metrics/{axis}.json", axis=AXES),
    localrule: True

# The policy evaluation (paper, appendix C): Table 12, Figures 7 and 8. Not part of `all`: snakemake policies.
POLICIES = PARAMS.policies
# Without people's labels, the shipped policies are rolled out here, and the shipped judge scores them.
POLICY_WORLDS = [] if POLICIES.labels else ["simulator", *POLICIES.models]


rule policies_real:
    # The simulator stands for reality.
    input:
        networks=shipped(POLICIES.eyes, POLICIES.judge),
        code=code("policies_real"),
    output:
        rollouts=directory("data/policies/simulator"),
    log:
        "logs/policies_real.log",
    benchmark:
        "results/benchmarks/policies_real.tsv"
    conda:
        "../envs/persistworld.yml"
    threads: all_cores
    params:
        **sections("episodes", "policies"),
    shell:
        "persistworld policies_real --threads {threads} 2>&1 | tee {log}"


# One job runs all policies in a world model. A stopped job keeps its finished policies in runs/.
rule policies_rollouts:
    input:
        checkpoints=checkpoints_of,
        real="data/policies/simulator",
        networks=shipped(POLICIES.eyes, POLICIES.judge, POLICIES.grasp),
        code=code("policies_rollouts"),
    output:
        rollouts=directory("data/policies/{model}"),
    log:
        "logs/policies_rollouts-{model}.log",
    benchmark:
        "results/benchmarks/policies_rollouts-{model}.tsv"
    conda:
        "../envs/persistworld.yml"
    threads: 1
    resources:
        gpu=GPUS,
    params:
        **sections("episodes", "policies", "rollout"),
    shell:
        "persistworld policies_rollouts --model {wildcards.model} --threads {threads} 2>&1 | tee {log}"


rule policies_results:
    input:
        rollouts=expand("data/policies/{world}", world=POLICY_WORLDS),
        labels=[POLICIES.labels] if POLICIES.labels else [],
        pictures=[task.picture for task in POLICIES.tasks.values() if task.picture],
        code=code("policies_results"),
        names=LABELS,
    output:
        metrics="results/metrics/policies.json",
        progress="results/policies_progress.csv",
        page="results/policies.html",
        data=expand("results/tables/table_12.{kind}", kind=["csv", "tex"]),
        vector=expand("results/figures/figure_{number}.pdf", number=[7, 8]),
        table_12=report("results/tables/table_12.md", caption="../report/table_12.rst", category="Tables"),
        figure_7=report("results/figures/figure_7.png", caption="../report/figure_7.rst", category="Figures"),
        figure_8=report("results/figures/figure_8.png", caption="../report/figure_8.rst", category="Figures"),
    log:
        "logs/policies_results.log",
    benchmark:
        "results/benchmarks/policies_results.tsv"
    conda:
        "../envs/persistworld.yml"
    threads: 1
    params:
        **sections("episodes", "evaluation", "paper", "policies", "seed", "variants"),
    shell:
        "persistworld policies_results --threads {threads} 2>&1 | tee {log}"

"""The ablations in both engines: they are no part of the default run, rows share runs, and a changed row concerns its own table alone.

Outputs are placeholders; the slow test at the end runs the real stages.
"""

import contextlib
import json
from collections import Counter
from pathlib import Path

import dvc_yaml
import pytest
import recorded
import yaml
from dvc.repo import Repo
from engines import copy_of_repository, dvc_status, jobs, planned, snakemake
from made_up import make_clone

AXES = {
    "weight": {"title": "Weight", "rows": {"w_2": {"post_training": {"reward": {"view_weights": {"wrist": 2.0}}}}, "ours": None}},
    "group": {"title": "K", "rows": {"k_4": {"post_training": {"candidates": 4, "keep": 0}}, "ours": None}},
}
ABLATIONS = {
    "training_seeds": [0, 1],
    "evaluation": {"seeds": [0]},
    "post_training": {"candidates": 16, "streams": False, "kl_prefix": -1, "reward": {"credit": "clip"}},
    "axes": AXES,
}


def set_ablations(folder: Path, ablations: dict) -> None:
    params = yaml.safe_load((folder / "params.yaml").read_text()) | {"ablations": ablations, "speed": {"steps": [1, 3]}}
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))


def changed_row() -> dict:
    rows = {"k_4": {"post_training": {"candidates": 4, "keep": 1}}, "ours": None}
    return ABLATIONS | {"axes": AXES | {"group": {"title": "K", "rows": rows}}}


def counted(folder: Path, *targets: str) -> Counter:
    """How many jobs of each rule Snakemake would run."""
    return Counter(job.rule.name for job in jobs(folder, *targets, needed=True))


@pytest.fixture(scope="module")
def folder(finished: Path) -> Path:
    """The finished repository with two axes of two rows, whose outputs are placeholders. Its parameters are put back."""
    before = {path: path.read_bytes() for path in (finished / "params.yaml", finished / "workflow/ablations/dvc.yaml")}
    set_ablations(finished, ABLATIONS)
    made = {path for job in jobs(finished, "ablations", "speed") for path in job.output}
    for path in made:
        if not (finished / path).exists():
            make_one(finished / path)
    snakemake(finished, "--touch", "--forceall", "--", "all", "ablations", "speed")
    yield finished
    for path, content in before.items():
        path.write_bytes(content)


def make_one(path: Path) -> None:
    path = path if path.suffix else path / "placeholder"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("{}" if path.suffix == ".json" else path.name)


def test_they_are_no_part_of_the_default_run_and_rows_share_runs(folder):
    assert planned(folder, "all", "ablations", "speed") == set()
    assert not any("ablation" in path for job in jobs(folder) for path in job.output)
    every = Counter(job.rule.name for job in jobs(folder, "ablations"))
    assert every["post_training"] == 6 and every["ablation_scores"] == 7 and every["ablation_table"] == 2  # 3 rows, 2 seeds; the base
    assert Counter(job.rule.name for job in jobs(folder, "weight"))["post_training"] == 4
    trained = {job.wildcards.model for job in jobs(folder, "speed") if job.rule.name == "post_training"}
    assert trained == {"post_trained"}


def test_a_changed_row_runs_alone(folder):
    set_ablations(folder, changed_row())
    assert counted(folder, "ablations") == {"post_training": 2, "ablation_rollouts": 2, "ablation_scores": 2, "ablation_table": 1}
    assert planned(folder, "weight", "all") == set()
    set_ablations(folder, ABLATIONS)
    assert planned(folder, "ablations") == set()


def values() -> dict[str, str]:
    return {path.stem: path.read_text() for path in dvc_yaml.ABLATIONS.values.iterdir()}


def test_dvc_has_a_stage_per_table_and_its_own_pipeline_does_not_see_them(folder):
    with contextlib.chdir(folder):
        dvc_yaml.write_ablations()
        stages = yaml.safe_load(dvc_yaml.ABLATIONS.file.read_text())["stages"]
        assert stages.keys() == {"parameters", "weight", "group", "speed"}
        before = values()
        set_ablations(folder, changed_row())
        dvc_yaml.check_ablations()  # the stages are the same
        changed = values()
        set_ablations(folder, ABLATIONS)
    assert changed["weight"] == before["weight"] and changed["speed"] == before["speed"] and changed["group"] != before["group"]
    assert not set(stages) & (set(yaml.safe_load((folder / "dvc.yaml").read_text())["stages"]) - {"parameters"})
    rules, _, target = stages["group"]["cmd"].partition("--allowed-rules ")[2].partition(" -- ")
    wanted = jobs(folder, target, allowed_rules=set(rules.split()), forceall=True, needed=True)
    assert {job.rule.name for job in wanted} == set(rules.split())
    assert set(dvc_status(folder)) <= {"parameters"}


def test_experiments_list_none_of_the_values_that_the_tables_compare(folder):
    """Git and the cache lack them, so as DVC's parameters each would be a column of `dvc exp show --only-changed`."""
    with contextlib.chdir(folder):
        dvc_yaml.write_ablations()
        with Repo() as repo:
            shown = repo.params.show()[""]["data"]
        names = {path.name for path in dvc_yaml.ABLATIONS.values.iterdir()}
    assert {"params.yaml", "results/parameters.json"} <= shown.keys() and not names & {Path(path).name for path in shown}


def test_only_recorded_tables_count_for_make_sync(folder):
    lock = folder / "workflow/ablations/dvc.lock"
    with contextlib.chdir(folder):
        dvc_yaml.write_ablations()
        assert recorded.tables() == []
        lock.write_text(yaml.safe_dump({"stages": {"parameters": {}, "group": {}, "dropped_since": {}}}))
        assert recorded.tables() == ["group"]
        lock.unlink()


@pytest.mark.slow
def test_an_axis_runs_and_a_changed_row_runs_alone(tmp_path):
    """The real stages, tiny: an axis of two rows, then another value in one of them."""
    changes = {"latents": {"shards": 1}, "evaluation": {"models": ["base", "post_trained"]}}
    clone = make_clone(tmp_path, changes=changes)
    params = yaml.safe_load((clone / "params.yaml").read_text())
    rows = {"ours": None, "w_2": {"post_training": {"reward": {"view_weights": {"wrist": 2.0}}}}}
    params["ablations"] = {"training_seeds": [0], "rollout": {"chunks": 1}, "axes": {"table_8": {"title": "Weight", "rows": rows}}}
    copy_of_repository(clone)
    (clone / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    snakemake(clone, "table_8")
    result, page = clone / "results/metrics/table_8.json", clone / "results/ablations/table_8.html"
    first = json.loads(result.read_text())
    assert first["rows"].keys() == {"ours", "w_2"} and page.stat().st_size > 10_000
    logs = {path: path.stat().st_mtime_ns for path in clone.glob("logs/*.log")}
    rows["w_2"]["post_training"]["reward"]["view_weights"]["wrist"] = 5.0
    (clone / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    snakemake(clone, "table_8")
    ran = [path.stem for path in clone.glob("logs/*.log") if logs.get(path) != path.stat().st_mtime_ns]
    assert Counter(name.partition("-")[0] for name in ran) == {
        "post_training": 1, "ablation_rollouts": 1, "ablation_scores": 1, "ablation_table": 1
    }  # fmt: skip
    assert json.loads(result.read_text())["rows"]["ours"] == first["rows"]["ours"]

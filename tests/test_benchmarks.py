"""Every benchmark runs and gives numbers that can be, and what two of them compare agrees. How fast it is, is not looked at."""

import dataclasses
import math
import re
import signal
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from tiny import SIZES

from benchmarks import __main__ as command
from benchmarks import batching, chunk, clip, cost, droid_size, extraction, gpu, phases, throughput
from benchmarks.materials import Materials, load_materials
from benchmarks.table import Row, markdown
from persistworld.config.compute import RolloutCompute
from persistworld.config.params import Params, load_params
from persistworld.runtime.files import read_json

ROOT = Path(__file__).parents[1]
TABLETOP = load_params(ROOT / "presets/tabletop.yaml")


def checked(rows: list[Row]) -> dict[str, float]:
    """The values by name, each of them a positive number, and each a line of the table."""
    assert all(math.isfinite(row.value) and row.value >= 0 for row in rows), rows
    assert markdown("title", rows).count("\n") == 4 + len(rows)
    return {row.what: row.value for row in rows}


@pytest.fixture(scope="module")
def small() -> Params:
    """The tabletop at the sizes of `conftest`, which no checkpoint has: random weights."""
    base = dataclasses.replace(TABLETOP.base_checkpoint, location="nowhere")
    episodes = dataclasses.replace(TABLETOP.episodes, height=16, width=16, path="nowhere")
    training = dataclasses.replace(TABLETOP.post_training, groups=2, prefix=(0, 1))
    compute = dataclasses.replace(TABLETOP.compute, rollout=RolloutCompute(batch=2))
    return dataclasses.replace(
        TABLETOP, base_checkpoint=base, episodes=episodes, post_training=training, compute=compute, world_model=SIZES
    )


@pytest.fixture(scope="module")
def materials(small) -> Materials:
    found = load_materials(small)
    assert found.weights == "random"
    return found


def test_our_engine_and_a_plain_loop_sample_the_same_chunk(tmp_path, monkeypatch, capsys):
    """As one calls it, on the shipped base: float32, three steps, text and all three views."""
    raw = yaml.safe_load((ROOT / "presets/tabletop.yaml").read_text())
    raw["compute"]["rollout"]["batch"] = 1
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(raw))
    monkeypatch.chdir(ROOT)  # where the base lies
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr(sys, "argv", ["benchmarks", "engine", "--params", str(tmp_path / "params.yaml"), "--threads", "1"])
    assert command.main() == 0
    table = capsys.readouterr().out
    assert "ours, float32" in table and "bfloat16" not in table
    assert float(re.search(r"\| difference in float32 \| (\S+) \|", table)[1]) < 1e-4


def test_costs_of_a_preset_add_up():
    found = checked(cost.rows(TABLETOP))
    assert found["chunk, 3 steps"] == pytest.approx(3 * found["U-Net forward"])
    assert found["the same, stock cross-attention"] > found["U-Net forward"] and found["world model"] == pytest.approx(2.54, abs=0.01)
    assert found["bfloat16 casts kept for the backward pass"] == 0  # the preset's precision is float32
    low, full = (cost._peak("peak", 2**30, 2, 2**29, 2**30, whole) for whole in (False, True))
    assert (low.value, full.value) == (2, 3) and low.note.startswith("to 3:")


@pytest.mark.parametrize("benchmark", [batching, chunk, phases, throughput], ids=lambda module: module.__name__)
def test_what_is_timed_runs(benchmark, materials):
    found = checked(benchmark.rows(materials))
    assert all(value > 0 for name, value in found.items() if name != "prefix")  # streams have none to roll out


def test_extraction_runs_without_a_data_set(small, tmp_path, monkeypatch):
    if clip.ENCODER not in clip.av.codecs_available:
        pytest.skip(f"this PyAV has no {clip.ENCODER}, which DROID's videos are made with")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(extraction, "CLIP", 15)
    found = checked(extraction.rows(small))
    assert found["pipeline"] > 0 and found["DROID: on 1 GPU"] == pytest.approx(8 * found["DROID: on 8 GPUs"])


def test_the_gpu_script_runs_at_a_small_size(tmp_path):
    """All but what compiles, for which the budget is too small (on a slow machine also more). Nothing fails."""
    record = gpu.main("small", gpu.COMPILING - 1, tmp_path)
    found = {each["name"]: each for each in record["results"]}
    assert read_json(tmp_path / "gpu.json") == record and not [each for each in found.values() if "error" in each]
    assert sum("left out" in each for each in found.values()) >= 5
    for each in found.values():
        for row in each.get("rows", []):
            assert row["value"] > 0 or row["what"] == "prefix"
    assert "No GPU" in (tmp_path / "gpu.md").read_text()


def test_a_measurement_that_fails_is_a_line():
    def out_of_memory() -> list[Row]:
        raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate 20 GiB")

    def endless() -> list[Row]:
        time.sleep(600)
        return []

    signal.signal(signal.SIGALRM, gpu._out_of_time)
    failed = gpu.measured(gpu.Measurement("large", out_of_memory), time.monotonic() + 60)
    assert failed == {"name": "large", "error": "OutOfMemoryError: CUDA out of memory."}
    assert "OutOfTime" in gpu.measured(gpu.Measurement("long", endless, 0.1), time.monotonic() + 0.5)["error"]


@pytest.mark.slow
def test_the_stages_run_at_a_share_of_droids_size(tmp_path):
    found = droid_size.rows(0.002, tmp_path)
    assert not [row for row in found if "FAILED" in row.note]
    assert {"episodes", "manifest", "snakemake -n", "tables", "figures", "report"} <= {row.what for row in found}

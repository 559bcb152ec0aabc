"""From episodes to tables on other data than DROID's: any number of views, poses of any width, no training split."""

from pathlib import Path

import pandas as pd
import pytest
from made_up import ALL_VIEWS, make_clone, stages
from safetensors import safe_open

from persistworld.checkpoints.folders import load_base_model
from persistworld.cli import main
from persistworld.config.params import load_params
from persistworld.data.manifest import load_manifest
from persistworld.runtime.files import read_json
from persistworld.runtime.tensor_files import read_tensors, write_tensors

LATENTS = ("episodes", "base_checkpoint", "latents --shard 0", "latents --shard 1", "manifest", "truth", "masks")


@pytest.mark.parametrize(("views", "numbers"), [(1, 4), (2, 14), (4, 4)])
def test_other_cameras_and_robots_go_from_episodes_to_scores(tmp_path, monkeypatch, views, numbers):
    """One step of post-training, and its rollouts beside the base's."""
    monkeypatch.chdir(make_clone(tmp_path, views, numbers, {"evaluation": {"models": ["base", "post_trained"]}}))
    stages(*LATENTS, "post_training")
    for model in ("base", "post_trained"):
        stages(f"rollouts --model {model} --seed 0", f"scores --model {model}")
    stages("tables")
    manifest = load_manifest("data/manifest.json")
    assert [e.index for e in manifest.episodes] == [0, 1, 2, 99, 199] and len(manifest.statistics.low) == numbers
    assert load_base_model("checkpoints/base").action_encoder.action_encode[0].in_features == numbers
    with safe_open("data/latents/shard-0.safetensors", "pt") as shard:
        assert shard.get_slice("0").get_shape() == [11, 4, views * 4, 4] and shard.get_slice("0.poses").get_shape() == [11, numbers]
    with safe_open("data/rollouts/post_trained/seed-0.safetensors", "pt") as rollouts:
        assert rollouts.get_slice("latents").get_shape() == [2, 9, 4, views * 4, 4]
    tables = {model: pd.read_parquet(f"results/scores/{model}.parquet") for model in ("base", "post_trained")}
    for table in tables.values():
        assert set(table["view"]) == set(ALL_VIEWS[:views]) and set(table["episode"]) == {99, 199} and table["frame"].max() == 8
    assert not tables["base"]["value"].equals(tables["post_trained"]["value"])  # the step changed something
    assert set(read_json("results/metrics/table_1.json")) == ({"external", "wrist"} if views > 2 else {"external"})


def test_evaluation_needs_the_validation_split_alone(tmp_path, monkeypatch):
    """From the manifest to Table 1 of a given checkpoint: no file of a training episode is opened, and no statistics are made."""
    clone = make_clone(tmp_path, changes={"episodes": {"splits": ["validation"], "bad_share": 0.0}})
    for path in (tmp_path / "made_up/videos/train").rglob("*.mp4"):
        path.unlink()
    monkeypatch.chdir(clone)
    stages(*LATENTS, "rollouts --model base --seed 0")
    models = load_params().evaluation.models
    stages(f"scores --model {' '.join(models)}", "tables")
    manifest = load_manifest("data/manifest.json")
    assert [e.index for e in manifest.episodes] == [99, 199] and manifest.pose_statistics is None
    table = (clone / "results/tables/table_1.md").read_text()
    assert "| Copy first frame |" in table and "| Base |" in table and "nan" not in table
    assert set(read_json("results/metrics/table_1.json")["wrist"]) == set(models)


def test_a_model_whose_rollouts_are_not_finite_gets_no_scores(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(make_clone(tmp_path, changes={"evaluation": {"models": ["base"]}}))
    stages(*LATENTS)
    weights = Path("checkpoints/base/world_model.safetensors")
    write_tensors({name: tensor * float("nan") for name, tensor in read_tensors(weights).items()}, weights)
    assert main(["rollouts", "--model", "base", "--seed", "0", "--threads", "1"]) != 0
    assert "checkpoints/base" in capsys.readouterr().err and not Path("data/rollouts").exists()


def test_shards_of_a_run_in_more_of_them_are_removed_and_nothing_else(tmp_path, monkeypatch):
    monkeypatch.chdir(make_clone(tmp_path))
    stages(*LATENTS[:4])
    for name in ("shard-2.safetensors", "shard-2.json", "shard-0.safetensors.bak"):
        Path("data/latents", name).touch()
    stages("latents --shard 1")
    left = {path.name for path in Path("data/latents").iterdir()}
    assert left == {f"shard-{number}.{kind}" for number in (0, 1) for kind in ("safetensors", "json")} | {"shard-0.safetensors.bak"}

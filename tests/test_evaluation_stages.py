"""The stages truth, rollouts and scores on a tiny random base: what is computed once, what a stop keeps, what a variant reuses."""

import os
from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml
from made_up import make_clone, stages, write_base
from refusals import assert_names, refused
from safetensors.torch import load_file

from persistworld.checkpoints.adapters import load_world_model
from persistworld.cli import main
from persistworld.config.params import load_params
from persistworld.data.latents import LatentStore
from persistworld.data.manifest import evaluation_episodes, load_manifest
from persistworld.evaluation.truth import LiveTruth, StoredTruth
from persistworld.rollouts.evaluation import rollout
from persistworld.rollouts.starts import poses_after, starts_of
from persistworld.stages import rollouts
from persistworld.world_model.autoencoder import load_autoencoder

PREPARED = ("episodes", "base_checkpoint", "latents --shard 0", "latents --shard 1", "manifest")


def change(**sections: dict) -> None:
    """Set keys in the working directory's params.yaml."""
    raw = yaml.safe_load(Path("params.yaml").read_text())
    for section, keys in sections.items():
        raw[section] = raw.get(section, {}) | keys
    Path("params.yaml").write_text(yaml.safe_dump(raw, sort_keys=False))


@pytest.fixture
def clone(tmp_path, monkeypatch) -> Path:
    """A folder with everything that rollouts and scores need, and two evaluation seeds."""
    folder = make_clone(tmp_path, changes={"evaluation": {"seeds": [0, 3]}})
    monkeypatch.chdir(folder)
    stages(*PREPARED)
    return folder


def test_stored_frames_are_those_that_are_decoded_and_give_the_same_scores(clone):
    stages("truth", "rollouts --model base", "scores --model copy_frame base")
    params, autoencoder = load_params(), load_autoencoder("checkpoints/base")
    stored, live = StoredTruth(), LiveTruth(params, autoencoder)
    for episode in (99, 199):
        assert stored.recorded(episode).shape == (9, 3, 16, 16, 3)
        assert torch.equal(stored.recorded(episode), live.recorded(episode))
        assert torch.equal(stored.decoded(episode), live.decoded(episode))
    with refused("data/truth", "episode 7"):
        stored.recorded(7)
    first = {model: pd.read_parquet(f"results/scores/{model}.parquet") for model in ("copy_frame", "base")}
    change(compute={"store_truth": False})
    stages("scores --model base")  # alone, and from videos and latents
    assert pd.read_parquet("results/scores/base.parquet").equals(first["base"])
    assert set(first["copy_frame"]["seed"]) == {-1} and set(first["base"]["seed"]) == {0, 3}


def test_truth_that_is_not_whole_is_one_line(clone, capsys):
    assert main(["scores", "--model", "copy_frame"]) == 2
    assert "data/truth/episodes.json" in capsys.readouterr().err
    stages("truth")
    os.truncate("data/truth/decoded.npy", 100)
    assert main(["scores", "--model", "copy_frame"]) == 2
    assert "data/truth" in capsys.readouterr().err


def test_a_stopped_job_keeps_its_finished_seeds_and_nothing_of_another_run(clone, monkeypatch):
    stages("rollouts --model base")
    whole = [Path(f"data/rollouts/base/seed-{seed}.safetensors").read_bytes() for seed in (0, 3)]
    rolled = []

    def stopped(model, starts, poses, episodes, seed, *settings):
        rolled.append(seed)
        if len(set(rolled)) == 2 and limit:
            raise KeyboardInterrupt
        return rollout(model, starts, poses, episodes, seed, *settings)

    monkeypatch.setattr(rollouts, "rollout", stopped)
    limit = True
    assert main(["rollouts", "--model", "base"]) == 130
    assert set(rolled) == {0, 3}
    rolled.clear()
    stages("rollouts --model base")  # the seed that was stopped alone
    assert set(rolled) == {3}
    assert [Path(f"data/rollouts/base/seed-{seed}.safetensors").read_bytes() for seed in (0, 3)] == whole
    assert not list(Path("runs").rglob("seed-*"))
    rolled.clear()
    assert main(["rollouts", "--model", "base"]) == 130
    rolled.clear()
    limit = False
    change(rollout={"history_index": [0, 0, -12, -9, -6, -3]})
    stages("rollouts --model base")  # other parameters: both seeds
    assert set(rolled) == {0, 3}


def test_seeds_may_be_rolled_out_apart(clone, capsys):
    stages("rollouts --model base")
    together = {path.name: path.read_bytes() for path in Path("data/rollouts/base").iterdir()}
    for path in Path("data/rollouts/base").iterdir():
        path.unlink()
    stages("rollouts --model base --seed 3", "rollouts --model base --seed 0")
    assert {path.name: path.read_bytes() for path in Path("data/rollouts/base").iterdir()} == together
    assert main(["rollouts", "--model", "base", "--seed", "1"]) == 2
    assert_names(capsys.readouterr().err.splitlines()[-1], "--seed = 1", "evaluation.seeds")
    assert main(["rollouts", "--model", "copy_frame"]) == 2
    assert "--model = copy_frame" in capsys.readouterr().err


def test_a_variant_with_another_sampler_rolls_out_the_post_trained_checkpoint(clone):
    change(variants={"one_step": {"rollout": {"sampler": {"steps": 1}}, "label": "One step"}})
    stages("truth", "post_training", "rollouts --model one_step", "rollouts --model base", "scores --model one_step base")
    assert not Path("checkpoints/one_step").exists()
    params = load_params()
    model = load_world_model("checkpoints/post_trained")
    entries = evaluation_episodes(load_manifest("data/manifest.json"), params.evaluation, 9)
    store = LatentStore("data/latents")
    starts, poses = starts_of(model, store, entries), poses_after(store, entries, 8)
    expected = rollout(model, starts, poses, [entry.index for entry in entries], 3, params.for_run("one_step").rollout)
    assert torch.equal(load_file("data/rollouts/one_step/seed-3.safetensors")["latents"], expected)
    assert main(["post_training", "--run", "one_step"]) == 2  # it has no training of its own


def test_a_variant_may_have_a_base_of_its_own_with_the_same_autoencoder(clone, capsys):
    write_base(clone.parent / "other", ("exterior_1", "exterior_2", "wrist"), 7)
    weights = clone.parent / "other/world_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4] + b"\0\0\0\0")
    (clone.parent / "other/manifest.json").unlink(missing_ok=True)
    change(variants={"elsewhere": {"base_checkpoint": {"location": "../other"}}})
    stages("base_checkpoint --name elsewhere_base", "post_training --run elsewhere", "rollouts --model elsewhere")
    assert Path("data/rollouts/elsewhere/seed-3.safetensors").exists()
    with refused("checkpoints/elsewhere"):
        load_world_model("checkpoints/elsewhere")
    autoencoder = clone.parent / "other/autoencoder.safetensors"
    autoencoder.write_bytes(autoencoder.read_bytes()[:-4] + b"\0\0\0\0")
    assert main(["base_checkpoint", "--name", "elsewhere_base"]) == 2
    assert_names(capsys.readouterr().err.splitlines()[-1], "variants.elsewhere.base_checkpoint", "autoencoder.safetensors")
    assert not Path("checkpoints/elsewhere_base").exists() and Path("checkpoints/base").exists()


def test_the_convention_changes_ssim_alone(clone):
    stages("truth", "rollouts --model base", "scores --model base")
    ours = pd.read_parquet("results/scores/base.parquet")
    change(evaluation={"convention": "torchmetrics"})
    stages("scores --model base")
    theirs = pd.read_parquet("results/scores/base.parquet")
    keys = [column for column in ours if column != "value"]
    both = ours.merge(theirs, on=keys, suffixes=("_ours", "_theirs"), validate="one_to_one")
    assert len(both) == len(ours) == len(theirs)
    apart = (both["value_ours"] - both["value_theirs"]).abs().groupby(both["metric"]).max()
    assert apart["ssim"] > 1e-3 and apart["psnr"] < 1e-3 and apart["lpips"] == 0

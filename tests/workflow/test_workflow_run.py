"""Both engines on the real stages, at a size that takes minutes: what reruns, what comes back, what is recorded.

One story, told in order: a run, the headline's protocol, a training parameter and back again, an older commit.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from engines import commit, copy_of_repository, dvc, dvc_status, git, planned, run, snakemake

SAMPLER = {"steps": 1, "sigma_max": 20.0, "sigma_min": 0.3}
# section -> keys that make it small
SMALL = {
    "episodes": {"count": 8, "height": 32, "width": 32},
    "latents": {"shards": 1},
    "world_model": {
        "autoencoder": {"patch": 4, "latent_channels": 8, "channels": [32], "layers": 1, "scaling_factor": 1.0},
        "unet": {
            "channels": [32, 32], "heads": [2, 2], "layers": 1, "cross_attention_dim": 32, "addition_time_embed_dim": 32
        },
        "text_encoder": {"hidden": 32, "layers": 1, "heads": 2, "projection": 32, "vocabulary": 512, "length": 24},
    },
    "base_training": {
        "autoencoder_steps": 2, "autoencoder_episodes": 2, "autoencoder_batch": 4, "perceptual_steps": 2, "steps": 2,
        "batch": 2, "frame_skips": [1], "history_rule": "buffer",
    },
    "rollout": {"sampler": SAMPLER},
    "compute": {"rollout": {"batch": 2}, "post_training": {"save_every": 1}},
    "post_training": {"steps": 2, "groups": 1, "candidates": 2, "sampler": SAMPLER},
    "evaluation": {"seeds": [0]},
    "paper": {"bootstrap": 20, "report_episodes": 1},
}  # fmt: skip
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    """A small base checkpoint made from nothing, then a whole run, recorded by both engines and committed."""
    folder = copy_of_repository(tmp_path_factory.mktemp("run"))
    params = yaml.safe_load((folder / "params.yaml").read_text())
    for section, keys in SMALL.items():
        params[section] |= keys
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    for path in (folder / "assets/tabletop_base").glob("*"):
        path.unlink()
    for stage in ("episodes", "base_training"):
        run(folder, "-m", "persistworld.cli", stage, "--threads", "1")
    commit(folder, "base checkpoint")
    snakemake(folder)
    run(folder, "workflow/record.py")
    commit(folder, "run")
    return folder


def set_parameter(folder: Path, section: str, key: str, value: object) -> None:
    params = yaml.safe_load((folder / "params.yaml").read_text())
    params[section][key] = value
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))


def reproduce(folder: Path) -> set[str]:
    """`dvc repro`; the jobs that ran, by the names of their logs."""
    before = {path: path.stat().st_mtime_ns for path in folder.glob("logs/*.log")}
    dvc(folder, "repro", "--quiet")
    return {path.stem for path in folder.glob("logs/*.log") if before.get(path) != path.stat().st_mtime_ns}


def nothing_to_do(folder: Path) -> bool:
    return not planned(folder) and not dvc_status(folder)


def test_the_story(repository, capsys):
    trained = (repository / "checkpoints/post_trained").glob("*.safetensors")
    weights = {path: path.read_bytes() for path in trained}
    assert weights and nothing_to_do(repository)
    git(repository, "tag", "first")

    # The headline's protocol: the paper only, and the metrics differ.
    set_parameter(repository, "evaluation", "protocol", "raw")
    assert reproduce(repository) == {"tables", "figures", "preference", "report"}
    assert nothing_to_do(repository)
    capsys.readouterr()
    dvc(repository, "metrics", "diff", "--json")
    assert json.loads(capsys.readouterr().out)
    commit(repository, "raw protocol")

    # A post-training parameter: the training and what follows; back again: restored, not trained again.
    set_parameter(repository, "post_training", "steps", 1)
    ran = reproduce(repository)
    assert {"post_training-post_trained", "teacher_forcing", "rollouts-post_trained", "tables", "report"} <= ran
    assert not ran & {"episodes", "base_checkpoint", "latents-0", "manifest", "truth", "masks", "rollouts-base", "scores-base"}
    assert nothing_to_do(repository)
    set_parameter(repository, "post_training", "steps", 2)
    # DVC restores no outputs that git keeps, so tables and figures are made again.
    assert reproduce(repository) <= {"tables", "figures", "preference"}
    assert {path: path.read_bytes() for path in weights} == weights

    # An older commit: its files come back, and after `make sync` neither engine wants anything.
    git(repository, "checkout", "--quiet", "--force", "first")
    dvc(repository, "checkout", "--quiet")
    sync(repository)
    assert nothing_to_do(repository)


def sync(folder: Path) -> None:
    """`make sync`, in the environment of the tests."""
    (folder / ".venv").mkdir(exist_ok=True)
    (folder / ".venv/ready").touch()
    environment = os.environ | {"PYTHONPATH": str(folder / "src")}
    subprocess.run(["make", "sync", f"BIN={Path(sys.executable).parent}"], cwd=folder, check=True, env=environment)

"""Files that a kill, a full disk or a slip left damaged: one line that names the file and what to do, and no part stays behind."""

import argparse
import dataclasses
import errno
import json
import os
import platform
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
import yaml
from made_up import write_base
from refusals import assert_names, refused
from tiny import SIZES, make_model

from persistworld import cli
from persistworld.checkpoints.folders import load_base_model, save_world_model, write_manifest
from persistworld.config.data import BaseCheckpointConfig
from persistworld.config.evaluation import EvaluationConfig
from persistworld.config.params import Params
from persistworld.config.world_model import WorldModelConfig
from persistworld.data.episodes import BadEpisode
from persistworld.data.formats.lerobot_columns import episode_of, read_info
from persistworld.data.latents import LatentStore, read_shard_indices
from persistworld.runtime.files import ABANDONED, atomic_path, read_json, system_error, write_json
from persistworld.runtime.tensor_files import write_pickle
from persistworld.stages import base_checkpoint, figures, latents, report, rollouts
from persistworld.training.state import save_state
from persistworld.world_model.text import load_tokenizer

VIEWS = ("exterior_1", "exterior_2", "wrist")


# Latents


@pytest.fixture
def shards(latent_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(latent_folder, tmp_path / "latents"))


@pytest.mark.parametrize("size", [0, 4, 100, 3000])
def test_a_truncated_shard_is_named(shards: Path, size: int) -> None:
    path = shards / "shard-1.safetensors"
    os.truncate(path, size)
    with refused("shard-1.safetensors", "'latents'"):
        LatentStore(shards)


def test_an_episode_that_no_shard_holds_is_named(shards: Path) -> None:
    store = LatentStore(shards)
    assert len(store.latents(3)) == len(store.poses(3))
    for read in (store.latents, store.poses):
        with refused("episode 77", "data/manifest.json"):
            read(77)


@pytest.mark.parametrize("content", ["{}", "[]", '{"episodes": {"1": {"frames": 1}}, "bad": {}}', '{"episodes": '])
def test_a_damaged_index_of_a_shard_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "shard-0.json").write_text(content)
    with refused("shard-0.json"):
        read_shard_indices(tmp_path, 1)


# Checkpoints


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    folder = tmp_path / "checkpoint"
    write_base(folder, VIEWS, 7)
    write_manifest(folder, [SIZES], 0, {})
    return folder


@pytest.mark.parametrize(
    ("change", "key"),
    [
        (lambda raw: {}, "world_model"),
        (lambda raw: [], "world_model"),
        (lambda raw: {k: v for k, v in raw.items() if k != "views"}, "views"),
        (lambda raw: raw | {"pose_statistics": {"rotation": "euler", "low": [0.0]}}, "high"),
        (lambda raw: raw | {"world_model": {"histroy": 6}}, "'history'"),
    ],
)
def test_a_damaged_config_is_named(checkpoint: Path, change, key: str) -> None:
    write_json(checkpoint / "config.json", change(read_json(checkpoint / "config.json")))
    with refused("config.json", key):
        load_base_model(checkpoint)


@pytest.mark.parametrize("content", [b"", b"{}", b"garbage", b"\xff\xfe"])
def test_a_damaged_tokenizer_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "tokenizer.json").write_bytes(content)
    with refused("tokenizer.json"):
        load_tokenizer(tmp_path)


def test_a_missing_tokenizer_and_binary_json_are_named(tmp_path: Path) -> None:
    with refused("tokenizer.json"):
        load_tokenizer(tmp_path)
    (tmp_path / "config.json").write_bytes(b"\xff\xfe\x00")
    with refused("config.json"):
        read_json(tmp_path / "config.json")


# What parameters say of a given checkpoint


def fetch_as(checkpoint: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, **world_model: object) -> Params:
    """Run the stage base_checkpoint on `checkpoint` in `folder`, with keys of the section world_model."""
    monkeypatch.chdir(folder)
    params = Params(
        base_checkpoint=BaseCheckpointConfig(source="file", location=str(checkpoint)),
        world_model=dataclasses.replace(WorldModelConfig(), **world_model),
    )
    base_checkpoint.main(params, argparse.Namespace(name="base"))
    return params


def test_a_flipped_byte_of_a_given_checkpoint_is_noticed(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (checkpoint / "notes.txt").write_text("files that the manifest does not name may lie beside")
    fetch_as(checkpoint, tmp_path, monkeypatch)
    weights = bytearray((checkpoint / "world_model.safetensors").read_bytes())
    weights[-1] ^= 1
    (checkpoint / "world_model.safetensors").write_bytes(weights)
    with refused("world_model.safetensors", "sha256", "manifest.json"):
        fetch_as(checkpoint, tmp_path, monkeypatch)
    (checkpoint / "manifest.json").unlink()  # the change was meant
    fetch_as(checkpoint, tmp_path, monkeypatch)
    (checkpoint / "manifest.json").write_text('{"files": {"autoencoder.safetensors": "00"}}')
    with refused("autoencoder.safetensors", "sha256"):
        fetch_as(checkpoint, tmp_path, monkeypatch)


def test_a_file_that_the_manifest_names_must_be_there(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (checkpoint / "tokenizer.json").unlink()
    with refused("tokenizer.json", "manifest.json"):
        fetch_as(checkpoint, tmp_path, monkeypatch)


@pytest.mark.parametrize(
    ("key", "value", "named"),
    [
        ("history", 4, ("world_model.history = 4", 6)),
        ("rotation", "continuous", ("world_model.rotation = continuous", "euler")),
        ("unet", dataclasses.replace(SIZES.unet, layers=3), ("world_model.unet.layers = 3", 1)),
        ("autoencoder", dataclasses.replace(SIZES.autoencoder, patch=2), ("world_model.autoencoder.patch = 2", 4)),
    ],
)
def test_parameters_do_not_contradict_a_given_checkpoint(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str, value: object, named: tuple
) -> None:
    sizes = {name: getattr(SIZES, name) for name in ("unet", "autoencoder", "text_encoder")}
    # The scaling factor is measured when an autoencoder is trained: no contradiction.
    sizes["autoencoder"] = dataclasses.replace(SIZES.autoencoder, scaling_factor=1.0)
    fetch_as(checkpoint, tmp_path, monkeypatch, **sizes)
    with refused(*named):
        fetch_as(checkpoint, tmp_path, monkeypatch, **sizes | {key: value})


def test_views_keep_the_order_of_the_checkpoint(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    params = fetch_as(checkpoint, tmp_path, monkeypatch)
    for views in (("wrist", "exterior_1", "exterior_2"), VIEWS[::-1]):
        swapped = dataclasses.replace(params, episodes=dataclasses.replace(params.episodes, views=views))
        with refused("episodes.views", "exterior_1, exterior_2, wrist"):
            base_checkpoint.main(swapped, argparse.Namespace(name="base"))


def test_text_is_left_out_of_a_given_checkpoint(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = load_base_model(checkpoint)
    fetch_as(checkpoint, tmp_path, monkeypatch, use_text=False)
    base = Path("checkpoints/base")
    model = load_base_model(base)
    assert model.encode_instructions(["push the red cube"]) is None and not (base / "tokenizer.json").exists()
    kept = {name: tensor for name, tensor in whole.state_dict().items() if not name.startswith("text_encoder.")}
    assert kept.keys() == model.state_dict().keys() and len(kept) < len(whole.state_dict())
    assert all(torch.equal(tensor, model.state_dict()[name]) for name, tensor in kept.items())
    assert {"autoencoder.safetensors", "autoencoder.json", "perceptual.safetensors"} <= {path.name for path in base.iterdir()}
    manifest = read_json(base / "manifest.json")
    assert "with_text" in manifest["parents"] and "tokenizer.json" not in manifest["files"]
    # The result is a checkpoint like any other, and stays without text.
    again = tmp_path / "again"
    again.mkdir()
    fetch_as(tmp_path / base, again, monkeypatch, use_text=False)
    with refused("world_model.use_text = True"):
        fetch_as(tmp_path / base, again, monkeypatch)


def test_a_given_checkpoint_without_text_is_taken_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_model(0, use_text=False)
    model.config = dataclasses.replace(model.config, use_text=False)
    save_world_model(model, tmp_path / "silent")
    fetch_as(tmp_path / "silent", tmp_path, monkeypatch, use_text=False, rotation="continuous")
    taken, given = (tmp_path / folder / "world_model.safetensors" for folder in ("checkpoints/base", "silent"))
    assert taken.read_bytes() == given.read_bytes()


# Command lines that name what is not there


def test_a_seed_and_a_shard_that_the_parameters_do_not_name_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with refused("--seed = 77", "evaluation.seeds"):
        rollouts.main(Params(), argparse.Namespace(model="base", seed=[77]))
    for shard in (-1, 8, 9):
        with refused(f"--shard = {shard}", "latents.shards = 8"):
            latents.main(Params(), argparse.Namespace(shard=shard))
    assert not list(tmp_path.iterdir())


def test_figures_and_the_report_want_the_two_models_that_they_compare() -> None:
    alone = Params(evaluation=EvaluationConfig(models=("copy_frame", "base")))
    for stage in (figures, report):
        with refused("evaluation.models = copy_frame, base", "post_trained"):
            stage.main(alone, argparse.Namespace())


# LeRobot's numbers


def test_an_episode_that_cannot_be_used_names_its_parquet(tmp_path: Path) -> None:
    import pyarrow as pa

    path = tmp_path / "episode_000000.parquet"
    for columns, named in (
        ({"other": [1.0]}, "observation.state.cartesian_position"),
        ({"observation.state": [[0.0, float("nan")]]}, "frame 0"),
        ({"observation.state": [["a"]]}, "observation.state"),
    ):
        pq.write_table(pa.table(columns), path)
        with refused("episode 0", path, named, kind=BadEpisode):
            episode_of(0, pq.read_table(path), path, 15.0, {}, {})


@pytest.mark.parametrize("fps", ["fast", -15, [15]])
def test_a_data_set_has_frames_a_second(tmp_path: Path, fps: object) -> None:
    features = {"observation.images.wrist_left": {"dtype": "video"}}
    write_json(tmp_path / "meta/info.json", {"fps": fps, "data_path": "d", "video_path": "v", "features": features})
    with refused("info.json", f"fps = {fps!r}"):
        read_info(tmp_path)


# Kills and disks


KILLED = """
import os, signal, sys
from persistworld.runtime.files import atomic_path
with atomic_path(sys.argv[1]) as part:
    part.mkdir() if sys.argv[2] == "folder" else part.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_what_a_kill_left_goes_with_the_next_write(tmp_path: Path, kind: str) -> None:
    killed = subprocess.run([sys.executable, "-c", KILLED, tmp_path / "video.mp4", kind])
    assert killed.returncode == -signal.SIGKILL
    [left] = tmp_path.iterdir()
    assert left.name.startswith(".video.part-") and left.suffix == ".mp4"
    write_json(tmp_path / "other.json", {})
    assert [path.name for path in tmp_path.iterdir()] == ["other.json"]


def test_parts_of_writers_that_may_be_alive_stay(tmp_path: Path) -> None:
    now, here = time.time(), platform.node()
    mine, elsewhere = tmp_path / f".a.part-{here}-{os.getppid()}.json", tmp_path / ".b.part-far-off-7.json"
    abandoned, folder = tmp_path / ".c.part-far-off-7", tmp_path / ".d.part-far-off-7"
    for path in (mine, elsewhere, abandoned, folder / "inside", tmp_path / ".e.part-of-a-thesis.tex"):
        path.parent.mkdir(exist_ok=True)
        path.write_text("half")
    for path in (mine, abandoned, folder):
        os.utime(path, (now - 2 * ABANDONED,) * 2)  # the folder's file is new, so the folder is
    with atomic_path(tmp_path / "next") as part:
        part.write_text("whole")
    assert {path.name for path in tmp_path.iterdir()} == {mine.name, elsewhere.name, folder.name, ".e.part-of-a-thesis.tex", "next"}


WAITING = """
import sys, time, types
from persistworld import cli
stage = types.ModuleType("persistworld.stages.tables")
def main(params, args):
    from persistworld.runtime.files import atomic_path
    with atomic_path("half.txt") as part:
        part.write_text("half")
        print("ready", flush=True)
        time.sleep(60)
stage.main = main
sys.modules["persistworld.stages.tables"] = stage
sys.exit(cli.main(["tables", "--params", sys.argv[1]]))
"""


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_polite_kill_says_so_and_leaves_nothing(tmp_path: Path, number: int, status: int) -> None:
    params = tmp_path / "params.yaml"
    shutil.copy(Path(__file__).parents[1] / "params.yaml", params)
    # Tests that run in a shell's background inherit an ignored SIGINT: the stage hears it as from a terminal.
    heard = f"import signal; signal.signal({number:d}, signal.default_int_handler if {number:d} == signal.SIGINT else signal.SIG_DFL)\n"
    command = [sys.executable, "-c", heard + WAITING, params.name]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as stage:
        assert stage.stdout.readline() == "ready\n"
        stage.send_signal(number)
        _, said = stage.communicate(timeout=30)
    assert stage.returncode == status
    assert_names(said, "persistworld")
    assert {path.name for path in tmp_path.iterdir()} == {"params.yaml", "runs"}  # runs/ holds the lock


@pytest.mark.parametrize("write", [lambda path, t: save_state(path, 1, "", t), lambda path, t: write_pickle(t, path / "a.pt")])
def test_a_disk_that_takes_no_more_is_the_systems_error(tmp_path: Path, write: Callable[[Path, dict], None]) -> None:
    """A limit on the size of files stands in for a full disk. (Where torch opens the file itself, nothing of either is to be found.)"""
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limit[1]))
    try:
        with pytest.raises((OSError, RuntimeError)) as caught:
            write(tmp_path, {"weight": torch.zeros(10_000)})
        assert system_error(caught.value).errno == errno.EFBIG
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("error", "named"),
    [
        (OSError(30, "Read-only file system", "data/manifest.json"), "data/manifest.json"),
        (PermissionError(13, "Permission denied", "data"), "data"),
        (OSError(28, "No space left on device", "runs/a"), "runs/a"),
        (RuntimeError("Error while serializing: I/O error: Read-only file system (os error 30)"), "defaults"),
    ],
)
def test_what_the_system_refuses_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, error: Exception, named: str
) -> None:
    """A read-only disk cannot be made by whoever runs the tests: its errors are raised where the stage would meet them."""

    def refused(*_: object) -> None:
        raise error

    monkeypatch.setattr("persistworld.tools.defaults.main", refused)
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(json.loads(json.dumps({"base_checkpoint": {"source": "file", "location": "x"}}))))
    assert cli.main(["defaults", "--params", str(tmp_path / "params.yaml")]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"persistworld: error: {named}: ")

"""Real DROID episodes, with every quirk that is known of them, through every stage: preset droid_sample, made smaller still.

The sample's folder is linked, and some of its episodes are made as odd as the data set's oddest. RoboEngine's signatures
stand in for its networks, as in test_masks.
"""

import dataclasses
import json
import re
import shutil
import sys
import textwrap
from pathlib import Path

import pandas as pd
import pytest
import torch
import torch.nn.functional as F
import yaml
from refusals import assert_names, refused
from safetensors import safe_open
from test_masks import ENGINE
from torch import Tensor

from persistworld.cli import main
from persistworld.config.params import load_params
from persistworld.config.world_model import AutoencoderConfig as Sizes
from persistworld.data.formats import open_episodes
from persistworld.data.latents import LatentStore
from persistworld.data.manifest import load_manifest
from persistworld.data.video import read_video, write_video
from persistworld.runtime.files import read_json, write_json
from persistworld.stages.base_training import training_frames
from persistworld.world_model.autoencoder import Autoencoder, save_autoencoder
from persistworld.world_model.poses import CTRL_WORLD_STATISTICS
from persistworld.world_model.views import images_to_float, stack_views

ROOT = Path(__file__).parents[1]
SAMPLE = ROOT.parent / "shared/droid_sample"
pytestmark = pytest.mark.skipif(
    not SAMPLE.is_dir(), reason=f"{SAMPLE} is not there: six DROID episodes in Ctrl-World's processed layout belong beside the clone"
)
KITCHEN, SHORT = 1800, 299  # a string id is numbered after the largest number; five frames
VIEWS = ("exterior_1", "exterior_2", "wrist")
ROLLED_OUT = ("base", "teacher_forced", "own_history", "post_trained")
SMALL = {
    "episodes": {"path": "../quirky", "height": 64, "width": 128, "bad_share": 0.2},
    "latents": {"shards": 2, "posterior": "mean"},
    "base_training": {"autoencoder_steps": 2, "autoencoder_episodes": 1, "steps": 2},
    "rollout": {"chunks": 2},
    "post_training": {"steps": 1, "candidates": 2, "keep": 1, "prefix": [0, 1]},
    "masks": {"source": "roboengine"},
    "evaluation": {"seeds": [0]},
    "paper": {"bootstrap": 20, "report_episodes": 1, "strip_frames": 3},
}  # section -> keys that differ from presets/droid_sample.yaml


def quirky(folder: Path) -> None:
    """The sample with: no joints and no instruction at all (0), a string id (3), a view without video (5), 4 fps (6), a
    clip that is shorter than any rollout (SHORT)."""
    shutil.copytree(SAMPLE / "annotation", folder / "annotation")
    for video in (SAMPLE / "videos").rglob("*.mp4"):
        link = folder / video.relative_to(SAMPLE)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(video)
    for path in folder.rglob("*.json"):
        path.chmod(0o644)
    change(folder, "train/0", lambda raw: [raw.pop(key, None) for key in ("joints", "observation.state.joint_position", "texts")])
    change(folder, "train/3", lambda raw: raw.update(episode_id="kitchen"))
    (folder / "annotation/train/3.json").rename(folder / "annotation/train/kitchen.json")
    (folder / "videos/train/5/2.mp4").unlink()
    slow = folder / "videos/train/6/0.mp4"
    slow.unlink()
    write_video(slow, read_video(SAMPLE / "videos/train/6/0.mp4")[:, ::3, ::2], 4.0)
    shutil.copy(folder / "annotation/val/199.json", folder / f"annotation/val/{SHORT}.json")
    clips = [{"video_path": f"videos/val/{SHORT}/{k}.mp4"} for k in range(3)]
    change(folder, f"val/{SHORT}", lambda raw: raw.update(episode_id=SHORT, videos=clips, video_length=5, states=raw["states"][:5]))
    (folder / f"videos/val/{SHORT}").mkdir()
    for k in range(3):
        write_video(folder / f"videos/val/{SHORT}/{k}.mp4", read_video(SAMPLE / f"videos/val/199/{k}.mp4")[:5, ::3, ::2], 5.0)


def change(folder: Path, name: str, edit) -> None:
    path = folder / f"annotation/{name}.json"
    raw = json.loads(path.read_text())
    edit(raw)
    path.write_text(json.dumps(raw))


def stage(*command: str) -> None:
    assert main([*command, "--threads", "1"]) == 0, command


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """A folder in which every stage has run, in the order of the workflow."""
    folder = tmp_path_factory.mktemp("droid")
    quirky(folder / "quirky")
    engine = folder / "site/robo_engine"
    engine.mkdir(parents=True)
    (engine / "__init__.py").touch()
    (engine / "infer_engine.py").write_text(textwrap.dedent(ENGINE))
    clone = folder / "clone"
    clone.mkdir()
    raw = yaml.safe_load((ROOT / "presets/droid_sample.yaml").read_text())
    for section, keys in SMALL.items():
        raw[section] |= keys
    (clone / "params.yaml").write_text(yaml.safe_dump(raw))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(clone)
        patch.delitem(sys.modules, "robo_engine.infer_engine", raising=False)
        patch.delitem(sys.modules, "robo_engine", raising=False)
        patch.syspath_prepend(str(engine.parent))
        stage("episodes")
        base = raw["base_checkpoint"]["location"]
        stage("base_training", "--output", base)
        shutil.copy(ROOT / "assets/tabletop_base/perceptual.safetensors", base)
        for command in ("base_checkpoint", "latents --shard 0", "latents --shard 1", "manifest", "truth", "masks"):
            stage(*command.split())
        for command in ("post_training", "teacher_forcing", "own_history"):
            stage(command)
        for model in ROLLED_OUT:
            stage("rollouts", "--model", model)
        for model in ("copy_frame", *ROLLED_OUT, "autoencoder"):
            stage("scores", "--model", model)
        (clone / "assets").mkdir()
        shutil.copy(ROOT / "assets/votes.csv", clone / "assets")
        for command in ("tables", "figures", "preference", "report"):
            stage(command)
    for name in ("robo_engine.infer_engine", "robo_engine"):
        sys.modules.pop(name, None)
    return clone


def test_the_data_set_is_recorded_and_not_copied(clone):
    record = read_json(clone / "data/episodes/source.json")
    assert [path.name for path in (clone / "data/episodes").iterdir()] == ["source.json"]
    assert record["path"] == "../quirky" and record["episodes"] == 7 and re.fullmatch("[0-9a-f]{64}", record["index_sha256"])


def test_base_training_leaves_out_what_cannot_be_used(clone, tmp_path, monkeypatch):
    """Episode 5 has a view without a video: one of four is less than episodes.bad_share, of three more."""
    monkeypatch.chdir(clone)
    params, source = load_params("params.yaml"), open_episodes("data/episodes")
    params = dataclasses.replace(params, episodes=dataclasses.replace(params.episodes, bad_share=0.3))
    frames, chosen = training_frames(params, source, [0, 5, 6, KITCHEN], tmp_path)
    listed = read_json(tmp_path / "frames.json")
    assert chosen == [0, 6, KITCHEN] and list(listed["bad"]) == ["5"] and "videos/train/5/2.mp4" in listed["bad"]["5"]
    assert frames.shape == (len(VIEWS) * sum(listed["frames"].values()), 64, 128, 3)
    with refused("episodes.bad_share = 0.3", "1 of 3", "episode 5"):
        training_frames(params, source, [0, 5, 6], tmp_path)


def test_the_manifest_lists_every_quirk(clone):
    manifest = read_json(clone / "data/manifest.json")
    entries = {entry["index"]: entry for entry in manifest["episodes"]}
    assert sorted(entries) == [0, 6, 199, SHORT, 1799, KITCHEN]
    assert list(manifest["bad"]) == ["5"]
    assert_names(manifest["bad"]["5"], "videos/train/5/2.mp4")
    slow, joints = "exterior_1 plays at 4 fps and is taken as 5 Hz", "joints taken from observation.state.joint_position"
    assert set(entries[0]["notes"]) == {"no instruction", "no joints"}
    assert set(entries[6]["notes"]) == {"no instruction", joints, slow}
    assert set(entries[KITCHEN]["notes"]) == {joints, "episode_id is not a number"} and entries[KITCHEN]["split"] == "train"
    assert entries[199]["notes"] == [] and set(entries[1799]["notes"]) == {"no instruction"}
    assert entries[SHORT]["frames"] == 5 and "no joints" in entries[SHORT]["notes"]  # there are more raw joints than frames
    assert manifest["notes"] == {"no instruction": 3, "no joints": 2, joints: 2, slow: 1, "episode_id is not a number": 1}
    assert manifest["counts"] == {"train": 3, "tuning": 0, "validation": 3, "bad": 1}


def test_what_is_too_short_or_has_no_words_is_said_under_the_tables_and_in_the_report(clone):
    metrics = read_json(clone / "results/metrics/masks.json")
    said = {key: value for key, value in metrics.items() if key.startswith("episodes")}
    assert said == {"episodes": 2, "episodes_without_instruction": 1, "episodes_without_noun": 1}
    assert {metrics[f"empty_object_{view}"] for view in VIEWS} == {2 * 9}
    page = (clone / "results/tables/table_2.md").read_text()
    report = (clone / "results/report.html").read_text()
    for part in ("roboengine", "instruction", "noun", "1 of 2", "wrist 18", "1 validation episodes"):
        assert part in page and part in report
    assert f"({SHORT})" in report and "episode 5: video" in report and "4 fps" in report


def test_latents_have_the_size_of_the_frames(clone):
    with safe_open(clone / "data/latents/shard-0.safetensors", "pt") as shard:
        assert shard.get_slice("0").get_shape() == [56, 4, 3 * 2, 4]  # 64 x 128 pixels, 32 a cell
    assert not list((clone / "runs/latents").rglob("*.safetensors"))


def test_every_model_is_scored_on_both_long_episodes(clone):
    for model in ("copy_frame", *ROLLED_OUT, "autoencoder"):
        scores = pd.read_parquet(clone / f"results/scores/{model}.parquet")
        assert set(scores["episode"]) == {199, 1799} and set(scores["view"]) == set(VIEWS) and scores["frame"].max() == 8
        assert "object" not in set(scores["region"]) and {"full", "robot"} <= set(scores["region"])


def test_the_report_shows_everything(clone):
    page = (clone / "results/report.html").read_text()
    assert page.count("data:video/mp4;base64,") == 1 and page.count("data:image/jpeg;base64,") == 1
    assert page.count("data:image/png;base64,") == 6  # five figures and the training
    assert "wrist: 9" in page


def test_a_data_set_that_changed_is_refused_in_a_line(clone, capsys, monkeypatch):
    monkeypatch.chdir(clone)
    annotation = clone.parent / "quirky/annotation/train/0.json"
    before = annotation.read_bytes()
    annotation.write_bytes(before + b" ")
    try:
        assert main(["manifest"]) == 2
    finally:
        annotation.write_bytes(before)
    assert_names(capsys.readouterr().err, "source.json", "--forcerun episodes")


@torch.no_grad()
def fitted_autoencoder(images: Tensor, latents: Tensor) -> Autoencoder:
    """A random one of SVD's latent size, but that its last layer makes about `latents` (N, 4, 24, 40) of `images` (N, 3, 192, 320)."""
    torch.manual_seed(0)
    autoencoder = Autoencoder(Sizes(patch=8, latent_channels=4, channels=(96,), layers=1)).eval()
    last, mixing, entered = autoencoder.vae.encoder.conv_out, autoencoder.vae.quant_conv, []
    with last.register_forward_pre_hook(lambda _, inputs: entered.append(inputs[0])):
        autoencoder.encode(images)
    seen = F.unfold(entered[0], 3, padding=1).transpose(1, 2).flatten(0, 1)  # (N * 24 * 40, 96 * 3 * 3)
    wanted = (latents / autoencoder.sizes.scaling_factor).movedim(1, -1).reshape(len(seen), -1)
    last.weight[:4] = torch.linalg.lstsq(seen, wanted).solution.T.reshape(4, *last.weight.shape[1:])
    mixing.weight.copy_(torch.eye(8).reshape(mixing.weight.shape))
    for layer in (last, mixing):
        layer.bias.zero_()
    return autoencoder


def test_the_latents_that_come_with_the_sample_are_taken(tmp_path, monkeypatch, capsys):
    """From the episodes to the manifest with an autoencoder that makes about the same; SVD's own, which made them, is not at hand."""
    source = open_episodes(SAMPLE)
    recorded = {index: torch.stack([source.latents(index, view) for view in VIEWS], dim=1) for index in (6, 199)}
    first = torch.stack([torch.from_numpy(source.frames(6, view)[0]) for view in VIEWS])
    base = tmp_path / "clone/checkpoints/base"
    base.mkdir(parents=True)
    save_autoencoder(fitted_autoencoder(images_to_float(first), recorded[6][0]), base)
    write_json(base / "config.json", {"pose_statistics": dataclasses.asdict(CTRL_WORLD_STATISTICS)})
    raw = yaml.safe_load((ROOT / "presets/droid_sample.yaml").read_text())
    raw["episodes"] |= {"path": "../recorded", "bad_share": 0.0}
    raw["latents"] |= {"source": "recorded", "shards": 1}
    (tmp_path / "clone/params.yaml").write_text(yaml.safe_dump(raw))
    monkeypatch.chdir(tmp_path / "clone")

    (tmp_path / "recorded").symlink_to(SAMPLE)
    for command in ("episodes", "latents --shard 0"):
        stage(*command.split())
    assert main(["manifest"]) == 2  # the other four have none
    assert_names(capsys.readouterr().err.splitlines()[-1], "4 of 6", "episode 0", "exterior_1")

    (tmp_path / "recorded").unlink()
    for name in ("train/6", "val/199"):
        for kind, suffix in (("annotation", ".json"), ("videos", ""), ("latent_videos", "")):
            link = tmp_path / f"recorded/{kind}/{name}{suffix}"
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(SAMPLE / f"{kind}/{name}{suffix}")
    for command in ("episodes", "latents --shard 0", "manifest"):
        stage(*command.split())
    manifest, store = load_manifest("data/manifest.json"), LatentStore("data/latents")
    assert [(e.index, e.split, e.frames) for e in manifest.episodes] == [(6, "train", 39), (199, "validation", 33)] and not manifest.bad
    for index, latents in recorded.items():
        assert torch.equal(store.latents(index), stack_views(latents)) and store.poses(index).shape == (len(latents), 7)

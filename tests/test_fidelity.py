"""What stands beside Table 1: Frechet distances against closed forms, the pose reader, and the stages at tiny size."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.linalg
import torch
import torchmetrics.image.fid
from made_up import make_clone, stages
from scipy.spatial.transform import Rotation

from persistworld.cli import main
from persistworld.config.data import EpisodesConfig
from persistworld.evaluation.fidelity import by_chunk, following_numbers, frechet_numbers
from persistworld.evaluation.frechet import (
    LARGEST,
    InceptionFeatures,
    TabletopFeatures,
    clip_features,
    distances,
    frechet_distance,
    frechet_scores,
    jackknife,
    load_features,
)
from persistworld.evaluation.pose_reader import PoseNetwork, PoseReader, load_pose_reader, perfect_reading, pose_distances, save_pose_reader
from persistworld.evaluation.segmentation_backbone import SegmentationBackbone
from persistworld.evaluation.statistics import Resampling
from persistworld.evaluation.truth import StoredTruth
from persistworld.runtime.errors import UserError
from persistworld.simulator.environment import open_scene
from persistworld.training.pose_reader import PoseExamples, spread, train_pose_reader
from persistworld.world_model.views import images_to_float

CPU = torch.device("cpu")


def draws(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_frechet_distance_by_the_formula_with_scipys_square_root():
    real, made = draws(40, 6), draws(60, 6, seed=1) @ draws(6, 6, seed=2) + 0.5
    of_real, of_made = np.cov(real.numpy().T), np.cov(made.numpy().T)
    away = real.mean(dim=0) - made.mean(dim=0)
    expected = float(away @ away) + np.trace(of_real + of_made - 2 * scipy.linalg.sqrtm(of_real @ of_made).real)
    assert frechet_distance(real, made) == pytest.approx(expected, rel=1e-8)


def test_frechet_distance_of_shifted_and_stretched_features_in_closed_form():
    real = draws(50, 4)
    assert frechet_distance(real, real) == pytest.approx(0, abs=1e-6)
    assert frechet_distance(real, real + 2.0) == pytest.approx(4 * 2.0**2)
    assert frechet_distance(real, 3 * (real - real.mean(0)) + real.mean(0)) == pytest.approx(4 * float(torch.cov(real.T).trace()))


def test_standard_errors_are_those_of_leaving_groups_out():
    real, made = draws(20, 5, 3), draws(20, 5, 3, seed=1)
    found = distances(real, made)
    assert len(found) == 1 + 16 and found[0] == frechet_distance(real.flatten(0, 1), made.flatten(0, 1))
    kept = [k for k in range(20) if k % 16 != 2]  # without episodes 2 and 18
    assert found[3] == frechet_distance(real[kept].flatten(0, 1), made[kept].flatten(0, 1))
    # Of a mean, the jackknife is the usual standard error.
    values = np.random.default_rng(0).normal(size=8)
    means = [values.mean(), *(np.delete(values, k).mean() for k in range(8))]
    assert jackknife(means) == pytest.approx(values.std(ddof=1) / np.sqrt(8))
    assert len(distances(draws(4, 2, LARGEST + 1), draws(4, 2, LARGEST + 1))) == 1 and np.isnan(jackknife([1.0]))


def test_a_clip_is_a_chunk_and_the_frame_before_it():
    features = draws(2, 9, 3)
    clips = clip_features(features)
    assert clips.shape == (2, 2, 6)
    second = features[1, 4:9]
    assert torch.allclose(clips[1, 1, :3], second.mean(dim=0))
    assert torch.allclose(clips[1, 1, 3:], (second[1:] - second[:-1]).abs().mean(dim=0))


def test_scores_are_means_over_a_groups_views_and_over_seeds():
    truth, seeds = draws(4, 9, 3, 2), [draws(4, 9, 3, 2, seed=1), draws(4, 9, 3, 2, seed=2)]
    found = frechet_scores({"raw": truth}, seeds, ("exterior_1", "exterior_2", "wrist"))
    assert {key[1:] for key in found} == {(kind, group) for kind in ("frames", "clips") for group in ("external", "wrist")}
    each = [frechet_distance(truth[:, :, view].flatten(0, 1), seed[:, :, view].flatten(0, 1)) for view in (0, 1) for seed in seeds]
    external, clips = found["raw", "frames", "external"], found["raw", "clips", "wrist"]
    assert external.values[0] == pytest.approx(np.mean(each)) and (external.samples, external.size) == (36, 2)
    one = clip_features(truth[:, :, 2]).flatten(0, 1), clip_features(seeds[0][:, :, 2]).flatten(0, 1)
    other = clip_features(seeds[1][:, :, 2]).flatten(0, 1)
    assert clips.values[0] == pytest.approx((frechet_distance(*one) + frechet_distance(one[0], other)) / 2)
    assert (clips.samples, clips.size) == (8, 4)
    numbers = frechet_numbers({"base": found, "post_trained": found})
    tree = numbers["raw"]["frames"]["external"]
    assert tree["models"]["post_trained"]["minus_base"] == 0 and tree["models"]["post_trained"]["minus_base_error"] == 0
    assert tree["models"]["base"]["standard_error"] > 0


def test_the_tabletops_features_are_the_last_map_averaged():
    torch.manual_seed(0)
    network = SegmentationBackbone((4, 4, 8, 8))
    frames = torch.randint(0, 256, (3, 16, 24, 3), dtype=torch.uint8)
    features = TabletopFeatures(network, CPU)
    assert features.size == 8 and torch.allclose(features(frames), network(images_to_float(frames))[-1].mean(dim=(2, 3)), atol=1e-6)


def test_inception_without_its_package_is_one_line(monkeypatch):
    monkeypatch.setattr(torchmetrics.image.fid, "_TORCH_FIDELITY_AVAILABLE", False)
    with pytest.raises(UserError, match="pip install torch-fidelity"):
        InceptionFeatures(CPU)
    with pytest.raises(UserError, match="torch-fidelity"):
        load_features("alex", "checkpoints/base", CPU)
    with pytest.raises(UserError, match=r"perceptual\.safetensors"):
        load_features("tabletop", "nowhere", CPU)


def test_distances_of_poses_by_hand():
    poses = np.array([[0.4, 0.1, 0.2, np.pi - 0.01, 0.2, -0.3, 0.25], [0.5, 0.0, 0.1, 0.1, -0.4, 3.0, 1.0]])
    assert np.allclose(pose_distances(perfect_reading(poses), perfect_reading(poses)), 0, atol=1e-4)
    turned = poses.copy()
    turned[:, 3:6] = (Rotation.from_rotvec([0, 0, np.radians(7)]) * Rotation.from_euler("xyz", poses[:, 3:6])).as_euler("xyz")
    turned[:, :3] += [0.03, 0.0, -0.04]
    turned[:, 6] = [0.5, 0.5]
    read, known = perfect_reading(turned), perfect_reading(poses)
    read[:, 3:9] *= 1.7  # a network's columns are not of unit length
    assert np.allclose(pose_distances(read, known), [[5, 7, 0.25], [5, 7, 0.5]], atol=1e-3)
    assert np.allclose(pose_distances(known, read), pose_distances(read, known), atol=1e-6)


def test_chunks_leave_the_given_frame_out():
    distances = np.arange(9.0)[None, :, None].repeat(3, axis=2)
    distances[:, 0] = 100
    assert by_chunk(distances).shape == (1, 2, 3) and by_chunk(distances)[0, :, 0].tolist() == [2.5, 6.5]


def test_an_error_that_the_reader_makes_everywhere_leaves_the_distance_of_two_readings():
    poses = np.random.default_rng(0).uniform(-0.3, 0.3, (9, 7))
    recorded, ours = perfect_reading(poses), perfect_reading(poses)
    ours[:, :3] += [0.0, 0.006, -0.008]  # the model's arm is 1 cm away
    for read in (recorded, ours):
        read[:, :3] += [0.04, 0.0, 0.0]  # and the reader wrong by 4 cm
        read[:, 9] += 0.2
    assert np.allclose(pose_distances(ours, recorded), [[1, 0, 0]] * 9, atol=1e-3)
    assert np.allclose(pose_distances(ours, perfect_reading(poses))[:, 0], np.sqrt(4**2 + 1), atol=1e-3)


def test_numbers_of_action_following_by_hand():
    base = np.zeros((4, 2, 3))
    base[:, :, 0] = [[1, 2], [3, 4], [5, 6], [7, 8]]
    ours = base - [0.5, 0, 0]
    ours[:, 1, 0] -= 1  # the second chunk gains three times as much
    found = following_numbers({"base": base, "ours": ours}, [("ours", "base")], Resampling(200, 0.95, 0))
    assert found["chunks"]["base"]["position_cm"] == [4, 5] and found["overall"]["ours"]["position_cm"]["mean"] == 3.5
    pair, chunks = found["paired"]["ours_vs_base"]["position_cm"], found["paired_chunks"]["ours_vs_base"]["position_cm"]
    assert (pair["difference"], pair["low"], pair["high"], pair["win_rate"]) == (-1, -1, -1, 1)  # equal in all episodes
    assert chunks == [{"mean": -0.5, "low": -0.5, "high": -0.5}, {"mean": -1.5, "low": -1.5, "high": -1.5}]


def toy_examples(count: int, seed: int) -> PoseExamples:
    """A blob that shows the position: across and along in one view, height in the other; its size is the gripper."""
    rng = np.random.default_rng(seed)
    places, grip = rng.uniform(-0.1, 0.1, (count, 3)), rng.integers(0, 2, count)
    rows, columns = np.mgrid[0:16, 0:16] / 7.5 - 1
    views = []
    for across, along in ((0, 1), (0, 2)):
        away = (columns - 8 * places[:, across, None, None]) ** 2 + (rows - 8 * places[:, along, None, None]) ** 2
        views.append(np.exp(-away / (0.04 + 0.12 * grip[:, None, None]))[..., None].repeat(3, axis=-1))
    poses = np.concatenate([places, np.zeros((count, 3)), grip[:, None]], axis=1).astype(np.float32)
    return PoseExamples(torch.from_numpy((255 * np.stack(views, axis=1)).round().astype(np.uint8)), poses)


def test_the_reader_learns_where_the_hand_is(tmp_path):
    examples, others = toy_examples(600, 0), toy_examples(100, 1)
    reader = train_pose_reader(examples, 250, 0, CPU)
    known, guess = perfect_reading(others.poses), perfect_reading(np.tile(examples.poses.mean(axis=0), (100, 1)))
    away = pose_distances(reader(others.frames), known).mean(axis=0)
    assert away[0] < 0.15 * pose_distances(guess, known).mean(axis=0)[0]  # cm: 9.7 for the mean pose
    assert away[2] < 0.2
    save_pose_reader(reader, tmp_path / "reader")
    again = load_pose_reader(tmp_path / "reader")
    assert again.frames == 600 and np.array_equal(again(others.frames), reader(others.frames))
    with pytest.raises(UserError, match="pose reader"):
        again(others.frames[:, :1])
    (tmp_path / "reader/pose_reader.json").write_text("{}")
    with pytest.raises(UserError, match=r"pose_reader\.json"):
        load_pose_reader(tmp_path / "reader")


def test_an_arm_that_is_moved_in_rendered_frames_is_read_as_moved():
    random, (scene, _) = np.random.default_rng(0), open_scene(0, 0, EpisodesConfig(height=16, width=24))

    def draw(count: int) -> list[tuple[np.ndarray, float, float]]:
        return [
            (random.uniform([0.38, -0.18, 0.08], [0.58, 0.18, 0.26]), random.uniform(-0.5, 0.5), float(random.integers(2)))
            for _ in range(count)
        ]

    def show(wanted: list[tuple[np.ndarray, float, float]]) -> PoseExamples:
        frames, poses = [], []
        for place, yaw, gripper in wanted:
            scene.place_arm(place, (np.pi, 0.0, yaw), gripper)
            frames.append(scene.render()[0])
            poses.append(scene.robot_state()[0])
        return PoseExamples(torch.from_numpy(np.stack(frames)), np.array(poses, np.float32))

    try:
        reader, some = train_pose_reader(show(draw(300)), 250, 0, CPU), draw(16)
        still = reader(show(some).frames)
        for axis in range(3):
            shift = 0.03 * np.eye(3)[axis]
            moved = reader(show([(place + shift, yaw, gripper) for place, yaw, gripper in some]).frames)
            read = (moved - still)[:, :3].mean(axis=0)
            assert np.allclose(read, shift, atol=0.01)  # m: 3 cm along the axis, none across
            assert 2 < pose_distances(moved, still)[:, 0].mean() < 4.5  # cm
    finally:
        scene.close()


def test_large_frames_are_averaged_down():
    reader = PoseReader(PoseNetwork(1, 192, 320), 0)
    assert reader.network.shrink == 3 and reader(torch.zeros(2, 1, 192, 320, 3, dtype=torch.uint8)).shape == (2, 10)
    assert spread(61, 128) == list(range(61)) and spread(61, 3) == [0, 30, 60] and spread(9, 0) == [0, 8]


PREPARED = ("episodes", "base_checkpoint", "latents --shard 0", "latents --shard 1", "manifest", "truth", "post_training")
ROLLOUTS = ("rollouts --model base", "rollouts --model post_trained")


@pytest.fixture
def clone(tmp_path, monkeypatch) -> Path:
    """A folder with rollouts of base and post_trained, two seeds each."""
    models = ["copy_frame", "base", "post_trained", "autoencoder"]
    monkeypatch.chdir(make_clone(tmp_path, changes={"evaluation": {"seeds": [0, 3], "models": models}}))
    stages(*PREPARED, *ROLLOUTS)
    return Path()


def test_the_stages_write_what_they_promise(clone, capsys):
    assert main(["fidelity", "--threads", "1"]) == 2
    assert "checkpoints/pose_reader/pose_reader.json" in capsys.readouterr().err
    stages("pose_reader --steps 3", "fidelity")
    numbers = json.loads(Path("results/metrics/fidelity.json").read_text())
    frechet, following = numbers["frechet"], numbers["action_following"]
    assert (numbers["protocol"], numbers["episodes"], numbers["reader_frames"]) == ("decoded", 2, 33)
    assert set(frechet["decoded"]["frames"]["wrist"]["models"]) == {"copy_frame", "base", "post_trained"}
    assert set(frechet["raw"]["clips"]["external"]["models"]) == {"copy_frame", "base", "post_trained", "autoencoder"}
    assert (frechet["raw"]["frames"]["wrist"]["samples"], frechet["raw"]["clips"]["wrist"]["size"]) == (18, 192)
    command, reading = following["command"], following["reading"]
    assert set(command["overall"]) == {"recorded", "decoded", "copy_frame", "base", "post_trained"}
    assert set(reading["overall"]) == {"recorded", "copy_frame", "base", "post_trained"}  # the decoded frames are what is compared with
    assert len(command["chunks"]["base"]["position_cm"]) == 2 and set(command["paired"]) == {"post_trained_vs_base"}
    assert len(reading["paired_chunks"]["post_trained_vs_base"]["gripper"]) == 2
    reader, truth = load_pose_reader("checkpoints/pose_reader"), StoredTruth()
    copied = []
    for episode in json.loads(Path("data/truth/episodes.json").read_text()):
        read = reader(truth.decoded(episode))  # the copied frame is the first of them
        copied.append(100 * np.linalg.norm(read[:1, :3] - read[:, :3], axis=1))
    assert reading["chunks"]["copy_frame"]["position_cm"] == pytest.approx(np.mean(copied, axis=0)[1:].reshape(2, 4).mean(axis=1), rel=1e-3)
    text = Path("results/tables/fidelity.md").read_text()
    assert "perceptual network" in text and "(18 x 96)" in text and "not the FVD" in text
    table = pd.read_csv("results/tables/fidelity.csv")
    table = table[(table["score"] == "action_following") & (table["of"] == "position_cm")]
    for against, tree in following.items():
        rows = table[table["against"] == against]
        own = rows[(rows["model"] == "base") & rows["minus"].isna()]
        assert len(own) == 3 and own["value"].iloc[0] == pytest.approx(own["value"].iloc[1:].mean(), rel=1e-5)
        pair, found = rows[rows["minus"] == "base"], tree["paired"]["post_trained_vs_base"]["position_cm"]
        assert pair["value"].iloc[0] == pytest.approx(found["difference"], rel=1e-4, abs=1e-6) and len(pair) == 3
        assert pair[["low", "high"]].notna().all(axis=None)
    for name in ("tables/fidelity.tex", "figures/action_following.png", "figures/action_following.pdf", "fidelity.html"):
        assert (Path("results") / name).stat().st_size > 100


def test_other_robots_have_no_pose_that_can_be_read(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(make_clone(tmp_path, numbers=5, changes={"world_model": {"rotation": "euler"}}))
    stages("episodes", "base_checkpoint", "latents --shard 0", "latents --shard 1", "manifest")
    assert main(["pose_reader", "--threads", "1"]) == 2
    assert "poses have 5 numbers" in capsys.readouterr().err and not Path("checkpoints/pose_reader").exists()

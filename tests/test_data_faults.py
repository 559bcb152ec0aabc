"""Inputs as people have them: words in other places, cameras by other names, other units, odd files, limits that are met early."""

import argparse
import dataclasses
import json
import math
from pathlib import Path

import lpips
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from dvc.utils.hydra import apply_overrides
from made_lerobot import FPS, KEYS, LENGTHS, TASKS, greys_of, make_v2, make_v3, own_greys
from refusals import refused

from persistworld.config.data import BaseCheckpointConfig, EpisodesConfig
from persistworld.config.evaluation import LPIPS_SMALLEST, EvaluationConfig, MetricsConfig
from persistworld.config.params import Params, load_params
from persistworld.config.world_model import RolloutConfig, WorldModelConfig
from persistworld.data.episodes import BadEpisode
from persistworld.data.formats import open_episodes
from persistworld.data.formats.lerobot_columns import video_keys
from persistworld.data.formats.words import first_words
from persistworld.data.ranges import check_ranges, closed_at_first, pose_ranges
from persistworld.evaluation.perceptual import PackageBackbone, PerceptualDistance, package_heads
from persistworld.preflight.page import preflight
from persistworld.stages.episodes import main as episodes_stage
from persistworld.world_model.poses import CTRL_WORLD_STATISTICS as DROID
from persistworld.world_model.poses import PoseStatistics

ROOT = Path(__file__).parents[1]
PARAMETER_FILES = [ROOT / "params.yaml", *sorted((ROOT / "presets").glob("*.yaml"))]

# Words


def texts(**columns: object) -> dict:
    return {"columns": lambda i, n: {name: pa.array([value] * n, pa.string()) for name, value in columns.items()}}


def without_tasks(row: dict) -> dict:
    return {key: value for key, value in row.items() if key != "tasks"}


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({}, TASKS[1]),
        ({"listed": without_tasks}, TASKS[1]),
        ({"listed": lambda row: row | {"tasks": row["tasks"][0]}}, TASKS[1]),
        ({"listed": lambda row: row | {"tasks": ["", "raise it"]}}, "raise it"),
        ({"listed": lambda row: row | {"tasks": []}}, TASKS[1]),
        (texts(language_instruction="lift"), "lift"),
        (texts(language_instruction="", language_instruction_2=None, language_instruction_3="raise"), "raise"),
        (texts(language_instruction="  ", language_instruction_2=""), TASKS[1]),
        (texts(language_instruction=None), TASKS[1]),
        (texts(language_instruction="lift | raise | pick up"), "lift"),
        (texts(language_instruction=" | raise"), "raise"),
    ],
)  # fmt: skip
def test_the_first_instruction_that_is_not_empty_is_found(tmp_path: Path, how: dict, words: str) -> None:
    assert open_episodes(make_v2(tmp_path / "set", **how)).episode(1).instruction == words


@pytest.mark.parametrize("listed", [None, without_tasks, lambda row: row | {"tasks": [""]}])
def test_v3_looks_the_task_up_in_its_list(tmp_path: Path, listed) -> None:
    root = make_v3(tmp_path / "set", listed=listed)
    assert open_episodes(root).episode(2).instruction == TASKS[2]
    if listed:
        pq.write_table(pa.table({"task": ["a | b", "c", "d"], "task_index": [2, 1, 0]}), root / "meta/tasks.parquet")
        assert open_episodes(root).episode(2).instruction == "a"
        (root / "meta/tasks.parquet").unlink()
        assert open_episodes(root).episode(2).notes == ("no instruction",)


def test_words_are_found_in_lists_and_are_not_made_up() -> None:
    assert [first_words(each) for each in (None, math.nan, 3, [], [None, ""], b"a", [["b"]], "a|b")] == [
        "",
        "",
        "",
        "",
        "",
        "a",
        "b",
        "a|b",
    ]


# Names


@pytest.mark.parametrize("prefix", ["observation.images.{}_left", "observation.image.{}_left", "{}_left"])
@pytest.mark.parametrize("names", [("exterior_1", "exterior_2", "wrist"), ("wrist_image", "exterior_image_2", "exterior_image_1")])
def test_droids_cameras_have_one_name_each(prefix: str, names: tuple[str, ...]) -> None:
    assert list(video_keys({prefix.format(name): {"dtype": "video"} for name in names})) == ["exterior_1", "exterior_2", "wrist"]


@pytest.mark.parametrize(
    "keys",
    [
        ("observation.images.wrist_left", "observation.images.wrist"),
        ("observation.front", "observation.images.front"),
        ("observation.images.exterior_1_left", "observation.image.exterior_image_1_left"),
        ("front", "observation.image.front"),
    ],
)
def test_two_cameras_of_one_name_are_refused(keys: tuple[str, str]) -> None:
    with refused(*keys):
        video_keys({key: {"dtype": "video"} for key in keys})


def test_two_episodes_or_tasks_of_one_number_are_refused(tmp_path: Path) -> None:
    root = make_v2(tmp_path / "set", listed=lambda row: row | {"episode_index": min(row["episode_index"], 1)})
    with refused("episode 1"):
        open_episodes(root)
    with refused("episode 1"):
        open_episodes(make_v3(tmp_path / "v3", listed=lambda row: row | {"episode_index": min(row["episode_index"], 1)}))
    root = make_v2(tmp_path / "tasks")
    with open(root / "meta/tasks.jsonl", "a") as file:
        file.write('{"task_index": 1, "task": "another"}\n')
    with refused("tasks.jsonl", "task_index 1", "'lift the cup'", "'another'"):
        open_episodes(root)


# Odd files


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (
            {"video_path": "videos/{video_key}/episode_{episode_id:06d}.mp4"},
            ("video_path", "{episode_chunk}"),
        ),
        ({"video_path": "videos/episode_{episode_index:06d}.mp4"}, ("video_path", "{video_key}")),
        ({"data_path": "data/{episode_chunk:03d}.parquet"}, ("data_path", "{episode_index}")),
        ({"data_path": "data/{episode_index:zz}.parquet"}, ("data_path",)),
        ({"data_path": "data/{"}, ("data_path",)),
        ({"data_path": 7}, ("data_path = 7",)),
        ({"features": {"observation.state": "float32"}}, ("features.observation.state = 'float32'",)),
        ({"features": ["observation.state"]}, ("features", "list")),
        ({"fps": "15"}, ("fps = '15'",)),
        ({"fps": math.nan}, ("fps = nan",)),
        ({"fps": True}, ("fps = True",)),
        ({"chunks_size": "1000"}, ("chunks_size = '1000'",)),
        ({"codebase_version": None}, ("codebase_version", "None")),
    ],
)
def test_an_odd_info_is_one_line_that_names_the_key(tmp_path: Path, change: dict, named: tuple) -> None:
    with refused("meta/info.json", *named):
        open_episodes(make_v2(tmp_path / "set", info=change))


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12345\n"


@pytest.mark.parametrize(
    ("name", "content", "named"),
    [
        ("meta/info.json", POINTER, ("git-lfs",)),
        ("meta/info.json", b"", ()),
        ("meta/info.json", b"<!DOCTYPE html><p>", ()),
        ("meta/info.json", b"\xff\xfe\x00", ("JSON",)),
        ("meta/info.json", b'{"fps": 15, "fps": 30}', ("fps",)),
        ("meta/info.json", b"[1]", ()),
        ("meta/episodes.jsonl", POINTER, ("git-lfs",)),
        ("meta/episodes.jsonl", b"[1, 2]\n", ()),
        ("meta/episodes.jsonl", b'{"episode_index": 1.5}\n', ("1.5",)),
        ("meta/tasks.jsonl", b'{"task": "lift"}\n', ("task_index",)),
        ("data/chunk-000/episode_000001.parquet", POINTER, ("git-lfs",)),
        ("videos/chunk-000/observation.images.wrist_left/episode_000001.mp4", POINTER, ("git-lfs",)),
        ("videos/chunk-000/observation.images.wrist_left/episode_000001.mp4", b"nonsense" * 40, ()),
    ],
)
def test_a_file_that_is_something_else_is_said_without_wrong_advice(tmp_path: Path, name: str, content: bytes, named: tuple) -> None:
    root = make_v2(tmp_path / "set")
    (root / name).write_bytes(content)
    with refused(Path(name).name, *named) as error:
        source = open_episodes(root)
        source.episode(1), source.frames(1, "wrist")
    assert "run the stage" not in str(error.value)


@pytest.mark.parametrize("value", [math.nan, None, "0", [0, 1]])
def test_a_camera_that_one_episode_lacks_concerns_that_episode(tmp_path: Path, value: object) -> None:
    key = f"videos/{KEYS['wrist']}/file_index"
    source = open_episodes(
        make_v3(
            tmp_path / "set",
            listed=lambda row: row | {key: value if row["episode_index"] == 2 else type(value)() if isinstance(value, str | list) else 0},
        )
    )  # a column has one type
    with refused("episode 2", "videos/observation.images.wrist_left", kind=BadEpisode):
        source.frames(2, "wrist")
    assert len(source.frames(2, "exterior_1")) == LENGTHS[2]


@pytest.mark.parametrize(
    "columns",
    [
        {"observation.state": [["a"] * 7] * 9},
        {"timestamp": ["soon"] * 9},
        {"frame_index": [None] * 9},
        {"observation.state": [None] * 9},
        {"task_index": [{"a": 1}] * 9},
        {"is_episode_successful": [{"a": 1}] * 9},
    ],
)
def test_an_odd_column_is_a_bad_episode_or_does_not_matter(tmp_path: Path, columns: dict) -> None:
    source = open_episodes(make_v2(tmp_path / "set", lambda i, n: columns if i == 1 else {}))
    try:
        source.episode(1)
    except BadEpisode as error:
        assert "\n" not in str(error) and "episode_000001.parquet" in str(error)
    assert source.episode(0).notes == ()


def test_a_home_is_filled_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    with refused(f"{tmp_path}/set", "~"):
        open_episodes("~/set")
    make_v2(tmp_path / "set")
    assert open_episodes("~/set").root == tmp_path / "set"


# Units


def poses(scale=(1,) * 7, shift=(0,) * 7, seed: int = 0) -> np.ndarray:
    """Poses that fill DROID's ranges, in other units."""
    rng = np.random.default_rng(seed)
    inside = np.column_stack([rng.uniform(low, high, 500) for low, high in zip(DROID.low, DROID.high, strict=True)])
    return (inside * scale + shift).astype(np.float32)


CONTINUOUS = PoseStatistics("continuous", (*DROID.low[:3], *(-1.0,) * 6, 0.0), (*DROID.high[:3], *(1.0,) * 6, 0.99))


@pytest.mark.parametrize("statistics", [DROID, CONTINUOUS])
@pytest.mark.parametrize(
    ("scale", "shift", "number", "looks"),
    [
        ((1000,) * 3 + (1,) * 4, (0,) * 7, "number 1 (x)", "mm"),
        ((100,) * 3 + (1,) * 4, (0,) * 7, "number 1 (x)", "cm"),
        ((1,) * 3 + (57.3,) * 3 + (1,), (0,) * 7, "number 4 (roll)", "degrees"),
        ((1,) * 6 + (100,), (0,) * 7, "number 7 (gripper)", "0..100"),
        ((1,) * 6 + (255,), (0,) * 7, "number 7 (gripper)", "0..255"),
        ((1,) * 6 + (-1,), (0,) * 7, "number 7 (gripper)", "inverted"),
    ],
)
def test_other_units_stop_with_number_range_and_guess(statistics: PoseStatistics, scale, shift, number: str, looks: str) -> None:
    with refused("set: ", number, looks):
        check_ranges(pose_ranges(statistics, poses(scale, shift)), "set")


def test_droids_own_units_pass_and_a_gripper_that_is_mostly_open_does_not_hide_its_units() -> None:
    for statistics in (DROID, CONTINUOUS):
        ranges = pose_ranges(statistics, poses())
        check_ranges(ranges, "set")
        assert max(each.outside for each in ranges) < 0.03
    mostly_open = poses()
    mostly_open[:, 6] = np.where(np.arange(500) % 5 == 0, 100, 0)  # a fifth is closed: a fifth outside, far away
    with refused("number 7 (gripper)", "0..100"):
        check_ranges(pose_ranges(DROID, mostly_open), "set")


def test_an_inverted_gripper_shows_in_how_episodes_begin() -> None:
    opened, closed = poses()[:8], poses()[:8]
    opened[:, 6], closed[:, 6] = 0, 1
    assert closed_at_first(list(opened), DROID) is None and "100%" in closed_at_first(list(closed), DROID)
    with refused("4 numbers"):
        pose_ranges(DROID, poses()[:, :4])


# Tools that edit params.yaml


@pytest.mark.parametrize("path", PARAMETER_FILES, ids=lambda path: path.name)
def test_no_value_is_shared_by_an_anchor(path: Path) -> None:
    """An override of a shared mapping is lost, or changes both places."""
    assert not [event for event in yaml.parse(path.read_text()) if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None)]


@pytest.mark.parametrize(
    ("key", "value"),
    [("rollout.sampler.steps", 5), ("post_training.sampler.steps", 5), ("post_training.optimizer.learning_rate", 1e-5), ("seed", 3)],
)
def test_an_override_of_dvc_changes_that_key_alone(tmp_path: Path, key: str, value: float) -> None:
    path = tmp_path / "params.yaml"
    path.write_text((ROOT / "params.yaml").read_text())
    apply_overrides(path, [f"{key}={value}"])
    wanted, found = (dataclasses.asdict(load_params(each)) for each in (ROOT / "params.yaml", path))
    section, *names = key.split(".")
    place = wanted
    for name in [section, *names][:-1]:
        place = place[name]
    place[key.split(".")[-1]] = value
    assert found == wanted


# Early


@pytest.mark.parametrize("name", ["alex", "squeeze", "vgg"])
def test_the_smallest_view_of_each_lpips_network(name: str) -> None:
    network, least, params = (
        lpips.LPIPS(net=name, pnet_rand=True, verbose=False),
        LPIPS_SMALLEST[name],
        load_params(ROOT / "presets/droid.yaml"),
    )
    distance = PerceptualDistance(PackageBackbone(network), package_heads(network), name)
    assert distance(torch.zeros(1, 3, least, 64), torch.ones(1, 3, least, 64)).isfinite().all()
    with pytest.raises(RuntimeError):
        distance(torch.zeros(1, 3, least - 1, 64), torch.ones(1, 3, least - 1, 64))
    with refused(f"metrics.lpips = {name}", f"{least} pixels"):
        dataclasses.replace(params, metrics=MetricsConfig(lpips=name), episodes=EpisodesConfig(width=least - 1)).check()


def test_frames_that_the_unet_cannot_halve_are_refused() -> None:
    WorldModelConfig().check_frames(192, 320, 3)
    with refused("episodes.width = 328", 41, 320):
        WorldModelConfig().check_frames(192, 328, 3)
    with refused("episodes.height = 190", "8 pixels"):
        WorldModelConfig().check_frames(190, 320, 3)


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Params:
    """Parameters for a data set beside the working directory, whose base is not made yet."""
    monkeypatch.chdir(tmp_path)
    episodes = EpisodesConfig(path=str(make_v2(tmp_path / "set")), height=32, width=32, fps=5.0, views=("wrist",), splits=("train",))
    return Params(
        episodes=episodes,
        base_checkpoint=BaseCheckpointConfig(source="file", location="runs/base"),
        metrics=MetricsConfig(lpips="tabletop"),
        evaluation=EvaluationConfig(models=("base", "copy_frame")),
        rollout=RolloutConfig(chunks=1),
    )


def test_the_page_says_what_is_used_left_out_and_converted(small: Params) -> None:
    (Path(small.episodes.path) / f"videos/chunk-000/{KEYS['wrist']}/episode_000001.mp4").write_bytes(POINTER)
    page = preflight(small, 2)
    for part in (
        "3 train", "exterior_1", "16 x 24", "32 x 32", "5 Hz", "2 can be used", "episode 1", "git-lfs", "disk", "reading",
    ):  # fmt: skip
        assert part in page
    assert len(page.splitlines()) < 40


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"views": ("wrist", "exterior_3")}, ("episodes.views = exterior_3", "'exterior_1'")),
        ({"fps": 4.0}, ("15 fps", "4 fps")), ({"count": 0}, ("3 episodes", "episodes.count")),
    ],
)  # fmt: skip
def test_what_the_data_set_lacks_stops_the_first_stage(small: Params, change: dict, named: tuple) -> None:
    params = dataclasses.replace(small, episodes=dataclasses.replace(small.episodes, **change))
    with refused(*named):
        episodes_stage(params, argparse.Namespace(threads=1))
    assert not Path("data/episodes").exists()


def test_a_disk_that_does_not_suffice_and_folders_that_cannot_be_written(small: Params, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("persistworld.preflight.page.free_bytes", lambda path: 10)
    with refused("10 bytes"):
        episodes_stage(small, argparse.Namespace(threads=1))
    monkeypatch.undo()
    monkeypatch.chdir(Path(small.episodes.path).parent)
    Path("home").write_text("a file where a folder should be")
    for variable in ("TORCH_HOME", "HF_HOME"):
        monkeypatch.setenv(variable, str(Path("home").absolute()))
    large = dataclasses.replace(small, metrics=MetricsConfig(lpips="alex"))
    with refused("metrics.lpips = alex", Path("home").absolute(), "TORCH_HOME"):
        preflight(large, 1)
    hub = dataclasses.replace(small, base_checkpoint=BaseCheckpointConfig())
    with refused("HF_HOME"):
        preflight(hub, 1)
    Path("data").write_text("")
    with refused(Path("data").absolute()):
        preflight(small, 1)


def test_other_units_stop_the_first_stage(small: Params) -> None:
    base = Path("runs/base")
    base.mkdir(parents=True)
    statistics = {"rotation": "euler", "low": [0.0] * 7, "high": [1.0] * 7}
    config = {"world_model": dataclasses.asdict(WorldModelConfig()), "pose_statistics": statistics, "views": ["wrist"]}
    config["world_model"]["unet"] |= {"channels": [32, 32], "heads": [1, 1]}
    (base / "config.json").write_text(json.dumps(config))
    with refused("number 1 (x)"):
        episodes_stage(small, argparse.Namespace(threads=1))
    statistics["high"][0] = 3.0
    (base / "config.json").write_text(json.dumps(config))
    episodes_stage(small, argparse.Namespace(threads=1))
    assert open_episodes("data/episodes").indices() == [0, 1, 2]


# nvidia/Cosmos3-DROID and idle time

RECORDING = "AUTOLab/success/2023-07-07/Fri_Jul__7_09:42:2{}_2023"
CAMERAS = {"wrist": "observation.image.wrist_image_left", "exterior_1": "observation.image.exterior_image_1_left"}


@pytest.fixture
def cosmos(tmp_path: Path) -> Path:
    def columns(rows: list) -> dict:
        pose = {"observation.state.cartesian_position": [[i + f / 100] * 6 for i, f in rows]}
        pose |= {"observation.state.joint_positions": [[float(f)] * 7 for _, f in rows]}
        pose |= {"observation.state.gripper_position": [0.5 for _ in rows]}
        return pose | {"action.gripper_position": [0.5 for _ in rows], "action.joint_position": [[0.0] * 7 for _ in rows]}

    def listed(row: dict) -> dict:
        return row | {"episode_id": RECORDING.format(row["episode_index"]), "tasks": ["lift it | raise it | pick it up"]}

    return make_v3(tmp_path / "success", columns, listed, clip={"codec": "libsvtav1", "size": (64, 96)}, keys=CAMERAS)


def test_droids_newest_release_is_a_data_set_of_its_own(cosmos: Path) -> None:
    source = open_episodes(cosmos)
    assert source.views == ("exterior_1", "wrist")
    for index in range(3):
        episode = source.episode(index)
        assert episode.instruction == "lift it" and episode.pose.shape == episode.joints.shape == (LENGTHS[index], 7)
        assert np.abs(np.subtract(greys_of(source, index), own_greys(index))).max() < 4


def test_of_an_episode_the_longest_stretch_without_idle_time_is_kept(cosmos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def key(index: int) -> str:
        folder = f"gs://xembodiment_data/r2d2/r2d2-data-full/{RECORDING.format(index)}"
        return f"{folder}/recordings/MP4--{folder}/trajectory.h5"

    path = tmp_path / "keep_ranges.json"
    path.write_text(json.dumps({key(0): [[0, 2], [3, 8]], key(2): [[1, 4], [6, 9]], key(7): [[0, 5]], key(1): []}))
    source, whole = open_episodes(cosmos, path), open_episodes(cosmos)
    assert source.indices() == [0, 2]
    for index, (first, end) in {0: (3, 8), 2: (1, 4)}.items():
        np.testing.assert_array_equal(source.episode(index).pose, whole.episode(index).pose[first:end])
        assert len(source.episode(index).joints) == end - first and any("idle" in note for note in source.episode(index).notes)
        for stride in (1, 2):
            found = np.concatenate(list(source.frame_batches(index, "wrist", stride, 2)))
            np.testing.assert_array_equal(found, whole.frames(index, "wrist")[first:end:stride])
    path.write_text(json.dumps({key(0): [[0, 30]]}))
    with refused("episode 0", 30, 8, kind=BadEpisode):
        open_episodes(cosmos, path).episode(0)
    path.write_text(json.dumps({key(9): [[0, 30]]}))
    with refused(f"episodes.keep_ranges = {path}", 3):
        open_episodes(cosmos, path)
    path.write_text("[]")
    with refused(path):
        open_episodes(cosmos, path)
    # The record of a data set remembers the list, and that it has not changed.
    monkeypatch.chdir(tmp_path)
    path.write_text(json.dumps({key(0): [[3, 8]]}))
    where = {"path": str(cosmos), "keep_ranges": str(path), "views": ("wrist",), "splits": ("train",)}
    episodes = EpisodesConfig(height=32, width=32, fps=float(FPS), **where)
    params = Params(
        episodes=episodes, base_checkpoint=BaseCheckpointConfig(source="file", location="base"), metrics=MetricsConfig(lpips="tabletop")
    )
    episodes_stage(params, argparse.Namespace(threads=1))
    assert len(open_episodes("data/episodes").episode(0).pose) == 5
    path.write_text(json.dumps({key(0): [[3, 7]]}))
    with refused("episodes.keep_ranges"):
        open_episodes("data/episodes")

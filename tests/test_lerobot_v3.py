"""LeRobot v3.0: many episodes to a file, DROID's columns or another robot's."""

import json
from fractions import Fraction

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from refusals import refused

from persistworld.data.episodes import BadEpisode
from persistworld.data.formats import open_episodes
from persistworld.data.formats.lerobot_v3 import LeRobotV3Episodes
from persistworld.data.video import Span, video_batches

FPS = 15.0
LENGTHS = {0: 5, 1: 4, 2: 6}  # 0 and 1 share files, 2 has its own
FILES = {0: 0, 1: 0, 2: 1}
KEYS = ("observation.images.wrist_left", "observation.images.front")
TASKS = ("push the box", "", "lift")


def write_clip(path, greys, keyframes=3):
    """A video of one grey a frame, with a key frame at every third."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(int(FPS)), options={"crf": "5", "g": str(keyframes)})
        stream.width, stream.height, stream.pix_fmt = 24, 16, "yuv420p"
        for grey in greys:
            frame = np.full((16, 24, 3), grey, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))


def grey_of(index, frame):
    return 20 + 40 * index + 5 * frame


@pytest.fixture
def root(tmp_path):
    """Three episodes of a robot whose state has four numbers, in LeRobot's names."""
    features = {key: {"dtype": "video", "shape": [16, 24, 3]} for key in KEYS}
    features |= {"observation.state": {"dtype": "float32", "shape": [4]}, "action": {"dtype": "float32", "shape": [5]}}
    info = {
        "codebase_version": "v3.0", "fps": 15, "features": features,
        "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
        "video_path": "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4",
    }  # fmt: skip
    (tmp_path / "meta/episodes/chunk-000").mkdir(parents=True)
    (tmp_path / "data/chunk-000").mkdir(parents=True)
    (tmp_path / "meta/info.json").write_text(json.dumps(info))
    listed, offset = [], 0
    for file in (0, 1):
        inside = [i for i in LENGTHS if FILES[i] == file]
        rows = [(i, f) for i in inside for f in range(LENGTHS[i])]
        columns = {
            "observation.state": [[i + f / 10, 0.0, 0.0, 1.0] for i, f in rows],
            "action": [[float(f)] * 5 for _, f in rows],
            "episode_index": [i for i, _ in rows], "frame_index": [f for _, f in rows],
        }  # fmt: skip
        pq.write_table(pa.table(columns), tmp_path / f"data/chunk-000/file-{file:03d}.parquet")
        for key in KEYS:
            write_clip(tmp_path / f"videos/{key}/chunk-000/file-{file:03d}.mp4", [grey_of(i, f) for i, f in rows])
        start = 0.0
        for i in inside:
            row = {"episode_index": i, "tasks": [TASKS[i]], "length": LENGTHS[i], "stats/action/mean": [0.0] * 5}
            row |= {"data/chunk_index": 0, "data/file_index": file}
            row |= {"dataset_from_index": offset, "dataset_to_index": offset + LENGTHS[i]}
            for key in KEYS:
                row |= {f"videos/{key}/chunk_index": 0, f"videos/{key}/file_index": file}
                row |= {f"videos/{key}/from_timestamp": start, f"videos/{key}/to_timestamp": start + LENGTHS[i] / FPS}
            start, offset = start + LENGTHS[i] / FPS, offset + LENGTHS[i]
            listed.append(row)
    pq.write_table(pa.Table.from_pylist(listed), tmp_path / "meta/episodes/chunk-000/file-000.parquet")
    return tmp_path


def relist(root, change):
    path = root / "meta/episodes/chunk-000/file-000.parquet"
    pq.write_table(pa.Table.from_pylist([row | change for row in pq.read_table(path).to_pylist()]), path)


def test_rows_and_frames_of_each_episode(root):
    source = open_episodes(root)
    assert isinstance(source, LeRobotV3Episodes) and source.fps == FPS and source.views == ("wrist", "front")
    assert source.indices() == [0, 1, 2] and source.split(1) is None and source.masks(0) is None
    for index, length in LENGTHS.items():
        episode = source.episode(index)
        np.testing.assert_allclose(episode.pose[:, 0], index + np.arange(length) / 10, rtol=1e-6)
        assert episode.pose.shape == (length, 4) and episode.action.shape == (length, 5)
        assert episode.instruction == TASKS[index] and episode.joints is None and episode.success is None
        assert episode.notes == (() if TASKS[index] else ("no instruction",))
        for view in source.views:
            frames = source.frames(index, view)
            assert frames.shape == (length, 16, 24, 3) and frames.dtype == np.uint8
            greys = [grey_of(index, f) for f in range(length)]
            assert np.abs(frames.mean((1, 2, 3)) - greys).max() < 2


def test_a_span_starts_between_key_frames_and_ends_with_the_video(root):
    path = root / f"videos/{KEYS[0]}/chunk-000/file-000.mp4"
    greys = [grey_of(i, f) for i in (0, 1) for f in range(LENGTHS[i])]
    for first in range(len(greys)):
        found = np.concatenate(list(video_batches(path, 1, 2, Span(first, 3))))
        assert np.abs(found.mean((1, 2, 3)) - greys[first : first + 3]).max() < 2
        assert len(found) == min(3, len(greys) - first)


def test_droid_columns_make_the_pose_of_seven(root):
    path = root / "data/chunk-000/file-001.parquet"
    table = pq.read_table(path).drop_columns(["observation.state", "action"])
    for prefix, value in (("observation.state", 1.0), ("action", 2.0)):
        table = table.append_column(f"{prefix}.cartesian_position", pa.array([[value] * 6] * 6))
        table = table.append_column(f"{prefix}.gripper_position", pa.array([[value / 2]] * 6))
    table = table.append_column("language_instruction", pa.array(["from the rows"] * 6))
    pq.write_table(table, path)
    episode = open_episodes(root).episode(2)
    np.testing.assert_array_equal(episode.pose, [[1] * 6 + [0.5]] * 6)
    np.testing.assert_array_equal(episode.action, [[2] * 6 + [1.0]] * 6)
    assert episode.instruction == "from the rows"


def test_damage_is_named(root):
    (root / f"videos/{KEYS[1]}/chunk-000/file-001.mp4").unlink()
    broken = root / f"videos/{KEYS[0]}/chunk-000/file-001.mp4"
    broken.write_bytes(broken.read_bytes()[:200])
    (root / "data/chunk-000/file-001.parquet").unlink()
    source = open_episodes(root)
    for what, named in (
        (lambda: source.frames(2, "front"), (f"{KEYS[1]}/chunk-000/file-001.mp4",)),
        (lambda: source.frames(2, "wrist"), (broken,)),
        (lambda: source.episode(2), ("data/chunk-000/file-001.parquet",)),
        (lambda: source.episode(9), ("meta/episodes",)),
    ):
        with refused(*named, kind=BadEpisode):
            what()
    assert len(source.frames(0, "front")) == 5  # the others are not touched


def test_lengths_that_disagree(root):
    relist(root, {"length": 8})
    source = open_episodes(root)
    with refused("episode 0", 5, "meta/episodes", 8, kind=BadEpisode):
        source.episode(0)
    with refused("episode 2", 6, "meta/episodes", 8, kind=BadEpisode):
        source.frames(2, "front")


def test_view_without_a_file(root):
    relist(root, {f"videos/{KEYS[0]}/chunk_index": None})
    with refused(f"videos/{KEYS[0]}", kind=BadEpisode):
        open_episodes(root).frames(0, "wrist")


def test_folders_that_are_not_whole(root):
    (root / "meta/episodes/chunk-000/file-000.parquet").unlink()
    with refused("meta/episodes"):
        open_episodes(root)
    info = json.loads((root / "meta/info.json").read_text())
    (root / "meta/info.json").write_text(json.dumps(info | {"features": {"action": {"dtype": "float32"}}}))
    with refused("info.json"):
        open_episodes(root)
    (root / "meta/info.json").write_text(json.dumps(info | {"codebase_version": "v4.0"}))
    with refused("codebase_version", "v4.0"):
        open_episodes(root)

"""The layout on disk: written, read back, taken up again, and every damage named in a line."""

import argparse
import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from refusals import refused

from persistworld.config.data import BaseCheckpointConfig, EpisodesConfig, OutcomesConfig
from persistworld.config.params import Params
from persistworld.data.episodes import VIEWS, BadEpisode
from persistworld.data.formats import open_episodes
from persistworld.data.formats.lerobot_writer import episode_statistics, write_episode, write_meta
from persistworld.simulator.episode import simulate_episode
from persistworld.simulator.generation import generate, write_simulated
from persistworld.simulator.labels import STAGES
from persistworld.stages.episodes import UNFINISHED
from persistworld.stages.episodes import main as episodes_stage

BASE_CHECKPOINT = BaseCheckpointConfig(source="file", location="base")  # of sizes that fit any frames: it is not there
SIZE = {"frames": 6, "height": 24, "width": 40, "fps": 5.0}
INDICES = (2, 1005)  # sparse, in two chunks
PARQUET = "data/chunk-000/episode_000002.parquet"
VIDEO = "videos/chunk-000/observation.images.wrist_left/episode_000002.mp4"


@pytest.fixture(scope="module")
def simulated():
    return {index: simulate_episode(index, 0, **SIZE) for index in INDICES}


@pytest.fixture(scope="module")
def written(simulated, tmp_path_factory):
    root = tmp_path_factory.mktemp("episodes")
    for one in simulated.values():
        write_simulated(root, one)
    write_meta(root, [episode_statistics(root, index) for index in INDICES], 5.0)
    return root


@pytest.fixture
def copy(written, tmp_path):
    return shutil.copytree(written, tmp_path / "copy")


def _contents(root):
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def _lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_files_and_fields_are_lerobots(written):
    info = json.loads((written / "meta/info.json").read_text())
    assert (info["codebase_version"], info["fps"], info["chunks_size"]) == ("v2.1", 5.0, 1000)
    assert (info["total_episodes"], info["total_frames"], info["total_videos"], info["total_chunks"]) == (2, 12, 6, 2)
    for index in INDICES:
        place = {"episode_chunk": index // 1000, "episode_index": index}
        path = written / info["data_path"].format(**place)
        keys = [name for name, feature in info["features"].items() if feature["dtype"] == "video"]
        videos = [written / info["video_path"].format(video_key=key, **place) for key in keys]
        assert len(videos) == 3 and all(video.is_file() for video in videos)
        table = pq.read_table(path)
        assert set(table.column_names) == set(info["features"]) - set(keys)
        for name in table.column_names:
            kind, wanted = table.schema.field(name).type, info["features"][name]
            size = kind.list_size if pa.types.is_fixed_size_list(kind) else 1
            kind = kind.value_type if pa.types.is_fixed_size_list(kind) else kind
            names = {"float": "float32", "int64": "int64", "bool": "bool", "string": "string"}
            assert (names[str(kind)], [size]) == (wanted["dtype"], wanted["shape"])
    episodes = _lines(written / "meta/episodes.jsonl")
    assert [(e["episode_index"], e["length"]) for e in episodes] == [(2, 6), (1005, 6)]
    tasks = {t["task_index"]: t["task"] for t in _lines(written / "meta/tasks.jsonl")}
    table = pq.read_table(written / PARQUET).to_pylist()
    assert tasks[table[0]["task_index"]] == table[0]["language_instruction"] == episodes[0]["tasks"][0]
    stats = _lines(written / "meta/episodes_stats.jsonl")[0]["stats"]
    poses = np.array([row["observation.state.cartesian_position"] for row in table])
    np.testing.assert_allclose(stats["observation.state.cartesian_position"]["mean"], poses.mean(0), rtol=1e-6)
    assert np.shape(stats["observation.images.wrist_left"]["std"]) == (3, 1, 1)


def test_round_trip(written, simulated):
    source = open_episodes(written)
    assert source.indices() == list(INDICES) and source.views == VIEWS and source.fps == 5.0
    for index, one in simulated.items():
        episode = source.episode(index)
        for name in ("pose", "joints", "action"):
            np.testing.assert_array_equal(getattr(episode, name), getattr(one.episode, name))
        assert (episode.instruction, episode.success) == (one.episode.instruction, one.success)
        np.testing.assert_array_equal(source.masks(index), one.masks)
        for view in VIEWS:
            error = source.frames(index, view).astype(float) - one.frames[view]
            assert 10 * np.log10(255**2 / (error**2).mean()) > 38  # dB: the codec's loss


def test_labels_are_columns(written, simulated):
    table, one = pq.read_table(written / PARQUET), simulated[2]
    columns = [name for name in table.column_names if name.startswith("stage.")]
    assert columns == [f"stage.{name}" for name in STAGES]
    np.testing.assert_array_equal(np.stack([table[name].to_numpy() for name in columns], axis=1), one.stages)
    assert set(table["outcome"].to_pylist()) == {one.task.outcome}
    assert [e["outcome"] for e in _lines(written / "meta/episodes.jsonl")] == [each.task.outcome for each in simulated.values()]


def test_without_labels_there_are_no_columns_for_them(simulated, tmp_path):
    one = simulated[2]
    write_episode(tmp_path, one.episode, one.frames)
    write_meta(tmp_path, [episode_statistics(tmp_path, 2)], 5.0)
    names = json.loads((tmp_path / "meta/info.json").read_text())["features"]
    assert not [name for name in names if name.startswith(("stage", "outcome"))]
    np.testing.assert_array_equal(open_episodes(tmp_path).episode(2).pose, one.episode.pose)


def test_without_masks_there_are_none(copy):
    shutil.rmtree(copy / "masks")
    assert open_episodes(copy).masks(2) is None


def test_generate_takes_up_where_it_stopped_to_the_same_bytes(tmp_path, simulated):
    how = {"seed": 0, **SIZE, "workers": 2}
    generate(tmp_path / "whole", INDICES, **how)
    before = _contents(tmp_path / "whole")
    kept = tmp_path / "whole" / PARQUET
    stamp = kept.stat().st_mtime_ns
    shutil.rmtree(tmp_path / "whole/meta")  # as a run leaves it that was killed before its end
    (tmp_path / "whole/data/chunk-001/episode_001005.parquet").unlink()
    generate(tmp_path / "whole", INDICES, **how)
    assert _contents(tmp_path / "whole") == before
    assert kept.stat().st_mtime_ns == stamp
    np.testing.assert_array_equal(open_episodes(tmp_path / "whole").episode(2).pose, simulated[2].episode.pose)


def test_generate_makes_episodes_of_other_parameters_anew(tmp_path):
    how = {"seed": 0, **SIZE, "workers": 1}
    generate(tmp_path / "e", [2], **how)
    first = open_episodes(tmp_path / "e").episode(2).pose
    generate(tmp_path / "e", [2], **how | {"seed": 1})
    assert not np.array_equal(open_episodes(tmp_path / "e").episode(2).pose, first)
    generate(tmp_path / "e", [2], **how, outcomes=OutcomesConfig(shove=1.0))
    assert _lines(tmp_path / "e/meta/episodes.jsonl")[0]["outcome"] == "shove"


def test_generate_removes_episodes_that_are_not_wanted_any_more(tmp_path):
    how = {"seed": 0, **SIZE, "workers": 1}
    generate(tmp_path / "fewer", [0, 1], **how)
    generate(tmp_path / "fewer", [1], **how)
    generate(tmp_path / "whole", [1], **how)
    assert _contents(tmp_path / "fewer") == _contents(tmp_path / "whole")


def test_what_a_killed_stage_simulated_is_taken_up_though_its_output_is_gone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # Snakemake has removed data/episodes
    episodes = EpisodesConfig(source="simulate", path="data/episodes", count=2, splits=("train",), **SIZE)
    generate(UNFINISHED, [0], seed=0, workers=1, **SIZE)
    stamp = (UNFINISHED / "data/chunk-000/episode_000000.parquet").stat().st_mtime_ns
    episodes_stage(Params(episodes=episodes, base_checkpoint=BASE_CHECKPOINT), argparse.Namespace(threads=1))
    assert open_episodes("data/episodes").indices() == [0, 1] and not UNFINISHED.exists()
    first = Path("data/episodes/data/chunk-000/episode_000000.parquet")
    assert first.stat().st_mtime_ns == stamp
    Path("runs").rmdir()
    # Called again, it keeps what is there.
    episodes_stage(Params(episodes=episodes, base_checkpoint=BASE_CHECKPOINT), argparse.Namespace(threads=1))
    assert first.stat().st_mtime_ns == stamp


def test_generate_leaves_foreign_episodes_alone(copy):
    with refused(copy):
        generate(copy, [2], seed=0, workers=1, **SIZE)
    assert (copy / PARQUET).is_file()


def _without(name):
    return lambda table: table.drop_columns([name])


def _replace(name, change):
    def edit(table):
        values = np.array(table[name].to_pylist(), dtype=np.float32)
        return table.set_column(table.column_names.index(name), name, pa.array(change(values).tolist()))

    return edit


def _nan(values):
    values[3, 1] = np.nan
    return values


@pytest.mark.parametrize(
    ("edit", "named"),
    [
        (_without("observation.state.cartesian_position"), ("observation.state.cartesian_position",)),
        (_replace("observation.state.cartesian_position", _nan), ("frame 3",)),
        (_replace("observation.state.cartesian_position", lambda v: v[:, :3]), ("observation.state.cartesian_position", "6 numbers")),
        (_replace("is_episode_successful", lambda v: v + 0.7), ("success",)),
        (lambda table: table.slice(0, 4), (4, "meta/episodes.jsonl", 6)),
    ],
)
def test_bad_parquet(copy, edit, named):
    pq.write_table(edit(pq.read_table(copy / PARQUET)), copy / PARQUET)
    with refused(*named, kind=BadEpisode) as caught:
        open_episodes(copy).episode(2)
    assert caught.value.index == 2
    open_episodes(copy).episode(1005)  # the others are not touched


def test_columns_that_need_not_be_there(copy):
    names = ("observation.state.joint_position", "action.cartesian_position", "is_episode_successful")
    pq.write_table(pq.read_table(copy / PARQUET).drop_columns(list(names)), copy / PARQUET)
    episode = open_episodes(copy).episode(2)
    assert episode.joints is None and episode.action is None and episode.success is None


@pytest.mark.parametrize(
    ("recorded", "success"), [(0, False), ("False", False), ("0", False), (1, True), ("true", True), ([False], False), (None, None)]
)
def test_a_success_may_be_a_number_text_or_a_list_of_one(copy, recorded, success):
    table = pq.read_table(copy / PARQUET)
    place = table.column_names.index("is_episode_successful")
    pq.write_table(table.set_column(place, "is_episode_successful", pa.array([recorded] * len(table))), copy / PARQUET)
    assert open_episodes(copy).episode(2).success is success


def test_gripper_as_a_list_of_one(copy):
    want = open_episodes(copy).episode(2).pose
    table = _replace("observation.state.gripper_position", lambda v: v[:, None])(pq.read_table(copy / PARQUET))
    pq.write_table(table, copy / PARQUET)
    np.testing.assert_array_equal(open_episodes(copy).episode(2).pose, want)


@pytest.mark.parametrize("size", [500, None])
def test_episodes_to_a_folder_are_as_many_as_info_says(copy, size):
    """1,000 where it does not say."""
    info = json.loads((copy / "meta/info.json").read_text())
    info = info | {"chunks_size": size} if size else {k: v for k, v in info.items() if k != "chunks_size"}
    (copy / "meta/info.json").write_text(json.dumps(info))
    if size:
        for folder in ("data", "videos", "masks"):
            (copy / folder / "chunk-001").rename(copy / folder / "chunk-002")
    source = open_episodes(copy)
    assert [source.episode(index).index for index in INDICES] == list(INDICES)
    assert len(source.frames(1005, "wrist")) == 6 and len(source.masks(1005)) == 6
    (copy / "meta/info.json").write_text(json.dumps(info | {"chunks_size": 0}))
    with refused("info.json", "chunks_size = 0"):
        open_episodes(copy)


@pytest.mark.parametrize("name", [PARQUET, VIDEO, "masks/chunk-000/episode_000002.npz"])
@pytest.mark.parametrize("share", [0.0, 0.5, 0.97])
def test_truncated_files(copy, name, share):
    content = (copy / name).read_bytes()
    (copy / name).write_bytes(content[: int(share * len(content))])
    source = open_episodes(copy)
    with refused("episode 2", kind=BadEpisode):
        source.episode(2), source.frames(2, "wrist"), source.masks(2)


def test_missing_files(copy):
    (copy / PARQUET).unlink()
    (copy / VIDEO).unlink()
    source = open_episodes(copy)
    with refused("episode 2", PARQUET, kind=BadEpisode):
        source.episode(2)
    with refused("episode 2", VIDEO, kind=BadEpisode):
        source.frames(2, "wrist")
    with refused("episode 3", "meta/episodes.jsonl", kind=BadEpisode):
        source.episode(3)
    assert len(source.frames(2, "exterior_1")) == 6


def test_a_list_that_says_another_length(copy):
    rows = _lines(copy / "meta/episodes.jsonl")
    rows[0]["length"] = 8
    (copy / "meta/episodes.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with refused("episode 2", 6, "meta/episodes.jsonl", 8, kind=BadEpisode):
        open_episodes(copy).frames(2, "wrist")


def test_folders_that_are_no_data_set(copy, tmp_path):
    with refused(tmp_path):
        open_episodes(tmp_path)
    (copy / "meta/episodes.jsonl").write_text("nonsense\n")
    with refused("episodes.jsonl"):
        open_episodes(copy)
    (copy / "meta/info.json").write_text('{"codebase_version": "v3.0"}')
    with refused("info.json", "v3.0"):
        open_episodes(copy)

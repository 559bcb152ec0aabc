"""Picture k belongs to row k: clocks that disagree, rows out of order, a frame more or fewer. No episode ever gets another's frames."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from made_lerobot import FPS, KEYS, LENGTHS, grey, greys_of, make_v2, make_v3, own_greys, write_clip
from refusals import assert_names, refused

from persistworld.data.episodes import BadEpisode
from persistworld.data.formats import open_episodes
from persistworld.data.formats.clocks import LACKING, SURPLUS, check_timestamps, read_clock

ALL = [grey(i, f) for i, n in enumerate(LENGTHS) for f in range(n)]
KEY = f"videos/{KEYS['wrist']}"


def assert_own(source, index: int, length: int | None = None) -> None:
    found, wanted = greys_of(source, index), own_greys(index, length)
    assert len(found) == len(wanted) and np.abs(np.subtract(found, wanted)).max() < 2.5


# Many episodes in a file


@pytest.mark.parametrize("fps", [30, 5])
def test_frames_are_counted_where_the_video_plays_at_another_rate(tmp_path: Path, fps: int) -> None:
    source = open_episodes(make_v3(tmp_path / "set", clip={"fps": fps}))
    for index in range(3):
        assert_own(source, index)
        [note] = [each for each in source.episode(index).notes if each.startswith("wrist ")]
        assert_names(note, f"{fps} fps", "15 Hz")


def test_frames_are_counted_where_the_videos_clock_jumps(tmp_path: Path) -> None:
    times = [n / FPS + 0.5 * (n >= 4) for n in range(len(ALL))]
    source = open_episodes(make_v3(tmp_path / "set", clip={"times": times}))
    for index in range(3):
        assert_own(source, index)
    assert any("clock" in note for note in source.episode(0).notes) and any("clock" in note for note in source.episode(2).notes)


def test_frames_are_counted_where_the_lists_times_are_off(tmp_path: Path) -> None:
    source = open_episodes(
        make_v3(tmp_path / "set", listed=lambda row: row | {f"{KEY}/from_timestamp": row[f"{KEY}/from_timestamp"] + 0.2})
    )
    for index in range(3):
        assert_own(source, index)
        assert any("clock" in note for note in source.episode(index).notes)


def test_what_follows_lost_frames_is_left_out(tmp_path: Path) -> None:
    """Frames 9 and 10 of the file, of episode 1, are gone, and its clock shows it: 0 is whole, nobody knows where 2 begins."""
    kept = [n for n in range(len(ALL)) if n not in (9, 10)]
    source = open_episodes(make_v3(tmp_path / "set", greys=[ALL[n] for n in kept], clip={"times": [n / FPS for n in kept]}))
    assert_own(source, 0)
    for index in (1, 2):
        with refused("file-000.mp4", kind=BadEpisode):
            source.frames(index, "wrist")


def test_an_episode_that_is_not_listed_keeps_its_frames(tmp_path: Path) -> None:
    source = open_episodes(make_v3(tmp_path / "set", listed=lambda row: None if row["episode_index"] == 1 else row))
    assert source.indices() == [0, 2]
    for index in (0, 2):
        assert_own(source, index)


def test_lengths_that_are_not_the_rows_do_not_move_frames(tmp_path: Path) -> None:
    """The list has 9 and 8 where the rows are 8 and 9: counted by the list, episode 1 would begin a frame late."""
    swapped = {0: 9, 1: 8, 2: 10}
    source = open_episodes(make_v3(tmp_path / "set", listed=lambda row: row | {"length": swapped[row["episode_index"]]}))
    assert_own(source, 0)
    with refused("episode 1", "episode 0", 8, 9, kind=BadEpisode):
        source.frames(1, "wrist")
    assert_own(source, 2)


def test_the_last_frame_of_a_file_may_be_missing(tmp_path: Path) -> None:
    source = open_episodes(make_v3(tmp_path / "set", greys=ALL[:-1]))
    assert_own(source, 1)
    assert_own(source, 2, LENGTHS[2] - 1)
    assert len(source.episode(2).pose) == LENGTHS[2] - 1


# A file an episode


def processed(root: Path, more: int, views: int = 3) -> Path:
    """Ctrl-World's layout: one episode of 12 rows whose videos have `more` frames."""
    note = {"episode_id": 1, "texts": ["fold the towel"], "states": [[f / 10, 0, 0, 0, 0, 0, 0] for f in range(12)], "video_length": 12}
    note |= {"joints": [[0.0] * 7] * 12, "videos": [{"video_path": f"videos/val/1/{view}.mp4"} for view in range(views)]}
    (root / "annotation/val").mkdir(parents=True)
    (root / "annotation/val/1.json").write_text(json.dumps(note))
    for view in range(views):
        write_clip(root / f"videos/val/1/{view}.mp4", [grey(0, f) for f in range(12 + more)], fps=5)
    return root


@pytest.mark.parametrize("more", [-LACKING, 0, 1, SURPLUS])
def test_the_common_length_is_taken_with_a_note(tmp_path: Path, more: int) -> None:
    sources = {open_episodes(processed(tmp_path / "processed", more)): (1, 12)}
    sources[open_episodes(make_v2(tmp_path / "v2", greys=lambda i: own_greys(i, LENGTHS[i] + more)))] = (1, LENGTHS[1])
    for source, (index, rows) in sources.items():
        length, episode = min(rows, rows + more), source.episode(index)
        assert len(episode.pose) == length == len(source.frames(index, "wrist"))
        assert episode.joints is None or len(episode.joints) == length
        cut = [note for note in episode.notes if note.startswith(tuple(source.views))]
        assert [note.split()[0] for note in cut] == (list(source.views) if more else [])
        for note in cut:
            assert_names(note, abs(more), "more" if more > 0 else "fewer")


@pytest.mark.parametrize("more", [-LACKING - 1, SURPLUS + 1])
def test_a_larger_difference_leaves_the_episode_out(tmp_path: Path, more: int) -> None:
    with refused("episode 1", 12 + more, 12, kind=BadEpisode):
        open_episodes(processed(tmp_path / "processed", more)).frames(1, "wrist")
    with refused("episode 1", 9 + more, 9, kind=BadEpisode):
        open_episodes(make_v2(tmp_path / "v2", greys=lambda i: own_greys(i, LENGTHS[i] + more))).frames(1, "wrist")


def test_a_frame_that_is_missing_in_the_middle_is_not_cut_at_the_end(tmp_path: Path) -> None:
    root = processed(tmp_path / "set", 0)
    kept = [f for f in range(12) if f != 5]
    write_clip(root / "videos/val/1/2.mp4", [grey(0, f) for f in kept], times=[f / 5 for f in kept])
    source = open_episodes(root)
    with refused("episode 1", "frame 5", kind=BadEpisode):
        source.frames(1, "wrist")
    assert len(source.frames(1, "exterior_1")) == 12


def test_one_file_for_two_views_is_refused(tmp_path: Path) -> None:
    root = processed(tmp_path / "set", 0)
    raw = json.loads((root / "annotation/val/1.json").read_text())
    raw["videos"][1] = raw["videos"][0]
    (root / "annotation/val/1.json").write_text(json.dumps(raw))
    with refused("exterior_1", "exterior_2", kind=BadEpisode):
        open_episodes(root).episode(1)


# Rows


def timestamps(values) -> dict:
    return {"timestamp": pa.array(list(values), pa.float64())}


@pytest.mark.parametrize(
    ("columns", "named"),
    [
        (lambda i, n: timestamps(f / FPS + 2 * (f > 4) for f in range(n)), ("row 5", "2.07 s")),
        (lambda i, n: timestamps(f / FPS + 0.5 / FPS * (f > 4) for f in range(n)), ("row 5", "0.1 s")),
        (lambda i, n: timestamps(f / 30 for f in range(n)), ("30 Hz", "meta/info.json", 15)),
        (lambda i, n: timestamps(1000 * f / FPS for f in range(n)), ("0.015 Hz",)),
        (lambda i, n: timestamps(0.0 for _ in range(n)), ("row 1", "0 s")),
        (lambda i, n: {"frame_index": [f + (f > 3) for f in range(n)]}, ("frame_index", 3, 5)),
        (lambda i, n: {"frame_index": [f - (f > 3) for f in range(n)]}, ("frame_index", "3 to 3")),
        (lambda i, n: {"episode_index": [7] * n}, ("episode 7",)),
    ],
)  # fmt: skip
def test_rows_that_are_missing_doubled_or_anothers_leave_the_episode_out(tmp_path: Path, columns, named: tuple) -> None:
    with refused(*named, kind=BadEpisode):
        open_episodes(make_v2(tmp_path / "set", columns)).episode(0)


def test_the_rows_clock_is_held_against_the_count_in_v3(tmp_path: Path) -> None:
    source = open_episodes(make_v3(tmp_path / "set", lambda rows: timestamps(f / FPS + 2 * (i == 1 and f > 4) for i, f in rows)))
    with refused("row 5", "2.07 s", kind=BadEpisode):
        source.episode(1)
    assert source.episode(2).notes == ()


def test_rows_are_put_in_the_order_of_their_frames(tmp_path: Path) -> None:
    def reverse(i: int, n: int) -> dict:
        order = range(n - 1, -1, -1)
        states = [[i + f / 100, 0.1, 0.2, 0.3, 0.4, 0.5, 0.5] for f in order]
        return {"frame_index": list(order), "observation.state": states} | timestamps(f / FPS for f in order)

    episode = open_episodes(make_v2(tmp_path / "set", reverse)).episode(1)
    np.testing.assert_allclose(episode.pose[:, 0], 1 + np.arange(9) / 100, rtol=1e-6)
    [note] = episode.notes
    assert_names(note, "frame_index")


def test_a_clock_that_trembles_is_a_note_and_one_that_drifts_too(tmp_path: Path) -> None:
    frames = np.arange(300)
    tremble = frames / FPS + np.where(frames % 2, 0.18, 0.0) / FPS
    assert check_timestamps(0, frames / FPS, FPS) == [] and check_timestamps(0, (frames / FPS).astype(np.float32), FPS) == []
    assert check_timestamps(0, 1e5 + frames / FPS, FPS) == []
    assert len(check_timestamps(0, tremble, FPS)) == 1
    assert len(check_timestamps(0, frames / 14.985, FPS)) == 1  # a thousandth: .3 frames after 300
    assert read_clock(frames / 29.97).rate == pytest.approx(29.97)

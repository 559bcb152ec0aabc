"""Which frames a training window points at, against Ctrl-World's rule replayed with a plain list."""

from collections import Counter

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from persistworld.config.training import BaseTrainingConfig
from persistworld.data.latents import LatentStore
from persistworld.data.windows import buffer_rows, draw_window, read_batch, skip_rows

REPLAY, POLICY = (0, 0, -8, -6, -4, -2), (0, 0, -12, -9, -6, -3)  # Ctrl-World's two published index sets
H, L, CHUNKS = 6, 5, 14
SKIP = BaseTrainingConfig()
BUFFER = BaseTrainingConfig(history_rule="buffer", frame_skips=(1,))


def published_history(index):
    """Frame numbers of the history before each of 14 chunks, with the buffer kept as Ctrl-World's scripts keep it."""
    buffer, rows = [0] * 24, []
    for chunk in range(CHUNKS):
        rows.append([buffer[i] for i in index])
        buffer.append(4 * chunk + 4)  # the chunk's last frame
    return rows


@pytest.mark.parametrize("index", [REPLAY, POLICY])
def test_buffer_over_14_chunks(index):
    assert [buffer_rows(0, chunk, index) for chunk in range(CHUNKS)] == published_history(index)
    assert [buffer_rows(7, chunk, index) for chunk in range(CHUNKS)] == [
        [7 + row for row in rows] for rows in published_history(index)
    ]


def test_buffer_by_hand():
    """After 9 chunks the frames 4, 8, .. 36 have been appended; 36 is the current one."""
    assert buffer_rows(0, 9, REPLAY) == [0, 0, 8, 16, 24, 32]
    assert buffer_rows(0, 9, POLICY) == [0, 0, 0, 4, 16, 28]
    assert buffer_rows(0, 0, REPLAY) == [0] * 6 and buffer_rows(0, 1, REPLAY) == [0] * 6


def test_history_before_the_clip_is_its_first_frame():
    assert skip_rows(30, 6, 4) == [6, 10, 14, 18, 22, 26]
    assert skip_rows(10, 6, 4) == [0, 0, 0, 0, 2, 6]
    assert skip_rows(50, 6, 8) == [2, 10, 18, 26, 34, 42]


def draws(training, frames, count=4000, index=REPLAY):
    rng = torch.Generator().manual_seed(0)
    return [draw_window(frames, training, H, L, index, rng) for _ in range(count)]


def test_windows_by_the_skip_rule():
    """Frame skip 1 or 2, history 4 times that apart, or collapsed onto the current frame with probability 0.15."""
    frames, kinds = 57, Counter()
    starts = {1: set(), 2: set()}
    for history, future in draws(SKIP, frames):
        skip = future[1] - future[0]
        assert future == [future[0] + skip * k for k in range(L)] and future[0] >= 0 and future[-1] < frames
        collapsed = history == [future[0]] * H
        assert collapsed or history == skip_rows(future[0], H, 4 * skip)
        starts[skip].add(future[0])
        kinds[skip, collapsed and future[0] > 0] += 1  # at frame 0 both rules give the same
    total = sum(kinds.values())
    assert starts == {1: set(range(53)), 2: set(range(49))}  # every place where the window fits
    assert abs((kinds[1, False] + kinds[1, True]) / total - 0.5) < 0.03
    assert abs((kinds[1, True] + kinds[2, True]) / total - 0.15 * 51 / 52) < 0.02


@pytest.mark.parametrize("index", [REPLAY, POLICY])
def test_windows_by_the_buffer_rule_are_those_of_rollouts(index):
    frames, collapsed = 57, 0
    published = published_history(index)
    for history, future in draws(BUFFER, frames, 2000, index):
        assert future == list(range(future[0], future[0] + L)) and future[-1] < frames
        if history == [future[0]] * H:
            collapsed += future[0] > 0
            continue
        first = history[0]  # the index sets begin with the buffer's first entry
        chunk, rest = divmod(future[0] - first, 4)
        assert rest == 0 and history == [first + row for row in published[chunk]]
    assert 0.1 < collapsed / 2000 < 0.35  # 0.15, and the windows that begin a rollout


def test_short_episodes_get_the_skip_that_fits():
    for frames, largest in ((5, 1), (8, 1), (9, 2)):
        windows = draws(SKIP, frames, 200)
        assert {future[1] - future[0] for _, future in windows} == set(range(1, largest + 1))
        assert max(future[-1] for _, future in windows) == frames - 1


def test_a_batch_holds_the_rows_that_were_drawn(tmp_path):
    latents = torch.arange(20.0).reshape(20, 1, 1, 1).expand(20, 2, 3, 4).contiguous()
    poses = torch.arange(20.0)[:, None].expand(20, 7).contiguous()
    save_file({"3": latents, "3.poses": poses}, tmp_path / "shard-0.safetensors")
    windows = [(3, [0, 0, 0, 2, 5, 9], [13, 14, 15, 16, 17]), (3, [4] * 6, [4, 6, 8, 10, 12])]
    batch = read_batch(LatentStore(tmp_path), windows, lambda p: (p / 20).astype(np.float32))
    assert batch.history.shape == (2, H, 2, 3, 4) and batch.future.shape == (2, L, 2, 3, 4)
    for place, (_, past, ahead) in enumerate(windows):
        assert batch.history[place, :, 0, 0, 0].tolist() == past and batch.future[place, :, 1, 2, 3].tolist() == ahead
        np.testing.assert_allclose(batch.poses[place, :, 0], np.array(past + ahead) / 20, rtol=1e-6)
    assert batch.episodes == (3, 3)

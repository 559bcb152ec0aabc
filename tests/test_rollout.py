"""Rollouts: frames, noise, what each chunk may know; and the object that owns them: batches, copies, state."""

import copy
import dataclasses
from itertools import pairwise

import pytest
import torch
from plain_rollout import Path, next_chunks
from refusals import refused
from safetensors.torch import load_file, save_file
from tiny import FRAMES, LATENT_SHAPE, ROLLOUT, SAMPLER, make_model

from persistworld import rollout
from persistworld.config.world_model import SamplerConfig
from persistworld.data.windows import buffer_rows
from persistworld.rollouts.rollout import Rollout, Starts
from persistworld.rollouts.starts import poses_after, starts_of
from persistworld.runtime.randomness import normal
from persistworld.world_model.poses import PoseStatistics

SETTINGS = dataclasses.replace(ROLLOUT, chunks=3)
REPLAY, POLICY = (0, 0, -8, -6, -4, -2), (0, 0, -12, -9, -6, -3)  # Ctrl-World's two published index sets
CLOSE = {"rtol": 1e-4, "atol": 1e-4}  # float32, summed in another order in a batch of another size


@pytest.fixture(scope="module")
def starts(base, store, entries) -> Starts:
    return starts_of(base, store, entries[:3])


@pytest.fixture(scope="module")
def poses(store, entries) -> torch.Tensor:
    """The recorded poses of 8 chunks."""
    return poses_after(store, entries[:3], FRAMES - 1)


@pytest.fixture(scope="module")
def three(base, starts, poses) -> torch.Tensor:
    return rollout(base, starts, poses, [0, 1, 2], 0, SETTINGS)


@pytest.fixture
def begun(base, starts, poses) -> Rollout:
    """Three rollouts with 2, 1 and 2 chunks behind them."""
    batch = Rollout(base, SETTINGS)
    batch.reset(starts, [(0, "test", place) for place in range(3)])
    batch.step(poses[:, :4])
    batch.step(poses[[0, 2], 4:8], [0, 2])
    return batch


@pytest.mark.parametrize("index", [REPLAY, (0, 0, -4, -3, -2, -1)])
def test_the_same_bytes_as_a_plain_loop(base, store, entries, starts, poses, index):
    settings = dataclasses.replace(SETTINGS, chunks=8, history_index=index)
    found = rollout(base, starts, poses, [7, 8, 9], 5, settings)
    sentences = base.encode_instructions([e.instruction for e in entries[:3]])
    paths = [Path(base, store, e.index, 0, e.instruction) for e in entries[:3]]
    for place, path in enumerate(paths):
        path.text = sentences[place : place + 1]
    for chunk in range(8):
        expected = next_chunks(base, paths, [(5, "rollout", 7 + place, chunk) for place in range(3)], index, SAMPLER)
        assert torch.equal(found[:, 4 * chunk : 4 * chunk + 5][:, chunk > 0 :], expected[:, chunk > 0 :])


@pytest.mark.parametrize("index", [REPLAY, POLICY])
def test_condition_over_14_chunks(base, index):
    """Latents and poses that carry the number of their frame, against Ctrl-World's buffer: 57 distinct frames, one of overlap a chunk."""
    model = copy.deepcopy(base)
    model.statistics = PoseStatistics("euler", (0.0,), (100.0,))  # a pose of one number, 0 to 100 -> -1 to 1
    batch = Rollout(model, dataclasses.replace(SETTINGS, history_index=index))
    batch.reset(Starts(torch.zeros(1, 1, 1, 1), torch.zeros(1, 1), None), [(0,)])
    seen: list[list[int]] = []
    for chunk in range(14):
        condition = batch.condition(4.0 * chunk + torch.arange(1.0, 5).reshape(1, 4, 1))
        rows = (50 * (condition.poses[0, :, 0] + 1)).round().int().tolist()
        assert rows[:6] == buffer_rows(0, chunk, index) == condition.history.flatten().int().tolist()
        assert rows[6] == condition.current.item() == 4 * chunk
        batch.append(torch.full((1, 1, 1, 1), 4.0 * chunk + 4), condition.poses[:, -1])
        assert rows[6] == condition.current.item()  # a condition stays what it was
        seen.append(rows[6:])
    assert all(set(before) & set(after) == {before[-1]} == {after[0]} for before, after in pairwise(seen))
    assert {row for rows in seen for row in rows} == set(range(57)) and sum(map(len, seen)) == 70


def test_fourteen_chunks_are_57_frames(base, starts, poses):
    """14 * 4 + 1: each chunk's first frame is the one before it again."""
    long = dataclasses.replace(SETTINGS, chunks=14, sampler=SamplerConfig(steps=1, sigma_max=20.0, sigma_min=0.3))
    assert rollout(base, starts.take([0]), poses[:1].repeat(1, 2, 1), [0], 0, long).shape == (1, 57, *LATENT_SHAPE)


def test_starts_are_the_datas_first_frames(base, store, entries, starts):
    assert torch.equal(starts.first, torch.cat([store.latents(e.index, [0]) for e in entries[:3]]))
    assert torch.equal(starts.pose, torch.cat([store.poses(e.index, [0]) for e in entries[:3]]))
    assert torch.equal(starts.text, base.encode_instructions([e.instruction for e in entries[:3]]))
    later = starts_of(base, store, [entries[1]], [4])
    assert torch.equal(later.first, store.latents(1, [4])) and torch.equal(later.pose, store.poses(1, [4]))
    assert torch.equal(poses_after(store, [entries[1]], 4, [4])[0], store.poses(1)[5:9])
    joined = Starts.join([starts.take([1, 2]), later])
    assert torch.equal(joined.first[:2], starts.first[1:]) and torch.equal(joined.text[2:], later.text)


def test_a_rollout_is_its_chunks_without_the_repeated_frame(base, starts, poses, three):
    batch = Rollout(base, SETTINGS)
    batch.reset(starts, [(0, "rollout", episode) for episode in range(3)])
    chunks = [batch.step(poses[:, begin : begin + 4]) for begin in (0, 4, 8)]
    assert torch.equal(three, torch.cat([chunks[0], chunks[1][:, 1:], chunks[2][:, 1:]], dim=1))
    assert torch.equal(batch.current, three[:, -1])


def test_a_rollout_does_not_depend_on_its_batch(base, starts, poses, three):
    """Alone, and with others in another order: the same up to rounding."""
    alone = rollout(base, starts.take([1]), poses[1:2], [1], 0, SETTINGS)
    torch.testing.assert_close(alone[0], three[1], **CLOSE)
    turned = rollout(base, starts.take([2, 1, 0]), poses.flip(0), [2, 1, 0], 0, SETTINGS)
    torch.testing.assert_close(turned.flip(0), three, **CLOSE)


def test_seeds_and_episodes_have_their_own_noise(base, starts, poses, three):
    other = rollout(base, starts, poses, [0, 1, 5], 0, SETTINGS)
    assert torch.equal(other[:2], three[:2]) and not torch.allclose(other[2], three[2], atol=0.1)
    assert not torch.allclose(rollout(base, starts, poses, [0, 1, 2], 1, SETTINGS), three, atol=0.1)


def test_two_models_see_the_same_noise(starts, poses):
    """With the answer of the network taken away, what is left of two models is the noise: the same."""
    found = []
    for seed in (0, 1):
        model = make_model(seed)
        torch.nn.init.zeros_(model.unet.conv_out.weight)
        torch.nn.init.zeros_(model.unet.conv_out.bias)
        found.append(rollout(model, starts, poses, [0, 1, 2], 0, SETTINGS))
    assert torch.equal(*found) and found[0].std() > 0


def test_no_chunk_sees_a_later_pose(base, starts, poses, three):
    """Chunk 1 spans frames 4 to 8: another pose at frame 9 changes what comes after frame 8, and nothing before."""
    changed = poses.clone()
    changed[:, 8:] = 0
    found = rollout(base, starts, changed, [0, 1, 2], 0, SETTINGS)
    assert torch.equal(found[:, :9], three[:, :9]) and not torch.allclose(found[:, 9:], three[:, 9:])


def test_a_model_without_text(store, entries, poses):
    model = make_model(0, use_text=False)
    starts = starts_of(model, store, entries[:2])
    assert starts.text is None and starts.take([1]).text is None and Starts.join([starts, starts]).text is None
    assert rollout(model, starts, poses[:2], [0, 1], 0, SETTINGS).shape == (2, 13, *LATENT_SHAPE)
    batch = Rollout(model, SETTINGS)
    batch.reset(starts, [(0,), (1,)])
    twice = Rollout.join([batch, batch.take([1])])
    twice.reset(starts.take([0]), [(2,)], [1])
    restored = Rollout(model, SETTINGS)
    restored.load(twice.state())
    assert restored.text is None and torch.equal(restored.step(poses[:, :4]), twice.step(poses[:, :4]))


def test_sample_chunk_takes_raw_inputs(base, store, starts, poses):
    """The public call for one chunk equals the first chunk of a rollout."""
    first, raw = store.latents(0, [0]), store.poses(0)[:5]
    history = first[:, None].expand(-1, 6, -1, -1, -1)
    noise = normal((5, *LATENT_SHAPE), 0, "rollout", 0, 0)[None]
    found = base.sample_chunk(history, first, torch.cat([raw[:1].expand(6, -1), raw])[None].numpy(), ["push the red cube"], SAMPLER, noise)
    expected = rollout(base, starts.take([0]), poses[:1], [0], 0, SETTINGS)[:, :5]
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_rollouts_of_different_lengths_in_one_batch(base, starts, poses, begun):
    """Each goes on as if it were alone, although one of them waited for a chunk."""
    ahead = torch.stack([poses[0, 8:12], poses[1, 4:8], poses[2, 8:12]])
    together = begun.step(ahead)
    for place, behind in enumerate((2, 1, 2)):
        alone = Rollout(base, SETTINGS)
        alone.reset(starts.take([place]), [(0, "test", place)])
        for chunk in range(behind + 1):
            last = alone.step(poses[place : place + 1, 4 * chunk : 4 * chunk + 4])
        torch.testing.assert_close(together[place], last[0], **CLOSE)
    assert begun.drawn == [3, 2, 3]


def test_forks_share_the_past_and_the_noise_unless_they_get_keys(begun, poses):
    ahead = poses[:, 12:16].repeat_interleave(2, dim=0)
    before = begun.state()
    alike, own = begun.fork(2), begun.fork(2, [(9, place) for place in range(6)])
    same, other = alike.step(ahead), own.step(ahead)
    assert torch.equal(same[::2], same[1::2]) and alike.drawn == [3, 3, 2, 2, 3, 3]
    assert torch.equal(own.latents[:, 0], alike.latents[:, 0]) and own.drawn == [1] * 6
    assert not torch.allclose(other[::2], other[1::2], atol=0.1)
    after = begun.state()  # copies are independent
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())
    torch.testing.assert_close(begun.step(poses[:, 12:16]), same[::2], **CLOSE)


def test_a_state_restores_the_same_bytes(base, begun, poses, tmp_path):
    """Through a file; the rollouts go on after it was taken."""
    save_file(begun.state(), tmp_path / "state.safetensors")
    expected = [begun.step(poses[:, begin : begin + 4]) for begin in (8, 12)]
    restored = Rollout(base, SETTINGS)
    restored.load(load_file(tmp_path / "state.safetensors"))
    assert restored.keys == [(0, "test", 0), (0, "test", 1), (0, "test", 2)] and restored.drawn == [2, 1, 2]
    assert all(torch.equal(restored.step(poses[:, begin : begin + 4]), chunk) for begin, chunk in zip((8, 12), expected, strict=True))
    state = load_file(tmp_path / "state.safetensors")
    begun.load(state)  # undo
    assert torch.equal(begun.step(poses[:, 8:12]), expected[0])
    assert torch.equal(state["latents"], load_file(tmp_path / "state.safetensors")["latents"])  # a state can be loaded twice
    with pytest.raises(ValueError, match="history_index"):
        Rollout(base, dataclasses.replace(SETTINGS, history_index=POLICY)).load(state)


def test_batches_are_taken_apart_and_joined(begun, poses):
    joined = Rollout.join([begun.take([2]), begun.take(slice(0, 2))])
    assert joined.keys == [(0, "test", 2), (0, "test", 0), (0, "test", 1)] and joined.drawn == [2, 2, 1] and len(joined) == 3
    torch.testing.assert_close(joined.step(poses[[2, 0, 1], 12:16]), begun.step(poses[:, 12:16])[[2, 0, 1]], **CLOSE)


def test_one_rollout_of_a_batch_starts_again(base, starts, poses, begun):
    others = begun.latents[[0, 2]].clone()
    begun.reset(starts.take([0]), [(4, "again")], [1])
    assert torch.equal(begun.latents[[0, 2]], others) and begun.drawn == [2, 0, 2]
    alone = Rollout(base, SETTINGS)
    alone.reset(starts.take([0]), [(4, "again")])
    torch.testing.assert_close(begun.step(poses[:1, :4], [1]), alone.step(poses[:1, :4]), **CLOSE)
    assert torch.equal(starts.text, base.encode_instructions(["push the red cube", "lift the blue cup", ""]))  # not written to


def test_memory_does_not_grow_with_the_length(begun, poses):
    sizes = {begun.latents.shape, *((begun.append(begun.current, begun.poses[:, -1]), begun.latents.shape)[1] for _ in range(30))}
    assert sizes == {(3, 9, *LATENT_SHAPE)}
    assert torch.isfinite(begun.step(poses[:, :4])).all()


def test_poses_of_another_shape_are_refused(begun, poses):
    with pytest.raises(ValueError, match=r"\(3, 5, .*\(3, 4, "):
        begun.step(poses[:, :5])
    with pytest.raises(ValueError, match=r"\(2, 4, .*\(3, 4, "):
        begun.step(poses[:2, :4])
    with refused("11 numbers"):
        begun.step(torch.zeros(3, 4, 8))

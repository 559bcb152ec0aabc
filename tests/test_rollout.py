"""Rollouts: frames, noise, and what each chunk may know."""

import dataclasses

import pytest
import torch
from conftest import HISTORY_INDEX, SAMPLER, make_model

from persistworld import rollout
from persistworld.config.world_model import RolloutConfig, SamplerConfig
from persistworld.rollouts.engine import Starts, roll
from persistworld.rollouts.starts import starts_of
from persistworld.runtime.randomness import normal

SETTINGS = RolloutConfig(sampler=SAMPLER, chunks=3, history_index=HISTORY_INDEX, precision="float32")
FRAMES = 13  # of 3 chunks


@pytest.fixture(scope="module")
def starts(base, store, entries) -> Starts:
    return starts_of(base, store, entries[:3], FRAMES)


@pytest.fixture(scope="module")
def three(base, starts) -> torch.Tensor:
    return rollout(base, starts, [0, 1, 2], 0, SETTINGS)


def test_fourteen_chunks_are_57_frames(base, starts):
    """14 * 4 + 1: each chunk's first frame is the one before it again."""
    long = dataclasses.replace(SETTINGS, chunks=14, sampler=SamplerConfig(steps=1, sigma_max=20.0, sigma_min=0.3))
    poses = starts.poses[:1].repeat(1, 5, 1)[:, :57]
    assert rollout(base, Starts(starts.first[:1], poses, starts.text[:1]), [0], 0, long).shape == (1, 57, 4, 12, 4)


def test_starts_are_the_datas_first_frames(base, store, entries, starts):
    assert torch.equal(starts.first, torch.cat([store.latents(e.index, [0]) for e in entries[:3]]))
    assert starts.poses.shape == (3, FRAMES, 10) and starts.poses.abs().max() <= 1
    assert torch.equal(starts.text, base.encode_instructions([e.instruction for e in entries[:3]]))
    later = starts_of(base, store, [entries[1]], 5, [4])
    assert torch.equal(later.first, store.latents(1, [4])) and torch.equal(later.poses[0], starts.poses[1, 4:9])


def test_a_rollout_is_its_chunks_without_the_repeated_frame(base, starts, three):
    chunks = list(
        roll(
            base, starts, 3, lambda place, chunk: normal((5, 4, 12, 4), 0, "rollout", place, chunk),
            SAMPLER, HISTORY_INDEX, "float32",
        )
    )  # fmt: skip
    assert torch.equal(three, torch.cat([chunks[0], chunks[1][:, 1:], chunks[2][:, 1:]], dim=1))


def test_a_rollout_does_not_depend_on_its_batch(base, starts, three):
    """Alone, and with others in another order: the same up to rounding."""
    alone = rollout(base, starts.take(torch.tensor([1])), [1], 0, SETTINGS)
    torch.testing.assert_close(alone[0], three[1], rtol=1e-4, atol=1e-4)
    turned = rollout(base, starts.take(torch.tensor([2, 1, 0])), [2, 1, 0], 0, SETTINGS)
    torch.testing.assert_close(turned.flip(0), three, rtol=1e-4, atol=1e-4)


def test_seeds_and_episodes_have_their_own_noise(base, starts, three):
    other = rollout(base, starts, [0, 1, 5], 0, SETTINGS)
    assert torch.equal(other[:2], three[:2]) and not torch.allclose(other[2], three[2], atol=0.1)
    assert not torch.allclose(rollout(base, starts, [0, 1, 2], 1, SETTINGS), three, atol=0.1)


def test_two_models_see_the_same_noise(starts):
    """With the answer of the network taken away, what is left of two models is the noise: the same."""
    found = []
    for seed in (0, 1):
        model = make_model(seed)
        torch.nn.init.zeros_(model.unet.conv_out.weight)
        torch.nn.init.zeros_(model.unet.conv_out.bias)
        found.append(rollout(model, starts, [0, 1, 2], 0, SETTINGS))
    assert torch.equal(*found) and found[0].std() > 0


def test_no_chunk_sees_a_later_pose(base, starts, three):
    """Chunk 1 spans frames 4 .. 8: another pose at frame 9 changes what comes after frame 8, and nothing before."""
    poses = starts.poses.clone()
    poses[:, 9:] = 0
    found = rollout(base, Starts(starts.first, poses, starts.text), [0, 1, 2], 0, SETTINGS)
    assert torch.equal(found[:, :9], three[:, :9]) and not torch.allclose(found[:, 9:], three[:, 9:])


def test_a_model_without_text(store, entries):
    model = make_model(0, use_text=False)
    starts = starts_of(model, store, entries[:2], FRAMES)
    assert starts.text is None and starts.take(torch.tensor([1])).text is None
    assert rollout(model, starts, [0, 1], 0, SETTINGS).shape == (2, FRAMES, 4, 12, 4)


def test_sample_chunk_takes_raw_inputs(base, store):
    """The public one-chunk call equals the engine's first chunk."""
    first, poses = store.latents(0, [0]), store.poses(0)[:5]
    noise = normal((5, 4, 12, 4), 0, "rollout", 0, 0)[None]
    history = first[:, None].expand(-1, 6, -1, -1, -1)
    raw = torch.cat([poses[:1].expand(6, -1), poses])[None].numpy()
    found = base.sample_chunk(history, first, raw, ["push the red cube"], SAMPLER, noise)
    normalised = torch.from_numpy(base.statistics.normalise(poses.numpy()))
    starts = Starts(first, normalised[None], base.encode_instructions(["push the red cube"]))
    expected = next(roll(base, starts, 1, lambda *_: noise[0], SAMPLER, HISTORY_INDEX, "float32"))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)

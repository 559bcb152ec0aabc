"""Groups: what is drawn, that batching changes nothing, and that each branch continues from its own frames."""

import copy
import dataclasses

import pytest
import torch
from plain_rollout import Path, next_chunks
from tiny import FRAMES, HISTORY_INDEX, ROLLOUT, SAMPLER

from persistworld.config.post_training import PostTrainingConfig
from persistworld.data.manifest import Entry
from persistworld.post_training.groups import (
    Plan,
    Samples,
    branch_candidates,
    empty_rollouts,
    plan_groups,
    roll_prefixes,
    target_rows,
)
from persistworld.rollouts.rollout import Rollout

SETTINGS = PostTrainingConfig(candidates=2, keep=0, prefix=(0, 3), branch=2, sampler=SAMPLER, precision="float32")
CLOSE = {"rtol": 1e-4, "atol": 1e-4}  # float32, summed in another order in a batch of another size


@pytest.fixture
def plan(entries) -> Plan:
    return Plan(entries[:3], first_rows=(2, 0, 5), prefixes=(2, 0, 3))


def sample(base, store, plan: Plan, sample_batch: int = 0) -> tuple[Rollout, Samples]:
    """Rollouts after their prefixes, and the candidates of a plan, with seed 1 at step 7."""
    rollouts = empty_rollouts(base, SETTINGS, ROLLOUT, sample_batch)
    roll_prefixes(rollouts, store, plan, 1, 7)
    return rollouts, branch_candidates(rollouts, store, plan, SETTINGS, 1, 7)


@pytest.fixture(scope="module")
def sampled(base, store, entries):
    plan = Plan(entries[:3], first_rows=(2, 0, 5), prefixes=(2, 0, 3))
    return sample(base, store, plan)


def test_the_same_bytes_as_a_plain_loop(base, store, plan, sampled):
    """Prefixes of 2, 0 and 3 chunks, of which a batch holds those that go on; then 2 candidates each, of 2 chunks."""
    rollouts, samples = sampled
    places = zip(plan.episodes, plan.first_rows, strict=True)
    paths = [Path(base, store, entry.index, row, entry.instruction) for entry, row in places]
    for chunk in range(3):
        active = [group for group in range(3) if plan.prefixes[group] > chunk]
        keys = [(1, "prefix", 7, group, chunk) for group in active]
        next_chunks(base, [paths[group] for group in active], keys, HISTORY_INDEX, SAMPLER)
    for latents, path in zip(rollouts.latents, paths, strict=True):
        assert torch.equal(latents[1:], torch.stack([latent for latent, _ in path.buffer[-8:]]))
    candidates = [path.copy() for path in paths for _ in range(2)]
    for number in range(2):
        conditions = [path.condition(HISTORY_INDEX) for path in candidates]
        for name in ("history", "current", "poses", "text"):
            expected = torch.cat([getattr(condition, name) for condition in conditions])
            assert torch.equal(getattr(samples.conditions[number], name), expected)
        keys = [(1, "branch", 7, group, k, number) for group in range(3) for k in range(2)]
        chunks = next_chunks(base, candidates, keys, HISTORY_INDEX, SAMPLER)
        assert torch.equal(samples.chunks[:, :, number].flatten(0, 1), chunks)


def test_a_group_does_not_depend_on_the_other_groups(base, store, plan, sampled):
    """The first group among three of different lengths and alone; the third beside two others."""
    rollouts, samples = sampled
    alone_rollouts, alone = sample(base, store, plan.take(slice(0, 1)))
    torch.testing.assert_close(alone_rollouts.latents[0], rollouts.latents[0], **CLOSE)
    torch.testing.assert_close(alone.chunks[0], samples.chunks[0], **CLOSE)
    other = Plan((plan.episodes[2], *plan.episodes[1:]), (0, 0, 5), (0, 0, 3))
    other_rollouts, others = sample(base, store, other)
    torch.testing.assert_close(other_rollouts.latents[2], rollouts.latents[2], **CLOSE)
    torch.testing.assert_close(others.chunks[2], samples.chunks[2], **CLOSE)
    assert not torch.allclose(others.chunks[0], samples.chunks[0], atol=0.1)


def test_a_part_of_a_plan_keeps_its_groups_draws(base, store, plan, sampled):
    """What another process samples of the same step: the last two groups, with the noise of their numbers."""
    rollouts, samples = sampled
    own_rollouts, own = sample(base, store, plan.take(slice(1, 3)))
    assert own.first_group == 1
    torch.testing.assert_close(own_rollouts.latents[1], rollouts.latents[2], **CLOSE)
    torch.testing.assert_close(own.chunks, samples.chunks[1:], **CLOSE)


def test_the_number_of_chunks_sampled_at_once_changes_rounding_alone(base, store, plan, sampled):
    """6 candidates and up to 3 prefixes, 4 at a time."""
    sizes, model = [], copy.deepcopy(base)
    model.sample = lambda condition, noise, *rest: sizes.append(len(noise)) or base.sample(condition, noise, *rest)
    rollouts, samples = sampled
    found, candidates = sample(model, store, plan, sample_batch=4)
    torch.testing.assert_close(found.latents, rollouts.latents, **CLOSE)
    torch.testing.assert_close(candidates.chunks, samples.chunks, **CLOSE)
    assert sizes == [2, 2, 1, 4, 2, 4, 2]


def test_candidates_differ_and_start_from_one_buffer(sampled):
    """S2: the first chunk's condition is the same for all K, the chunks are not; the prefixes stay what they were."""
    rollouts, samples = sampled
    assert samples.chunks.shape == (3, 2, 2, 5, 4, 12, 4)
    first = samples.conditions[0]
    assert torch.equal(first.current, rollouts.current[[0, 0, 1, 1, 2, 2]])
    assert torch.equal(first.history[0], first.history[1]) and torch.equal(first.poses[4], first.poses[5])
    assert not torch.allclose(samples.chunks[:, 0], samples.chunks[:, 1], atol=0.1)


def test_a_second_chunk_goes_on_from_its_own_first(sampled, plan):
    """A private buffer: the current frame is the candidate's own last one, the history the shared prefix."""
    rollouts, samples = sampled
    first, second = samples.conditions
    assert torch.equal(second.current, samples.chunks[:, :, 0, -1].flatten(0, 1))
    # Rollout 0 has 3 chunks behind it (P = 2 and its first). Of a buffer of 24 + 3, the index (0, 0, -8, -6, -4, -2)
    # takes the first latent five times, then the last entry but one: the end of the prefix.
    assert torch.equal(second.history[0, :5], rollouts.latents[0, :1].expand(5, -1, -1, -1))
    assert torch.equal(second.history[0, 5], rollouts.latents[0, -1]) and torch.equal(second.history[1], second.history[0])
    assert torch.equal(first.poses[:, -1], second.poses[:, 6])  # one chunk's last pose is the next one's first


def test_targets_are_the_frames_that_the_candidates_poses_belong_to(base, store, plan, sampled):
    samples = sampled[1]
    for group, entry in enumerate(plan.episodes):
        rows = target_rows(plan, group, SETTINGS.branch)
        assert rows[0] == plan.first_rows[group] + 4 * plan.prefixes[group] and rows[5] == rows[4] and len(rows) == 10
        poses = torch.from_numpy(base.statistics.normalise(store.poses(entry.index, rows).numpy()))
        found = [condition.poses[2 * group, 6:] for condition in samples.conditions]
        assert torch.equal(torch.cat(found), poses)


def test_plans_fit_their_episodes_and_cover_all_prefixes():
    """P ~ Unif{0 .. 3}; the frames of prefix and branch lie in the episode, and both ends of it are used."""
    episodes = [Entry(7, "train", "", None, 21), Entry(9, "train", "", None, FRAMES)]
    plan = plan_groups(episodes, SETTINGS, 5, seed=0, step=0, groups=400)
    assert {plan.prefixes.count(p) > 70 for p in range(4)} == {True} and set(plan.prefixes) == {0, 1, 2, 3}
    ends = {7: set(), 9: set()}
    for entry, row, prefix in zip(plan.episodes, plan.first_rows, plan.prefixes, strict=True):
        last = row + 4 * (prefix + SETTINGS.branch)
        assert row >= 0 and last < entry.frames
        ends[entry.index].add(last)
    assert max(ends[7]) == 20 and max(ends[9]) == FRAMES - 1


def test_plans_are_a_function_of_seed_and_step(entries):
    def draw(seed: int, step: int) -> Plan:
        return plan_groups(entries, SETTINGS, 5, seed, step, groups=6)

    assert draw(0, 3) == draw(0, 3)
    assert draw(0, 3) != draw(0, 4) and draw(0, 3) != draw(1, 3)


def test_groups_take_every_episode_once_before_any_again(entries):
    """Steps of three groups of four episodes: any four groups that follow a round's start are four episodes."""
    taken = [e.index for step in range(8) for e in plan_groups(entries, SETTINGS, 5, 0, step, 3).episodes]
    rounds = [taken[i : i + 4] for i in range(0, 24, 4)]
    assert all(sorted(one) == [0, 1, 2, 3] for one in rounds) and len({tuple(one) for one in rounds}) > 1


def test_curriculum_lengthens_the_prefix(entries):
    settings = dataclasses.replace(SETTINGS, prefix_schedule="curriculum", steps=30)
    longest = [max(plan_groups(entries, settings, 5, 0, step, groups=60).prefixes) for step in (0, 9, 19, 29)]
    assert longest == [0, 1, 2, 3]


def test_an_equal_pair_fixes_the_prefix(entries):
    settings = dataclasses.replace(SETTINGS, prefix=(2, 2))
    assert set(plan_groups(entries, settings, 5, 0, 0, groups=20).prefixes) == {2}

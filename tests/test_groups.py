"""Groups: what is drawn, that batching changes nothing, and that each branch goes on from its own frames."""

import copy
import dataclasses

import pytest
import torch
from conftest import FRAMES, HISTORY_INDEX, SAMPLER

from persistworld.config.post_training import PostTrainingConfig
from persistworld.data.manifest import Entry
from persistworld.post_training.groups import (
    Plan,
    branch_candidates,
    group_starts,
    plan_groups,
    roll_prefixes,
    target_rows,
)
from persistworld.rollouts.engine import roll
from persistworld.runtime.randomness import normal

SETTINGS = PostTrainingConfig(candidates=2, keep=0, prefix=(0, 3), branch=2, sampler=SAMPLER, precision="float32")
CLOSE = {"rtol": 1e-4, "atol": 1e-4}  # float32, summed in another order in a batch of another size


@pytest.fixture
def plan(entries) -> Plan:
    return Plan(entries[:3], first_rows=(2, 0, 5), prefixes=(2, 0, 3))


def sample(base, store, plan: Plan):
    """Starts, prefix entries and candidates of a plan, with seed 1 at step 7."""
    starts = group_starts(base, store, plan, SETTINGS.branch)
    entries = roll_prefixes(base, starts, plan, SETTINGS, HISTORY_INDEX, 1, 7)
    return starts, entries, branch_candidates(base, starts, entries, plan, SETTINGS, HISTORY_INDEX, 1, 7)




@pytest.fixture(scope="module")
def sampled(base, store, entries):
    plan = Plan(entries[:3], first_rows=(2, 0, 5), prefixes=(2, 0, 3))
    return sample(base, store, plan)


def test_a_group_does_not_depend_on_the_other_groups(base, store, plan, sampled):
    """The first group among three of different lengths and alone; the third beside two others."""
    _, entries, samples = sampled
    _, alone_entries, alone = sample(base, store, plan.take(slice(0, 1)))
    torch.testing.assert_close(alone_entries[0], entries[0, :3], **CLOSE)
    torch.testing.assert_close(alone.chunks[0], samples.chunks[0], **CLOSE)
    other = Plan((plan.episodes[2], *plan.episodes[1:]), (0, 0, 5), (0, 0, 3))
    _, other_entries, others = sample(base, store, other)
    torch.testing.assert_close(other_entries[2], entries[2], **CLOSE)
    torch.testing.assert_close(others.chunks[2], samples.chunks[2], **CLOSE)
    assert not torch.allclose(others.chunks[0], samples.chunks[0], atol=0.1)


def test_a_part_of_a_plan_keeps_its_groups_draws(base, store, plan, sampled):
    """What another process samples of the same step: the last two groups, with the noise of their numbers."""
    _, entries, samples = sampled
    _, own_entries, own = sample(base, store, plan.take(slice(1, 3)))
    assert own.first_group == 1
    torch.testing.assert_close(own_entries[1], entries[2], **CLOSE)
    torch.testing.assert_close(own.chunks, samples.chunks[1:], **CLOSE)


def test_the_number_of_chunks_sampled_at_once_changes_rounding_alone(base, store, plan, sampled):
    """6 candidates and up to 3 prefixes, 4 at a time."""
    sizes, model = [], copy.deepcopy(base)
    model.sample = lambda condition, noise, *rest: sizes.append(len(noise)) or base.sample(condition, noise, *rest)
    starts, entries, samples = sampled
    found = roll_prefixes(model, starts, plan, SETTINGS, HISTORY_INDEX, 1, 7, 4)
    torch.testing.assert_close(found, entries, **CLOSE)
    found = branch_candidates(model, starts, entries, plan, SETTINGS, HISTORY_INDEX, 1, 7, 4)
    torch.testing.assert_close(found.chunks, samples.chunks, **CLOSE)
    assert sizes == [2, 2, 1, 4, 2, 4, 2]


def test_a_prefix_is_an_ordinary_rollout(base, store, plan, sampled):
    """S1: the entries are the first latent and the last latent of each chunk of a rollout from the same row."""
    starts, entries, _ = sampled
    for group in (0, 2):
        chunks = roll(
            base, starts.take(torch.tensor([group])), plan.prefixes[group],
            lambda _, chunk, group=group: normal((5, 4, 12, 4), 1, "prefix", 7, group, chunk),
            SAMPLER, HISTORY_INDEX, "float32",
        )  # fmt: skip
        expected = [store.latents(plan.episodes[group].index, [plan.first_rows[group]]), *(c[:, -1] for c in chunks)]
        torch.testing.assert_close(entries[group, : plan.prefixes[group] + 1], torch.cat(expected), **CLOSE)


def test_candidates_differ_and_start_from_one_buffer(sampled):
    """S2: the first chunk's condition is the same for all K, the chunks are not."""
    _, entries, samples = sampled
    assert samples.chunks.shape == (3, 2, 2, 5, 4, 12, 4)
    first = samples.conditions[0]
    torch.testing.assert_close(first.current, entries[[0, 0, 1, 1, 2, 2], [2, 2, 0, 0, 3, 3]])
    assert torch.equal(first.history[0], first.history[1]) and torch.equal(first.poses[4], first.poses[5])
    assert not torch.allclose(samples.chunks[:, 0], samples.chunks[:, 1], atol=0.1)


def test_a_second_chunk_goes_on_from_its_own_first(sampled, plan):
    """A private buffer: the current frame is the candidate's own last one, the history the shared prefix."""
    _, entries, samples = sampled
    first, second = samples.conditions
    assert torch.equal(second.current, samples.chunks[:, :, 0, -1].flatten(0, 1))
    # Rollout 0 has 3 chunks behind it (P = 2 and its first). Of a buffer of 24 + 3, the index (0, 0, -8, -6, -4, -2)
    # takes the first latent five times, then the last entry but one: the end of the prefix.
    assert torch.equal(second.history[0, :5], entries[0, :1].expand(5, -1, -1, -1))
    assert torch.equal(second.history[0, 5], entries[0, 2]) and torch.equal(second.history[1], second.history[0])
    assert torch.equal(first.poses[:, -1], second.poses[:, 6])  # one chunk's last pose is the next one's first


def test_targets_are_the_frames_that_the_candidates_poses_belong_to(base, store, plan, sampled):
    samples = sampled[2]
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

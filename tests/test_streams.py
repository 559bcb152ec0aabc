"""Streams: which prefixes a step holds, and how rollouts continue from step to step."""

import dataclasses
from itertools import pairwise

import pytest
import torch
from plain_rollout import Path, next_chunks
from tiny import HISTORY_INDEX, ROLLOUT, SAMPLER

from persistworld.config.post_training import PostTrainingConfig
from persistworld.post_training.groups import Samples, branch_candidates, empty_rollouts
from persistworld.post_training.streams import advance_streams, begin_streams, load_streams, plan_streams
from persistworld.rollouts.rollout import Rollout
from persistworld.runtime.errors import UserError
from persistworld.runtime.randomness import generator

SETTINGS = PostTrainingConfig(groups=3, candidates=2, keep=0, prefix=(0, 2), streams=True, sampler=SAMPLER, precision="float32")


def test_every_prefix_is_as_frequent_as_any_other(entries):
    """Steps 3 to 8 of three streams of lives 0, 1, 2: each step holds each prefix once, on an episode that a life keeps."""
    plans = [plan_streams(entries, SETTINGS, 5, 0, step, 3) for step in range(9)]
    assert plans[0].prefixes == (0, 0, 0)
    for before, plan in pairwise(plans[3:]):
        assert sorted(plan.prefixes) == [0, 1, 2]
        for place, prefix in enumerate(plan.prefixes):
            assert prefix == (before.prefixes[place] + 1) % 3
            if prefix:
                assert plan.episodes[place] == before.episodes[place] and plan.first_rows[place] == before.first_rows[place]
    assert len({place.index for plan in plans for place in plan.episodes}) > 1


def test_every_episode_comes_once_before_any_comes_again(entries):
    """Lives are numbered over all groups: each round of as many as there are episodes has them all, in an order of its own."""
    plans = [plan_streams(entries, SETTINGS, 5, 0, step, 3) for step in range(30)]
    last_to_first = [zip(plan.episodes[::-1], plan.prefixes[::-1], strict=True) for plan in plans[1:]]
    begun = [e.index for e in plans[0].episodes[::-1]] + [e.index for pairs in last_to_first for e, prefix in pairs if prefix == 0]
    rounds = [begun[i : i + len(entries)] for i in range(0, len(begun) - len(entries), len(entries))]
    assert len(rounds) > 5 and all(len(set(one)) == len(entries) for one in rounds)
    assert len({tuple(one) for one in rounds}) > 1


def stream(rollouts: Rollout, store, plan, step: int) -> Samples:
    begin_streams(rollouts, store, plan, 0)
    samples = branch_candidates(rollouts, store, plan, SETTINGS, 0, step)
    advance_streams(rollouts, samples, 0, step)
    return samples


def test_the_same_bytes_as_a_plain_loop(base, store, entries):
    """A group begins at its episode's first frame, and one of its two candidates becomes the next chunk."""
    rollouts, paths = empty_rollouts(base, SETTINGS, ROLLOUT), [None] * 3
    for step in range(5):
        plan = plan_streams(entries, SETTINGS, 5, 0, step, 3)
        samples = stream(rollouts, store, plan, step)
        for group, entry in enumerate(plan.episodes):
            if plan.prefixes[group] == 0:
                paths[group] = Path(base, store, entry.index, plan.first_rows[group], entry.instruction)
        candidates = [path.copy() for path in paths for _ in range(2)]
        keys = [(0, "branch", step, group, k, 0) for group in range(3) for k in range(2)]
        chunks = next_chunks(base, candidates, keys, HISTORY_INDEX, SAMPLER).unflatten(0, (3, 2))
        assert torch.equal(samples.chunks[:, :, 0], chunks)
        for group, path in enumerate(paths):
            chosen = int(torch.randint(2, (1,), generator=generator(0, "continued", step, group)))
            path.add(chunks[group, chosen, -1])


def test_streams_are_restored_to_any_number_of_processes(base, store, entries):
    """The states of two processes, with one and two groups, are taken up by one, and by two with two and one."""
    whole = empty_rollouts(base, SETTINGS, ROLLOUT)
    for step in range(2):
        stream(whole, store, plan_streams(entries, SETTINGS, 5, 0, step, 3), step)
    states = [whole.take(slice(0, 1)).state(), whole.take(slice(1, 3)).state()]
    plan = plan_streams(entries, SETTINGS, 5, 0, 2, 3)
    expected = stream(whole, store, plan, 2)
    for groups in (slice(0, 3), slice(0, 2), slice(2, 3)):
        own = empty_rollouts(base, SETTINGS, ROLLOUT)
        load_streams(own, states, groups)
        found = stream(own, store, plan.take(groups), 2)
        torch.testing.assert_close(found.chunks, expected.chunks[groups], rtol=1e-4, atol=1e-4)


def test_streams_start_at_prefix_zero():
    with pytest.raises(UserError, match=r"post_training\.streams"):
        dataclasses.replace(SETTINGS, prefix=(1, 2)).check()

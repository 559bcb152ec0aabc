"""Streams: which prefixes a step holds, and what a buffer contains."""

import dataclasses
from itertools import pairwise

import pytest
import torch
from conftest import HISTORY_INDEX, SAMPLER

from persistworld.config.post_training import PostTrainingConfig
from persistworld.post_training.groups import branch_candidates, group_starts
from persistworld.post_training.streams import Streams, plan_streams
from persistworld.runtime.errors import UserError

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


def test_a_buffer_holds_what_the_model_made(base, store, entries):
    """The first frame of the episode, then the last latent of one of the candidates of each step before."""
    streams = Streams(slice(0, 3), 2, store.latents(0, [0])[0])
    made: dict[int, list[torch.Tensor]] = {0: [], 1: [], 2: []}
    for step in range(5):
        plan = plan_streams(entries, SETTINGS, 5, 0, step, 3)
        starts = group_starts(base, store, plan, 1)
        buffers = streams.begin(starts, plan)
        for place, prefix in enumerate(plan.prefixes):
            if prefix == 0:
                made[place] = []
                first = store.latents(plan.episodes[place].index, [plan.first_rows[place]])[0]
                assert torch.equal(buffers[place, 0], first)
            for entry, candidates in zip(buffers[place, 1 : prefix + 1], made[place], strict=True):
                assert any(torch.equal(entry, one) for one in candidates)
        samples = branch_candidates(base, starts, buffers, plan, SETTINGS, HISTORY_INDEX, 0, step)
        streams.advance(samples, plan, 0, step)
        for place in range(3):
            made[place].append(samples.chunks[place, :, 0, -1].clone())


def test_streams_start_at_prefix_zero():
    with pytest.raises(UserError, match=r"post_training\.streams"):
        dataclasses.replace(SETTINGS, prefix=(1, 2)).check()

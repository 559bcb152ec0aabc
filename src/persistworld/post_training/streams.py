"""Streams: rollouts that continue from step to step, so that prefixes cost nothing.

A group keeps its episode while its rollout grows by one chunk per step, from P = 0 to the longest prefix. Then it starts another
episode. A random candidate of the group becomes the next chunk. A step therefore has prefixes of all lengths, equally often. The
drawback: the chunks of a prefix come from the policies of several recent steps.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from persistworld.config.post_training import PostTrainingConfig
from persistworld.data.latents import LatentStore
from persistworld.data.manifest import Entry
from persistworld.post_training.groups import Plan, Samples, group_starts, shuffled
from persistworld.rollouts.rollout import Rollout
from persistworld.runtime.distributed import gathered
from persistworld.runtime.randomness import generator


def plan_streams(
    episodes: Sequence[Entry], settings: PostTrainingConfig, future: int, seed: int, step: int, groups: int
) -> Plan:
    """Episode, first frame and prefix length of each group at this step. Like `plan_groups`, depends only on the step, not on history.

    The first rollout of each group is shortened by a different number of chunks, so that later steps have prefixes of all lengths.
    """
    longest, stride = settings.prefix[1], future - 1
    period = longest + 1
    needed = (longest + settings.branch) * stride + 1
    lives = [divmod(step + group * period // groups, period) for group in range(groups)]
    # A life is one rollout of a group. The last group ends a life first, so numbering groups backwards orders lives by their start.
    draws = [life * groups + groups - 1 - group for group, (life, _) in enumerate(lives)]
    chosen = shuffled(episodes, draws, seed, "streams")
    rows, prefixes = [], []
    for group, (entry, (life, age)) in enumerate(zip(chosen, lives, strict=True)):
        rng = generator(seed, "streams", group, life)
        rows.append(int(torch.randint(entry.frames - needed + 1, (1,), generator=rng)))
        prefixes.append(step if life == 0 else age)
    return Plan(tuple(chosen), tuple(rows), tuple(prefixes))


def begin_streams(rollouts: Rollout, store: LatentStore, plan: Plan, seed: int) -> None:
    """Start the rollouts of the groups whose prefix is empty. The others continue from the previous step."""
    new = [group for group, prefix in enumerate(plan.prefixes) if prefix == 0]
    if new:
        keys = [(seed, "streams", plan.first_group + group) for group in new]  # never drawn from: candidates have their own keys
        rollouts.reset(group_starts(rollouts.model, store, plan, new), keys, new if len(rollouts) else None)


def advance_streams(rollouts: Rollout, samples: Samples, seed: int, step: int) -> None:
    """Append the first chunk of a random candidate to each group's rollout."""
    groups, count = samples.chunks.shape[:2]
    rngs = [generator(seed, "continued", step, samples.first_group + group) for group in range(groups)]
    chosen = torch.tensor([int(torch.randint(count, (1,), generator=rng)) for rng in rngs])
    places = torch.arange(groups)
    rollouts.append(samples.chunks[places, chosen, 0, -1], samples.conditions[0].poses[places * count + chosen, -1])


def streams_state(rollouts: Rollout) -> list[dict[str, Tensor]]:
    """The states of all processes' rollouts; every process must call this."""
    return gathered([rollouts.state()])


def load_streams(rollouts: Rollout, states: list[dict[str, Tensor]], groups: slice) -> None:
    """Load this process's `groups` from the result of `streams_state`. The number of processes may have changed."""
    parts = [Rollout(rollouts.model, rollouts.settings) for _ in states]
    for part, state in zip(parts, states, strict=True):
        part.load(state)
    rollouts.load(Rollout.join(parts).take(groups).state())

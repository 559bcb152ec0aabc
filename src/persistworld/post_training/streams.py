"""Streams: rollouts that go on from step to step, so that prefixes cost nothing.

A group keeps its episode while its rollout grows by a chunk a step, from P = 0 to the longest prefix; then it starts on another
episode. One random candidate of the group becomes the next chunk. A step thus holds prefixes of all lengths, each drawn as often as
any other; the price is that a prefix's chunks come from the policies of the last few steps.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from persistworld.config.post_training import PostTrainingConfig
from persistworld.data.manifest import Entry
from persistworld.post_training.groups import Plan, Samples, shuffled
from persistworld.rollouts.engine import Starts
from persistworld.runtime.distributed import gathered
from persistworld.runtime.randomness import generator


def plan_streams(
    episodes: Sequence[Entry], settings: PostTrainingConfig, future: int, seed: int, step: int, groups: int
) -> Plan:
    """What each group's stream stands at: as `plan_groups`, and like it a function of the step alone.

    The first lives are shortened by different numbers of chunks: later steps hold all lengths.
    """
    longest, stride = settings.prefix[1], future - 1
    period = longest + 1
    needed = (longest + settings.branch) * stride + 1
    lives = [divmod(step + group * period // groups, period) for group in range(groups)]
    # The last group is the first to end a life: numbered backwards, lives come in the order in which they begin.
    draws = [life * groups + groups - 1 - group for group, (life, _) in enumerate(lives)]
    chosen = shuffled(episodes, draws, seed, "streams")
    rows, prefixes = [], []
    for group, (entry, (life, age)) in enumerate(zip(chosen, lives, strict=True)):
        rng = generator(seed, "streams", group, life)
        rows.append(int(torch.randint(entry.frames - needed + 1, (1,), generator=rng)))
        prefixes.append(step if life == 0 else age)
    return Plan(tuple(chosen), tuple(rows), tuple(prefixes))


class Streams:
    """The history buffers of a process's groups. entries: (G, longest prefix + 1, C, Vh, w)."""

    def __init__(self, groups: slice, longest: int, latent: Tensor) -> None:
        """latent: one of the shape (C, Vh, w), on the device of the rollouts."""
        self.groups = groups
        self.entries = latent.new_zeros(groups.stop - groups.start, longest + 1, *latent.shape)

    def begin(self, starts: Starts, plan: Plan) -> Tensor:
        """Every group's entries; those that start anew get their first frame. Entries past a group's P are not read."""
        new = [place for place, prefix in enumerate(plan.prefixes) if prefix == 0]
        self.entries[new, 0] = starts.first[new]
        return self.entries

    def advance(self, samples: Samples, plan: Plan, seed: int, step: int) -> None:
        """Append the last latent of a random candidate's first chunk to each group that goes on."""
        for place, prefix in enumerate(plan.prefixes):
            if prefix + 1 < self.entries.shape[1]:
                rng = generator(seed, "continued", step, plan.first_group + place)
                chosen = int(torch.randint(samples.chunks.shape[1], (1,), generator=rng))
                self.entries[place, prefix + 1] = samples.chunks[place, chosen, 0, -1]

    def state(self) -> Tensor:
        """All processes' entries (every process must ask), on the CPU."""
        return torch.cat(gathered([self.entries.cpu()]))

    def load(self, state: Tensor) -> None:
        """Take this process's part of what `state` returned."""
        self.entries.copy_(state[self.groups])

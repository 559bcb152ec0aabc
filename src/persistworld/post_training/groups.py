"""Groups of candidates (paper 3.3, S1 and S2): the model samples a prefix, then K continuations of it.

All groups of a process and all candidates of a group are sampled in batches. Every draw is keyed by (seed, step, group, candidate, chunk).
Groups are numbered over all processes.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from persistworld.config.post_training import PostTrainingConfig
from persistworld.config.world_model import RolloutConfig
from persistworld.data.latents import LatentStore
from persistworld.data.manifest import Entry
from persistworld.data.windows import CHUNK_STRIDE
from persistworld.rollouts.rollout import Rollout, Starts
from persistworld.rollouts.starts import poses_after, starts_of
from persistworld.runtime.randomness import generator
from persistworld.world_model.model import Condition, WorldModel


@dataclass(frozen=True)
class Plan:
    """The starting points of G groups in one step."""

    episodes: tuple[Entry, ...]
    first_rows: tuple[int, ...]  # frame at which each group's rollout starts
    prefixes: tuple[int, ...]  # prefix lengths P, in chunks
    first_group: int = 0  # index of the first group among all groups of the step

    def take(self, groups: slice) -> "Plan":
        """The plan for a slice of the groups. The groups keep their indices."""
        return Plan(self.episodes[groups], self.first_rows[groups], self.prefixes[groups], self.first_group + groups.start)


@dataclass(frozen=True)
class Samples:
    """Candidate chunks. chunks: (G, K, F, L, C, Vh, w); conditions[f]: the condition of chunk f, batch size G * K."""

    chunks: Tensor
    conditions: tuple[Condition, ...]
    first_group: int = 0  # see Plan


def plan_groups(
    episodes: Sequence[Entry], settings: PostTrainingConfig, future: int, seed: int, step: int, groups: int
) -> Plan:
    """Draw the episode, first frame and prefix length P of every group."""
    rng = generator(seed, "groups", step)
    entries = shuffled(episodes, range(step * groups, (step + 1) * groups), seed, "groups")
    stride = future - 1
    shortest, longest = settings.prefix[0], longest_prefix(settings, step)
    chosen, rows, prefixes = [], [], []
    for entry in entries:
        prefix = int(torch.randint(shortest, longest + 1, (1,), generator=rng))
        needed = (prefix + settings.branch) * stride + 1
        chosen.append(entry)
        rows.append(int(torch.randint(entry.frames - needed + 1, (1,), generator=rng)))
        prefixes.append(prefix)
    return Plan(tuple(chosen), tuple(rows), tuple(prefixes))


def shuffled(episodes: Sequence[Entry], draws: Sequence[int], *key: int | str) -> list[Entry]:
    """The elements with indices `draws` of an endless episode sequence. Each round holds every episode once, in a new random order.

    Most of a group's gradient is specific to its episode (docs/experiments.md). A step should therefore cover many episodes, and a run
    should cover all episodes equally often.
    """
    rounds = {draw // len(episodes) for draw in draws}
    orders = {number: torch.randperm(len(episodes), generator=generator(*key, "round", number)) for number in rounds}
    return [episodes[int(orders[draw // len(episodes)][draw % len(episodes)])] for draw in draws]


def longest_prefix(settings: PostTrainingConfig, step: int) -> int:
    """The longest prefix that can be drawn at `step`. With a curriculum it grows over the run."""
    shortest, longest = settings.prefix
    if settings.prefix_schedule == "random":
        return longest
    return shortest + round((longest - shortest) * min(1.0, (step + 1) / settings.steps))


def compared_share(settings: PostTrainingConfig) -> float:
    """Average fraction of a run's kept samples that enter the KL-to-base term, i.e. whose prefix is short enough."""
    if settings.kl_weight == 0:
        return 0.0
    shortest, longest = settings.prefix[0], [longest_prefix(settings, step) for step in range(settings.steps)]
    near = [top if settings.kl_prefix == -1 else min(top, settings.kl_prefix) for top in longest]
    return sum((bound - shortest + 1) / (top - shortest + 1) for bound, top in zip(near, longest, strict=True)) / settings.steps


def empty_rollouts(model: WorldModel, settings: PostTrainingConfig, rollout: RolloutConfig, sample_batch: int = 0) -> Rollout:
    """An empty batch with the settings of evaluation (`rollout`), but with the sampler and precision of post-training."""
    own = dataclasses.replace(rollout, sampler=settings.sampler, precision=settings.precision)
    return Rollout(model, own, sample_batch)


def group_starts(model: WorldModel, store: LatentStore, plan: Plan, groups: Sequence[int]) -> Starts:
    """The rollout starts of the given groups of the plan."""
    return Starts.join([starts_of(model, store, [plan.episodes[group]], [plan.first_rows[group]]) for group in groups])


def next_poses(store: LatentStore, plan: Plan, groups: Sequence[int], chunks: Sequence[int]) -> Tensor:
    """(len(groups), L - 1, P): the recorded poses of each group's next chunk. `chunks`: chunks that each group has completed."""
    rows = [plan.first_rows[group] + CHUNK_STRIDE * done for group, done in zip(groups, chunks, strict=True)]
    return poses_after(store, [plan.episodes[group] for group in groups], CHUNK_STRIDE, rows)


def roll_prefixes(rollouts: Rollout, store: LatentStore, plan: Plan, seed: int, step: int) -> None:
    """S1: start every group's rollout and advance it by its own P chunks."""
    groups = range(len(plan.prefixes))
    keys = [(seed, "prefix", step, plan.first_group + group) for group in groups]
    rollouts.reset(group_starts(rollouts.model, store, plan, groups), keys)
    for chunk in range(max(plan.prefixes)):
        active = [group for group in groups if plan.prefixes[group] > chunk]
        rollouts.step(next_poses(store, plan, active, [chunk] * len(active)), active)


def branch_candidates(
    rollouts: Rollout, store: LatentStore, plan: Plan, settings: PostTrainingConfig, seed: int, step: int
) -> Samples:
    """S2: sample K candidates of F chunks from each group's prefix. Each candidate works on its own copy of the prefix."""
    groups, count = range(len(plan.prefixes)), settings.candidates
    keys = [(seed, "branch", step, plan.first_group + group, k) for group in groups for k in range(count)]
    candidates = rollouts.fork(count, keys)
    chunks, conditions = [], []
    for number in range(settings.branch):
        poses = next_poses(store, plan, groups, [prefix + number for prefix in plan.prefixes])
        condition = candidates.condition(poses.repeat_interleave(count, dim=0))
        chunks.append(candidates.advance(condition))
        conditions.append(condition)
    stacked = torch.stack(chunks, dim=1)
    return Samples(stacked.reshape(len(groups), count, *stacked.shape[1:]), tuple(conditions), plan.first_group)


def target_rows(plan: Plan, group: int, branch: int) -> list[int]:
    """Ground-truth frames for scoring a group's candidates: L rows for each of the F chunks."""
    first = plan.first_rows[group] + CHUNK_STRIDE * plan.prefixes[group]
    return [first + CHUNK_STRIDE * f + k for f in range(branch) for k in range(CHUNK_STRIDE + 1)]

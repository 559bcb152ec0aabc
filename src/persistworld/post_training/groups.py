"""Groups of candidates (paper 3.3, S1 and S2): a prefix that the model samples itself, then K continuations of it.

All groups of a process and all candidates of a group are sampled in batches. Every draw is keyed by (seed, step, group, candidate, chunk),
where groups are numbered over all processes.
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
    """What G groups of a step start from."""

    episodes: tuple[Entry, ...]
    first_rows: tuple[int, ...]  # the frame that each group's rollout starts at
    prefixes: tuple[int, ...]  # P
    first_group: int = 0  # the number of the first of them among all of the step's

    def take(self, groups: slice) -> "Plan":
        """The plan of some of the groups, which keep their numbers."""
        return Plan(self.episodes[groups], self.first_rows[groups], self.prefixes[groups], self.first_group + groups.start)


@dataclass(frozen=True)
class Samples:
    """Candidate chunks. chunks: (G, K, F, L, C, Vh, w); conditions[f]: what chunk f was conditioned on, batch G * K."""

    chunks: Tensor
    conditions: tuple[Condition, ...]
    first_group: int = 0  # as in Plan


def plan_groups(
    episodes: Sequence[Entry], settings: PostTrainingConfig, future: int, seed: int, step: int, groups: int
) -> Plan:
    """Draw episode, first frame and prefix length P of every group."""
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
    """The numbered `draws` of an endless sequence that holds every episode once, in a random order, before any comes again.

    What a group teaches is mostly its episode's own (docs/objective.md), so a step should see as many as it can, and a run all alike.
    """
    rounds = {draw // len(episodes) for draw in draws}
    orders = {number: torch.randperm(len(episodes), generator=generator(*key, "round", number)) for number in rounds}
    return [episodes[int(orders[draw // len(episodes)][draw % len(episodes)])] for draw in draws]


def longest_prefix(settings: PostTrainingConfig, step: int) -> int:
    """The longest prefix that `step` draws: under a curriculum it grows over the run."""
    shortest, longest = settings.prefix
    if settings.prefix_schedule == "random":
        return longest
    return shortest + round((longest - shortest) * min(1.0, (step + 1) / settings.steps))


def compared_share(settings: PostTrainingConfig) -> float:
    """The part of a run's kept samples, on average, whose distance from the base is in the KL term: those of short enough prefixes."""
    if settings.kl_weight == 0:
        return 0.0
    shortest, longest = settings.prefix[0], [longest_prefix(settings, step) for step in range(settings.steps)]
    near = [top if settings.kl_prefix == -1 else min(top, settings.kl_prefix) for top in longest]
    return sum((bound - shortest + 1) / (top - shortest + 1) for bound, top in zip(near, longest, strict=True)) / settings.steps


def empty_rollouts(model: WorldModel, settings: PostTrainingConfig, rollout: RolloutConfig, sample_batch: int = 0) -> Rollout:
    """Rollouts as evaluation makes them (`rollout`), but with post-training's own sampler and precision."""
    own = dataclasses.replace(rollout, sampler=settings.sampler, precision=settings.precision)
    return Rollout(model, own, sample_batch)


def group_starts(model: WorldModel, store: LatentStore, plan: Plan, groups: Sequence[int]) -> Starts:
    """Where the rollouts of these groups of the plan start."""
    return Starts.join([starts_of(model, store, [plan.episodes[group]], [plan.first_rows[group]]) for group in groups])


def next_poses(store: LatentStore, plan: Plan, groups: Sequence[int], chunks: Sequence[int]) -> Tensor:
    """(len(groups), L - 1, P): the recorded poses of each group's next chunk; `chunks` counts those behind it."""
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
    """S2: K candidates of F chunks from each group's prefix, which stays as it is: each candidate has a private copy."""
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
    """The ground-truth frames that a group's candidates are scored against: L rows for each of the F chunks."""
    first = plan.first_rows[group] + CHUNK_STRIDE * plan.prefixes[group]
    return [first + CHUNK_STRIDE * f + k for f in range(branch) for k in range(CHUNK_STRIDE + 1)]

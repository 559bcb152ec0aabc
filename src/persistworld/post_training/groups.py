"""Groups of candidates (paper 3.3, S1 and S2): a shared prefix of the model's own making, then K continuations of it.

All of a process's groups and all candidates of a group are sampled in batches; every draw is keyed by (seed, step, group, candidate,
chunk), where groups are numbered over all processes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from persistworld.config.post_training import PostTrainingConfig
from persistworld.data.latents import LatentStore
from persistworld.data.manifest import Entry
from persistworld.data.windows import CHUNK_STRIDE
from persistworld.rollouts.engine import Starts, chunk_condition, sample_in_parts
from persistworld.rollouts.starts import starts_of
from persistworld.runtime.randomness import generator, normal
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


def group_starts(model: WorldModel, store: LatentStore, plan: Plan, branch: int) -> Starts:
    """The groups' starting points, with as many poses as the longest needs; the others' are padded by their last pose."""
    needed = CHUNK_STRIDE * (max(plan.prefixes) + branch) + 1
    parts = []
    for entry, row in zip(plan.episodes, plan.first_rows, strict=True):
        available = min(needed, entry.frames - row)
        start = starts_of(model, store, [entry], available, [row])
        padding = start.poses[:, -1:].expand(-1, needed - available, -1)
        parts.append(Starts(start.first, torch.cat([start.poses, padding], dim=1), start.text))
    text = None if parts[0].text is None else torch.cat([p.text for p in parts])
    return Starts(torch.cat([p.first for p in parts]), torch.cat([p.poses for p in parts]), text)


def roll_prefixes(
    model: WorldModel, starts: Starts, plan: Plan, settings: PostTrainingConfig, index: tuple[int, ...], seed: int, step: int,
    sample_batch: int = 0,
) -> Tensor:
    """S1: entries (G, max P + 1, C, Vh, w) of every group's own rollout of P chunks; entries past its P are not read."""
    entries = starts.first[:, None]
    shape = (model.config.future, *starts.first.shape[1:])
    for chunk in range(max(plan.prefixes)):
        active = torch.tensor([g for g, p in enumerate(plan.prefixes) if p > chunk])
        condition = chunk_condition(entries[active], starts.take(active), [chunk] * len(active), index, shape[0])
        noise = torch.stack([normal(shape, seed, "prefix", step, plan.first_group + int(g), chunk) for g in active])
        latest = sample_in_parts(model, condition, noise, settings.sampler, settings.precision, sample_batch)[:, -1]
        added = entries[:, -1].clone()
        added[active] = latest
        entries = torch.cat([entries, added[:, None]], dim=1)
    return entries


def branch_candidates(
    model: WorldModel,
    starts: Starts,
    entries: Tensor,
    plan: Plan,
    settings: PostTrainingConfig,
    index: tuple[int, ...],
    seed: int,
    step: int,
    sample_batch: int = 0,
) -> Samples:
    """S2: K candidates of F chunks from each group's frozen prefix, each on a private copy of the buffer."""
    groups, count = len(plan.prefixes), settings.candidates
    every = torch.arange(groups).repeat_interleave(count)
    starts, entries = starts.take(every), entries[every]
    done = [plan.prefixes[g] for g in every.tolist()]
    shape = (model.config.future, *starts.first.shape[1:])
    chunks, conditions = [], []
    for number in range(settings.branch):
        condition = chunk_condition(entries, starts, done, index, shape[0])
        names = [(plan.first_group + i // count, i % count) for i in range(groups * count)]
        noise = torch.stack([normal(shape, seed, "branch", step, group, k, number) for group, k in names])
        chunk = sample_in_parts(model, condition, noise, settings.sampler, settings.precision, sample_batch)
        chunks.append(chunk)
        conditions.append(condition)
        done = [d + 1 for d in done]
        entries = torch.cat([entries, torch.zeros_like(entries[:, :1])], dim=1)
        entries[torch.arange(len(done)), torch.tensor(done)] = chunk[:, -1]
    stacked = torch.stack(chunks, dim=1)
    return Samples(stacked.reshape(groups, count, *stacked.shape[1:]), tuple(conditions), plan.first_group)


def target_rows(plan: Plan, group: int, branch: int) -> list[int]:
    """The ground-truth frames that a group's candidates are scored against: L rows for each of the F chunks."""
    first = plan.first_rows[group] + CHUNK_STRIDE * plan.prefixes[group]
    return [first + CHUNK_STRIDE * f + k for f in range(branch) for k in range(CHUNK_STRIDE + 1)]

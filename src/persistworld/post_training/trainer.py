"""Post-training of a world model on its own rollouts (paper 3.2-3.4, Algorithm 1), in one process or several.

Each process has its part of a step's groups; gradients are summed before they are clipped, so that all processes take the same step.
"""

import time
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import astuple, dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from persistworld.config.compute import PostTrainingCompute
from persistworld.config.post_training import PostTrainingConfig
from persistworld.data.latents import LatentStore
from persistworld.data.manifest import Entry
from persistworld.post_training.groups import (
    Plan,
    Samples,
    branch_candidates,
    group_starts,
    plan_groups,
    roll_prefixes,
    target_rows,
)
from persistworld.post_training.objective import nft_loss, reward_weights, select_best_and_worst
from persistworld.post_training.rewards import RewardModel, Rewards, latent_rewards
from persistworld.post_training.streams import Streams, plan_streams
from persistworld.post_training.targets import TargetImages
from persistworld.runtime.distributed import gathered, own_groups, processes, sum_gradients
from persistworld.runtime.progress import track
from persistworld.runtime.randomness import generator
from persistworld.training.log import TrainingLog
from persistworld.training.optimizers import MatrixOptimizer, ema_update, learning_rate_share
from persistworld.training.policy import Policy
from persistworld.training.state import load_state, save_state
from persistworld.world_model import edm
from persistworld.world_model.model import Condition, WorldModel, autocast


@dataclass(frozen=True)
class Data:
    """Where episodes come from: latents, the training split, and ground-truth images by (episode, rows)."""

    store: LatentStore
    episodes: Sequence[Entry]
    images: TargetImages


@dataclass
class Clock:
    """Seconds per phase of a step, in this process."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def phase(self, name: str):
        began = time.perf_counter()
        yield
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.seconds[f"seconds_{name}"] = round(time.perf_counter() - began, 4)


def train(
    base: WorldModel,
    reward_model: RewardModel,
    data: Data,
    settings: PostTrainingConfig,
    history_index: tuple[int, ...],
    seed: int,
    run_folder: Path,
    digest: str,
    compute: PostTrainingCompute = PostTrainingCompute(),
) -> dict[str, Tensor]:
    """Run Algorithm 1 for `settings.steps` steps; returns the trained weights (adapter and action encoder).

    A killed run goes on at its last saved step and ends with the same bytes, with another number of processes up to
    rounding. One log row a step in run_folder. The first process alone writes.
    """
    own, writes = own_groups(settings.groups), processes().is_main_process
    policy = Policy(base, settings.lora, settings.train_action_encoder, seed, compute)
    average = {n: p.detach().clone() for n, p in policy.theta.items()}
    optimizer = MatrixOptimizer(policy.theta.values(), settings.optimizer)
    streams = Streams(own, settings.prefix[1], data.store.latents(data.episodes[0].index, [0])[0].to(base.device))
    start = restore(run_folder, digest, policy, average, optimizer, streams)
    log = TrainingLog(run_folder, start, writes)

    for step in track(range(start, settings.steps), settings.steps, "post-training", start):
        clock = Clock()
        draw_plan = plan_streams if settings.streams else plan_groups
        whole = draw_plan(data.episodes, settings, base.config.future, seed, step, settings.groups)
        plan = whole.take(own)
        sampler = policy.merged(policy.theta if settings.sampling_policy == "theta" else policy.old)
        starts = group_starts(sampler, data.store, plan, settings.branch)
        with clock.phase("prefix"):
            if settings.streams:
                entries = streams.begin(starts, plan)
            else:
                entries = roll_prefixes(sampler, starts, plan, settings, history_index, seed, step, compute.sample_batch)
        with clock.phase("branch"):
            samples = branch_candidates(sampler, starts, entries, plan, settings, history_index, seed, step, compute.sample_batch)
            if settings.streams:
                streams.advance(samples, plan, seed, step)
        with clock.phase("reward"):
            rewards = score_groups(reward_model, data, plan, samples)
        with clock.phase("update"):
            losses = update(policy, samples, rewards, whole.prefixes, settings, seed, step, compute.train_batch)
            sum_gradients(policy.theta.values())
            share = learning_rate_share(step, settings.steps, decay_from=settings.optimizer.decay_from)
            norm = optimizer.step(share)
            decay = min(settings.old_ema_slope * step, settings.old_ema_max)
            ema_update(policy.old.values(), policy.theta.values(), decay)
            ema_update(average.values(), policy.theta.values(), min(settings.weight_ema, step / (step + 1)))
        clips = torch.stack(gathered([reward.clip.cpu() for reward in rewards]))
        losses = Losses(*map(sum, zip(*map(astuple, gathered([losses])), strict=True)))
        log.append(log_row(step, whole, clips, losses, norm, clock))
        if (step + 1) % compute.save_every == 0 or step + 1 == settings.steps:
            buffers = streams.state()
            if writes:
                save(run_folder, step + 1, digest, policy, average, optimizer, buffers)
    log.close()
    return average if settings.weight_ema > 0 else {n: p.detach() for n, p in policy.theta.items()}


def score_groups(reward_model: RewardModel, data: Data, plan: Plan, samples: Samples) -> list[Rewards]:
    """S3: each of the plan's groups' candidates against its ground-truth frames."""
    branch = samples.chunks.shape[2]
    scored = []
    for group, entry in enumerate(plan.episodes):
        candidates, rows = samples.chunks[group].flatten(1, 2), target_rows(plan, group, branch)
        if reward_model.settings.credit == "latent":
            truth = data.store.latents(entry.index, rows).to(candidates.device)
            scored.append(latent_rewards(candidates, truth, len(reward_model.view_weights)))
        else:
            scored.append(reward_model.score(candidates, reward_model.target(data.images(entry.index, rows))))
    return scored


@dataclass(frozen=True)
class Losses:
    """Means over the step's kept samples: the objective with its KL term, and squared drift of theta's predictions from old and base.

    The drift from the base is taken on some of them alone (`anchor`): it costs a forward pass. Of several processes, each has
    its samples' part of the means.
    """

    loss: float
    drift_old: float
    drift_base: float


@dataclass(frozen=True)
class Kept:
    """The kept candidates' chunks of a process's groups, one row each: x0 (N, L, C, Vh, w), its condition, r, sigma, noise."""

    x0: Tensor
    condition: Condition
    r: Tensor
    sigma: Tensor
    noise: Tensor


def keep_candidates(
    samples: Samples, rewards: list[Rewards], settings: PostTrainingConfig, seed: int, step: int
) -> Kept:
    """Eq. 6 and 7 in each group, N best and N worst; sigma and noise drawn per sample, or per group when shared."""
    count, branch, frames = samples.chunks.shape[1:4]
    rows = []
    for place, reward in enumerate(rewards):
        group = samples.first_group + place
        r = reward_weights(reward.credit, settings.reward.epsilon, reward.views)
        r = r.expand(-1, branch * frames, *r.shape[2:]).unflatten(1, (branch, frames))
        for k in select_best_and_worst(reward.clip, settings.keep).tolist():
            for f in range(branch):
                rng = generator(seed, "noising", step, group, -1 if settings.shared_noise else k, f)
                sigma = edm.sample_log_normal((1,), settings.sigma_mean, settings.sigma_std, rng)
                noise = torch.randn(samples.chunks.shape[3:], generator=rng)
                condition = samples.conditions[f].take(slice(place * count + k, place * count + k + 1))
                rows.append((samples.chunks[place, k, f], condition, r[k, f], sigma, noise))
    x0, conditions, r, sigma, noise = zip(*rows, strict=True)
    device = samples.chunks.device
    return Kept(torch.stack(x0), concatenate(conditions), torch.stack(r), torch.cat(sigma).to(device), torch.stack(noise).to(device))


def update(
    policy: Policy,
    samples: Samples,
    rewards: list[Rewards],
    prefixes: Sequence[int],
    settings: PostTrainingConfig,
    seed: int,
    step: int,
    train_batch: int,
) -> Losses:
    """S4: accumulate the gradient of Eq. 2 (and of the KL term) over the kept candidates, a part at a time.

    prefixes: of all processes' groups. Means are over all their samples, as each group keeps as many: gradients and losses add up.
    """
    kept = keep_candidates(samples, rewards, settings, seed, step)
    old = None if settings.old_is_theta else policy.merged(policy.old)
    per_group = len(kept.x0) // len(rewards)
    count, first = per_group * settings.groups, per_group * samples.first_group
    compared, kl_weight = anchor(prefixes, per_group, settings)
    totals = {"loss": 0.0, "drift_old": 0.0, "drift_base": 0.0}
    for rows in torch.arange(len(kept.x0)).split(train_batch):
        x0, sigma, condition = kept.x0[rows], kept.sigma[rows], kept.condition.take(rows)
        x_sigma = x0 + sigma.reshape(-1, 1, 1, 1, 1) * kept.noise[rows]
        asked = compared[first + rows]
        with autocast(x0.device, settings.precision):
            x0_theta = policy.model.predict_x0(x_sigma, sigma, policy.model.context(condition))
            with torch.no_grad():
                x0_old = x0_theta.detach() if old is None else old.predict_x0(x_sigma, sigma, old.context(condition))
        loss = nft_loss(x0_theta, x0_old, x0, kept.r[rows], settings.beta, settings.loss_weighting, sigma).sum() / count
        totals["drift_old"] += squared_distance(x0_theta, x0_old).sum().item() / count
        if asked.any():
            with torch.no_grad(), autocast(x0.device, settings.precision):
                context = policy.base.context(condition.take(asked))
                x0_base = policy.base.predict_x0(x_sigma[asked], sigma[asked], context)
            from_base = squared_distance(x0_theta[asked], x0_base).sum() / compared.sum()
            loss = loss + kl_weight * from_base
            totals["drift_base"] += from_base.item()
        loss.backward()
        totals["loss"] += loss.item()
    return Losses(**totals)


def anchor(prefixes: Sequence[int], per_group: int, settings: PostTrainingConfig) -> tuple[Tensor, float]:
    """Which of a step's kept samples the base is asked about, too, bool (G * per_group,), and the weight of their mean distance from it.

    They are those with a prefix of at most `kl_prefix`; where there is none, or no KL term, the first alone, for the log.
    """
    near = torch.tensor(prefixes) <= (settings.prefix[1] if settings.kl_prefix == -1 else settings.kl_prefix)
    if settings.kl_weight == 0 or not near.any():
        return torch.arange(len(prefixes) * per_group) == 0, 0.0
    return near.repeat_interleave(per_group), settings.kl_weight


def squared_distance(a: Tensor, b: Tensor) -> Tensor:
    """Mean squared difference per sample (N,) of (N, L, C, Vh, w)."""
    return ((a - b) ** 2).mean(dim=(1, 2, 3, 4))


def concatenate(conditions: Sequence[Condition]) -> Condition:
    """Conditions one after the other, along the batch."""
    text = None if conditions[0].text is None else torch.cat([c.text for c in conditions])
    fields = [torch.cat([getattr(c, n) for c in conditions]) for n in ("history", "current", "poses")]
    return Condition(*fields, text)


def log_row(
    step: int, plan: Plan, clip: Tensor, losses: Losses, norm: float, clock: Clock
) -> dict[str, float]:
    """One row of the training log. clip: all groups' rewards (G, K), Eq. 5; of latents when they get the credit."""
    return {
        "step": step,
        "prefix_mean": sum(plan.prefixes) / len(plan.prefixes),
        "reward_mean": clip.mean().item(),
        "reward_std": clip.std(dim=1, correction=0).mean().item(),
        "reward_best": clip.max(dim=1).values.mean().item(),
        "reward_worst": clip.min(dim=1).values.mean().item(),
        "loss": losses.loss,
        "gradient_norm": norm,
        "drift_old": losses.drift_old,
        "drift_base": losses.drift_base,
        **clock.seconds,
    }


def save(
    folder: Path,
    step: int,
    digest: str,
    policy: Policy,
    average: dict[str, Tensor],
    optimizer: MatrixOptimizer,
    streams: Tensor,
) -> None:
    """theta, old, average, optimiser and streams each on their own: none can be had from another."""
    theta = {n: p.detach() for n, p in policy.theta.items()}
    state = {"theta": theta, "old": policy.old, "average": average, "optimizer": optimizer.state_dict(), "streams": streams}
    save_state(folder, step, digest, state)


def restore(
    folder: Path,
    digest: str,
    policy: Policy,
    average: dict[str, Tensor],
    optimizer: MatrixOptimizer,
    streams: Streams,
) -> int:
    """Load the newest state, if there is one; returns the step to go on at."""
    state = load_state(folder, digest)
    if state is None:
        return 0
    with torch.no_grad():
        for own, saved in ((policy.theta, "theta"), (policy.old, "old"), (average, "average")):
            for name, tensor in own.items():
                tensor.copy_(state[saved][name])
    optimizer.load_state_dict(state["optimizer"])
    streams.load(state["streams"])
    return state["step"]

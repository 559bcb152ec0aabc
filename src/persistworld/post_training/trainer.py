"""Post-training of a world model on its own rollouts (paper 3.2-3.4, Algorithm 1), in one process or several.

Each process handles its share of a step's groups. Gradients are summed before clipping, so that all processes take the same step.
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
from persistworld.config.world_model import RolloutConfig
from persistworld.data.latents import LatentStore
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
from persistworld.post_training.objective import nft_loss, reward_weights, select_best_and_worst
from persistworld.post_training.rewards import RewardModel, Rewards, latent_rewards
from persistworld.post_training.streams import advance_streams, begin_streams, load_streams, plan_streams, streams_state
from persistworld.post_training.targets import TargetImages
from persistworld.runtime.distributed import gathered, own_groups, sum_gradients
from persistworld.runtime.progress import track
from persistworld.runtime.randomness import generator
from persistworld.training.optimizers import MatrixOptimizer, ema_update, learning_rate_share
from persistworld.training.policy import Policy
from persistworld.training.resumable import TrainingRun, Weights
from persistworld.world_model import edm
from persistworld.world_model.model import Condition, WorldModel, autocast


@dataclass(frozen=True)
class Data:
    """The training data: latents, the episodes of the training split, and ground-truth images by (episode, rows)."""

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
    rollout: RolloutConfig,
    seed: int,
    run_folder: Path,
    digest: str,
    compute: PostTrainingCompute = PostTrainingCompute(),
) -> Weights:
    """Run Algorithm 1 for `settings.steps` steps; returns the trained weights (adapter and action encoder).

    A killed run resumes at its last saved step and ends with the same bytes. With another number of processes the results agree up to
    rounding. The log in `run_folder` has one row per step. Only the first process writes.
    """
    own = own_groups(settings.groups)
    policy = Policy(base, settings.lora, settings.train_action_encoder, seed, compute)
    optimizer = MatrixOptimizer(policy.theta.values(), settings.optimizer)
    averaged, copies = settings.weight_ema > 0, {"old": policy.old}
    run = TrainingRun(run_folder, digest, settings.steps, compute.save_every, optimizer, policy.theta, averaged, copies)
    rollouts = empty_rollouts(policy.base, settings, rollout, compute.sample_batch)
    if "streams" in run.restored:
        load_streams(rollouts, run.restored["streams"], own)

    for step in track(range(run.start, settings.steps), settings.steps, "post-training", run.start):
        clock = Clock()
        draw_plan = plan_streams if settings.streams else plan_groups
        whole = draw_plan(data.episodes, settings, base.config.future, seed, step, settings.groups)
        plan = whole.take(own)
        rollouts.model = policy.merged(policy.theta if settings.sampling_policy == "theta" else policy.old)
        with clock.phase("prefix"):
            if settings.streams:
                begin_streams(rollouts, data.store, plan, seed)
            else:
                roll_prefixes(rollouts, data.store, plan, seed, step)
        with clock.phase("branch"):
            samples = branch_candidates(rollouts, data.store, plan, settings, seed, step)
            if settings.streams:
                advance_streams(rollouts, samples, seed, step)
        with clock.phase("reward"):
            rewards = score_groups(reward_model, data, plan, samples)
        with clock.phase("update"):
            losses = update(policy, samples, rewards, whole.prefixes, settings, seed, step, compute.train_batch)
            sum_gradients(policy.theta.values())
            norm = optimizer.step(learning_rate_share(step, settings.steps, decay_from=settings.optimizer.decay_from))
            ema_update(policy.old.values(), policy.theta.values(), min(settings.old_ema_slope * step, settings.old_ema_max))
            run.update_average(min(settings.weight_ema, step / (step + 1)))
        clips = torch.stack(gathered([reward.clip.cpu() for reward in rewards]))
        losses = Losses(*map(sum, zip(*map(astuple, gathered([losses])), strict=True)))
        row = log_row(step, whole, clips, losses, norm, clock)
        run.end_step(row, (lambda: {"streams": streams_state(rollouts)}) if settings.streams else dict)
    return run.result()


def score_groups(reward_model: RewardModel, data: Data, plan: Plan, samples: Samples) -> list[Rewards]:
    """S3: score the candidates of each group in the plan against the group's ground-truth frames."""
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
    """Means over the kept samples of a step.

    loss: the objective with its KL term; drift_old, drift_base: squared distance of theta's predictions from those of old and base.
    The drift from the base costs a forward pass, so it is measured on some samples only (`anchor`). With several processes, each process
    holds the contribution of its own samples, and the sum over processes is the mean.
    """

    loss: float
    drift_old: float
    drift_base: float


@dataclass(frozen=True)
class Kept:
    """Chunks of the kept candidates of a process's groups, one row per chunk: x0 (N, L, C, Vh, w), condition, r, sigma and noise."""

    x0: Tensor
    condition: Condition
    r: Tensor
    sigma: Tensor
    noise: Tensor


def keep_candidates(
    samples: Samples, rewards: list[Rewards], settings: PostTrainingConfig, seed: int, step: int
) -> Kept:
    """Keep the N best and N worst candidates of each group, with their reward weights (Eq. 6 and 7).

    Sigma and noise are drawn per sample, or per group with `shared_noise`.
    """
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
    """S4: accumulate the gradient of Eq. 2 (and of the KL term) over the kept candidates, `train_batch` chunks at a time.

    prefixes: prefix lengths of the groups of all processes. Losses are divided by the number of samples in all processes, so that gradients
    and losses can be summed over processes. Every group keeps the same number of samples.
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
        near = compared[first + rows]
        with autocast(x0.device, settings.precision):
            x0_theta = policy.model.predict_x0(x_sigma, sigma, policy.model.context(condition))
            with torch.no_grad():
                x0_old = x0_theta.detach() if old is None else old.predict_x0(x_sigma, sigma, old.context(condition))
        loss = nft_loss(x0_theta, x0_old, x0, kept.r[rows], settings.beta, settings.loss_weighting, sigma).sum() / count
        totals["drift_old"] += squared_distance(x0_theta, x0_old).sum().item() / count
        if near.any():
            distance = distance_from_base(policy, x0_theta, x_sigma, sigma, condition, near, settings.precision)
            from_base = distance / compared.sum()
            loss = loss + kl_weight * from_base
            totals["drift_base"] += from_base.item()
        loss.backward()
        totals["loss"] += loss.item()
    return Losses(**totals)


def anchor(prefixes: Sequence[int], per_group: int, settings: PostTrainingConfig) -> tuple[Tensor, float]:
    """Mask (G * per_group,) of the samples that enter the KL-to-base term, and the weight of that term.

    These are the samples whose prefix is at most `kl_prefix`. If there are no such samples, or no KL term, the mask selects only the first
    sample, and the weight is 0: its distance is only logged.
    """
    near = torch.tensor(prefixes) <= (settings.prefix[1] if settings.kl_prefix == -1 else settings.kl_prefix)
    if settings.kl_weight == 0 or not near.any():
        return torch.arange(len(prefixes) * per_group) == 0, 0.0
    return near.repeat_interleave(per_group), settings.kl_weight


def distance_from_base(
    policy: Policy, x0_theta: Tensor, x_sigma: Tensor, sigma: Tensor, condition: Condition, near: Tensor, precision: str
) -> Tensor:
    """Sum of the squared distances between theta's predictions and the base's, over the samples that `near` (N,) selects."""
    with torch.no_grad(), autocast(x_sigma.device, precision):
        x0_base = policy.base.predict_x0(x_sigma[near], sigma[near], policy.base.context(condition.take(near)))
    return squared_distance(x0_theta[near], x0_base).sum()


def squared_distance(a: Tensor, b: Tensor) -> Tensor:
    """Mean squared difference per sample (N,) of (N, L, C, Vh, w)."""
    return ((a - b) ** 2).mean(dim=(1, 2, 3, 4))


def concatenate(conditions: Sequence[Condition]) -> Condition:
    """Conditions concatenated along the batch."""
    text = None if conditions[0].text is None else torch.cat([c.text for c in conditions])
    fields = [torch.cat([getattr(c, n) for c in conditions]) for n in ("history", "current", "poses")]
    return Condition(*fields, text)


def log_row(
    step: int, plan: Plan, clip: Tensor, losses: Losses, norm: float, clock: Clock
) -> dict[str, float]:
    """One row of the training log. clip: the rewards (G, K) of all groups (Eq. 5, or the latent reward with `credit: latent`)."""
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

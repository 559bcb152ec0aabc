"""Trains the control `own_history`: supervision on the model's own rollouts, without a reward.

The history is the model's own, as in post-training. Noise is added to the model's own sample, and the prediction is regressed to the
recorded chunk. The control has as many U-Net evaluations as post-training, and a learning rate and an anchor of its own.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from persistworld.config.compute import PostTrainingCompute
from persistworld.config.post_training import PostTrainingConfig
from persistworld.config.training import OwnHistoryConfig
from persistworld.config.world_model import RolloutConfig
from persistworld.data.latents import LatentStore
from persistworld.data.manifest import Entry
from persistworld.post_training.cost import own_history_settings
from persistworld.post_training.groups import Plan, Samples, branch_candidates, empty_rollouts, plan_groups, roll_prefixes, target_rows
from persistworld.post_training.streams import advance_streams, begin_streams, load_streams, plan_streams, streams_state
from persistworld.post_training.trainer import anchor, distance_from_base
from persistworld.runtime.distributed import gathered, own_groups, sum_gradients
from persistworld.runtime.progress import track
from persistworld.runtime.randomness import generator
from persistworld.training.optimizers import MatrixOptimizer, learning_rate_share
from persistworld.training.policy import Policy
from persistworld.training.resumable import TrainingRun, Weights
from persistworld.world_model import edm
from persistworld.world_model.model import WorldModel, autocast


def train_own_history(
    base: WorldModel,
    store: LatentStore,
    episodes: Sequence[Entry],
    post_training: PostTrainingConfig,
    control: OwnHistoryConfig,
    rollout: RolloutConfig,
    steps: int,
    seed: int,
    run_folder: Path,
    digest: str,
    compute: PostTrainingCompute = PostTrainingCompute(),
) -> Weights:
    """Train the adapter and the action encoder for `steps` steps; returns the trained weights, as `post_training.trainer.train` does.

    `post_training` says which weights are trained, how they are averaged, and how rollouts, prefixes and noise levels are drawn. A killed
    run resumes at its last saved step and ends with the same bytes.
    """
    settings = own_history_settings(post_training, control.kl_weight)
    own = own_groups(settings.groups)
    policy = Policy(base, settings.lora, settings.train_action_encoder, seed, compute)
    optimizer = MatrixOptimizer(policy.theta.values(), control.optimizer)
    run = TrainingRun(run_folder, digest, steps, compute.save_every, optimizer, policy.theta, settings.weight_ema > 0)
    rollouts = empty_rollouts(policy.base, settings, rollout, compute.sample_batch)
    if "streams" in run.restored:
        load_streams(rollouts, run.restored["streams"], own)

    for step in track(range(run.start, steps), steps, "own history", run.start):
        draw_plan = plan_streams if settings.streams else plan_groups
        whole = draw_plan(episodes, settings, base.config.future, seed, step, settings.groups)
        plan = whole.take(own)
        rollouts.model = policy.merged(policy.theta)
        if settings.streams:
            begin_streams(rollouts, store, plan, seed)
        else:
            roll_prefixes(rollouts, store, plan, seed, step)
        samples = branch_candidates(rollouts, store, plan, settings, seed, step)
        if settings.streams:
            advance_streams(rollouts, samples, seed, step)
        loss = accumulate_gradient(policy, samples, recorded_chunks(store, plan), whole.prefixes, settings, seed, step, compute.train_batch)
        sum_gradients(policy.theta.values())
        norm = optimizer.step(learning_rate_share(step, steps, decay_from=control.optimizer.decay_from))
        run.update_average(min(settings.weight_ema, step / (step + 1)))
        row = {"step": step, "loss": sum(gathered([loss])), "gradient_norm": norm}
        run.end_step(row, (lambda: {"streams": streams_state(rollouts)}) if settings.streams else dict)
    return run.result()


def recorded_chunks(store: LatentStore, plan: Plan) -> Tensor:
    """The recorded latents (G, L, C, Vh, w) of the chunk that each group's sample predicts."""
    return torch.stack([store.latents(entry.index, target_rows(plan, group, 1)) for group, entry in enumerate(plan.episodes)])


def accumulate_gradient(
    policy: Policy,
    samples: Samples,
    truth: Tensor,
    prefixes: Sequence[int],
    settings: PostTrainingConfig,
    seed: int,
    step: int,
    train_batch: int,
) -> float:
    """Accumulate the gradient of the mean over groups of w(sigma) (x0_theta(sample + sigma noise) - truth)^2, and of the KL term.

    w is the base model's training weight (edm.loss_weight). Returns the part of the loss that comes from this process's groups.
    """
    sampled, device = samples.chunks[:, 0, 0], samples.chunks.device
    rngs = [generator(seed, "noising", step, samples.first_group + group) for group in range(len(sampled))]
    sigma = torch.cat([edm.sample_log_normal((1,), settings.sigma_mean, settings.sigma_std, rng) for rng in rngs]).to(device)
    noise = torch.stack([torch.randn(sampled.shape[1:], generator=rng) for rng in rngs]).to(device)
    x_sigma, truth = sampled + sigma.reshape(-1, 1, 1, 1, 1) * noise, truth.to(device)
    compared, kl_weight = anchor(prefixes, 1, settings)
    total = 0.0
    for rows in torch.arange(len(sampled)).split(train_batch):
        condition, near = samples.conditions[0].take(rows), compared[samples.first_group + rows]
        with autocast(device, settings.precision):
            x0_theta = policy.model.predict_x0(x_sigma[rows], sigma[rows], policy.model.context(condition))
        errors = ((x0_theta - truth[rows]) ** 2).mean(dim=(1, 2, 3, 4)) * edm.loss_weight(sigma[rows])
        loss = errors.sum() / settings.groups
        if kl_weight and near.any():
            from_base = distance_from_base(policy, x0_theta, x_sigma[rows], sigma[rows], condition, near, settings.precision)
            loss = loss + kl_weight * from_base / compared.sum()
        loss.backward()
        total += loss.item()
    return total

"""Trains the control: more teacher forcing of the same weights with the same compute as post-training, never on the model's own history."""

import dataclasses
from pathlib import Path

from persistworld.config.compute import PostTrainingCompute
from persistworld.config.post_training import PostTrainingConfig
from persistworld.config.training import BaseTrainingConfig, ControlConfig
from persistworld.data.windows import WindowSource
from persistworld.runtime.distributed import average_gradients, mean_over_processes
from persistworld.runtime.progress import track
from persistworld.training.optimizers import MatrixOptimizer, learning_rate_share
from persistworld.training.policy import Policy
from persistworld.training.resumable import TrainingRun, Weights
from persistworld.training.teacher_forcing import Materials, accumulate_gradient
from persistworld.world_model.model import WorldModel


def train_control(
    base: WorldModel,
    windows: WindowSource,
    settings: PostTrainingConfig,
    training: BaseTrainingConfig,
    control: ControlConfig,
    steps: int,
    seed: int,
    run_folder: Path,
    digest: str,
    compute: PostTrainingCompute = PostTrainingCompute(),
) -> Weights:
    """Train the adapter and the action encoder by teacher forcing; returns the trained weights, as `post_training.trainer.train` does.

    `settings` says which weights are trained and how they are averaged; `training` describes windows and loss. Batch and optimizer are in
    `control`: the control has its own tuned learning rate, so that it is a fair baseline. Several processes share every batch.
    """
    training = dataclasses.replace(training, batch=control.batch)
    policy = Policy(base, settings.lora, settings.train_action_encoder, seed, compute)
    optimizer = MatrixOptimizer(policy.theta.values(), control.optimizer)
    run = TrainingRun(run_folder, digest, steps, compute.save_every, optimizer, policy.theta, settings.weight_ema > 0)

    materials = Materials(base, windows, training, seed, "teacher_forcing")
    for step in track(range(run.start, steps), steps, "teacher forcing", run.start):
        batch, sentences, draws = materials[step]
        loss = accumulate_gradient(policy.model, batch, sentences, draws, training, compute.train_batch, "control.batch")
        average_gradients(policy.theta.values())
        loss = mean_over_processes(loss).item()
        norm = optimizer.step(learning_rate_share(step, steps, decay_from=control.optimizer.decay_from))
        run.update_average(min(settings.weight_ema, step / (step + 1)))
        run.end_step({"step": step, "loss": loss, "gradient_norm": norm})
    return run.result()

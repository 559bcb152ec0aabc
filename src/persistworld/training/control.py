"""The control: teacher forcing goes on, with post-training's parameters and compute, but never on the model's own history."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from persistworld.config.compute import PostTrainingCompute
from persistworld.config.post_training import PostTrainingConfig
from persistworld.config.training import BaseTrainingConfig, ControlConfig
from persistworld.data.latents import LatentStore
from persistworld.data.manifest import Entry
from persistworld.runtime.distributed import average_gradients, mean_over_processes, processes
from persistworld.runtime.progress import track
from persistworld.training.log import TrainingLog
from persistworld.training.optimizers import MatrixOptimizer, ema_update, learning_rate_share
from persistworld.training.policy import Policy
from persistworld.training.state import load_state, save_state
from persistworld.training.teacher_forcing import Materials, accumulate_gradient
from persistworld.world_model.model import WorldModel


def train_control(
    base: WorldModel,
    store: LatentStore,
    episodes: Sequence[Entry],
    settings: PostTrainingConfig,
    training: BaseTrainingConfig,
    control: ControlConfig,
    steps: int,
    history_index: tuple[int, ...],
    seed: int,
    run_folder: Path,
    digest: str,
    compute: PostTrainingCompute = PostTrainingCompute(),
) -> dict[str, Tensor]:
    """Teacher-forced training of the adapter and the action encoder; returns the trained weights, as `trainer.train`.

    What is trained, and how long, is post-training's (`settings`); on what, base training's (`training`). Batch and optimiser are its own
    (`control`): a rate that suits one objective may hurt the other, and a control that is hurt is none.
    Several processes share every batch; the first one alone writes.
    """
    training = dataclasses.replace(training, batch=control.batch)
    policy = Policy(base, settings.lora, settings.train_action_encoder, seed, compute)
    average = {n: p.detach().clone() for n, p in policy.theta.items()}
    optimizer = MatrixOptimizer(policy.theta.values(), control.optimizer)
    start = 0
    if (state := load_state(run_folder, digest)) is not None:
        start = state["step"]
        with torch.no_grad():
            for name, tensor in policy.theta.items():
                tensor.copy_(state["theta"][name])
                average[name].copy_(state["average"][name])
        optimizer.load_state_dict(state["optimizer"])
    writes = processes().is_main_process
    log = TrainingLog(run_folder, start, writes)

    materials = Materials(base, store, episodes, training, history_index, seed, "teacher_forcing")
    for step in track(range(start, steps), steps, "teacher forcing", start):
        batch, sentences, draws = materials[step]
        loss = accumulate_gradient(policy.model, batch, sentences, draws, training, compute.train_batch, "control.batch")
        average_gradients(policy.theta.values())
        loss = mean_over_processes(loss).item()
        share = learning_rate_share(step, steps, decay_from=control.optimizer.decay_from)
        norm = optimizer.step(share)
        ema_update(average.values(), policy.theta.values(), min(settings.weight_ema, step / (step + 1)))
        log.append({"step": step, "loss": loss, "gradient_norm": norm})
        if writes and ((step + 1) % compute.save_every == 0 or step + 1 == steps):
            theta = {n: p.detach() for n, p in policy.theta.items()}
            state = {"theta": theta, "average": average, "optimizer": optimizer.state_dict()}
            save_state(run_folder, step + 1, digest, state)
    log.close()
    return average if settings.weight_ema > 0 else {n: p.detach() for n, p in policy.theta.items()}

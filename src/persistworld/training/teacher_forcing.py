"""Trains a world model by teacher forcing, resumable to the same bytes."""

import copy
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from persistworld.config import reading as configuration
from persistworld.config.compute import BaseTrainingCompute
from persistworld.config.training import BaseTrainingConfig
from persistworld.data.latents import LatentStore
from persistworld.data.manifest import Entry
from persistworld.data.windows import Batch, draw_window, read_batch
from persistworld.runtime.distributed import average_gradients, mean_over_processes, on_device, own_share, processes
from persistworld.runtime.errors import UserError
from persistworld.runtime.progress import track
from persistworld.runtime.randomness import generator
from persistworld.training.log import TrainingLog
from persistworld.training.loss import Draws, draw, teacher_forcing_loss
from persistworld.training.optimizers import MatrixOptimizer, ema_update, learning_rate_share
from persistworld.training.state import load_state, save_state
from persistworld.world_model.compiler import require_compiler
from persistworld.world_model.model import WorldModel, autocast


def train_world_model(
    model: WorldModel,
    store: LatentStore,
    episodes: Sequence[Entry],
    training: BaseTrainingConfig,
    history_index: tuple[int, ...],
    seed: int,
    run_folder: Path,
    compute: BaseTrainingCompute = BaseTrainingCompute(),
) -> WorldModel:
    """Train all of `model`; returns its exponential moving average (or itself, without one). State is kept in `run_folder`."""
    average = copy.deepcopy(model)
    optimizer = MatrixOptimizer(model.parameters(), training.optimizer)
    data = hashlib.sha256(repr((tuple(episodes), history_index)).encode()).hexdigest()[:16]
    digest = f"{configuration.digest(training)}-{configuration.digest(model.config)}-{data}-{seed}"
    start = 0
    if (state := load_state(run_folder, digest)) is not None:
        start = state["step"]
        model.load_state_dict(state["model"])
        average.load_state_dict(state["average"])
        optimizer.load_state_dict(state["optimizer"])

    model.train()
    if compute.gradient_checkpointing:
        model.unet.enable_gradient_checkpointing()
    if compute.torch_compile != "none":
        require_compiler("compute.base_training.torch_compile", compute.torch_compile)
        model.unet.compile(dynamic=False, mode=compute.torch_compile)
    recent: list[float] = []
    writes = processes().is_main_process
    log = TrainingLog(run_folder, start, writes)
    materials = Materials(model, store, episodes, training, history_index, seed, "base_training", compute.readers)
    for step, (batch, sentences, draws) in enumerate(track(materials.from_step(start), training.steps, "base training", start), start):
        loss = accumulate_gradient(model, batch, sentences, draws, training, compute.train_batch or training.batch)
        average_gradients(model.parameters())
        norm = optimizer.step(learning_rate_share(step, training.steps, training.warmup, training.optimizer.decay_from))
        # The decay rises from 0.1, so that the random start is soon forgotten.
        decay = min(training.weight_ema, (step + 1) / (step + 10))
        ema_update(average.parameters(), model.parameters(), decay)
        recent.append(mean_over_processes(loss).item())
        log.append({"step": step, "loss": recent[-1], "gradient_norm": norm})
        if (step + 1) % 50 == 0:
            if writes:
                print(f"base training step {step + 1}: loss {sum(recent) / len(recent):.4f}", flush=True)
            recent.clear()
        if (step + 1) % compute.save_every == 0 or step + 1 == training.steps:
            state = {"model": model.state_dict(), "average": average.state_dict(), "optimizer": optimizer.state_dict()}
            if writes:
                save_state(run_folder, step + 1, digest, state)
    log.close()
    return (average if training.weight_ema > 0 else model).eval().requires_grad_(False)


@dataclass(frozen=True)
class Materials(Dataset):
    """What each step is made of: its windows, their instructions and the draws of its loss. A function of the step alone."""

    model: WorldModel
    store: LatentStore
    episodes: Sequence[Entry]
    training: BaseTrainingConfig
    history_index: tuple[int, ...]
    seed: int
    purpose: str  # what is trained: trainings with one seed draw differently
    readers: int = 0  # processes that draw steps ahead

    def __len__(self) -> int:
        return self.training.steps

    def __getitem__(self, step: int) -> tuple[Batch, list[str], Draws]:
        rng = generator(self.seed, self.purpose, step)
        batch, sentences = draw_batch(self.model, self.store, self.episodes, self.training, self.history_index, rng)
        return batch, sentences, draw(batch.history, batch.future, self.training, rng)

    def from_step(self, start: int) -> Iterator[tuple[Batch, list[str], Draws]]:
        """The steps from `start` on in their order, drawn ahead by `readers` processes where there are any."""
        # A generator of its own: the loader would take a number from torch's global one. Forked: open shards cannot be sent to a process.
        rest, own, readers = range(start, len(self)), torch.Generator(), self.readers
        how = "fork" if readers else None
        try:
            yield from DataLoader(self, batch_size=None, sampler=rest, num_workers=readers, generator=own, multiprocessing_context=how)
        except UserError as error:  # a reader's comes at the end of its traceback
            raise UserError(str(error).rpartition(f"{UserError.__name__}: ")[2].strip()) from None


def draw_batch(
    model: WorldModel,
    store: LatentStore,
    episodes: Sequence[Entry],
    training: BaseTrainingConfig,
    history_index: tuple[int, ...],
    rng: torch.Generator,
) -> tuple[Batch, list[str]]:
    """Random windows of random episodes, and their instructions."""
    chosen = [episodes[i] for i in torch.randint(len(episodes), (training.batch,), generator=rng).tolist()]
    sizes = (model.config.history, model.config.future)
    windows = [(e.index, *draw_window(e.frames, training, *sizes, history_index, rng)) for e in chosen]
    return read_batch(store, windows, model.statistics.normalise), [e.instruction for e in chosen]


def accumulate_gradient(
    model: WorldModel,
    batch: Batch,
    sentences: list[str],
    draws: Draws,
    training: BaseTrainingConfig,
    part: int,
    key: str = "base_training.batch",
) -> Tensor:
    """The loss of this process's share of a batch, without its graph; its gradient is added up, `part` windows a backward pass.

    key: the parameter that says how many windows there are.
    """
    rows = own_share(len(batch.future), key)
    total = torch.zeros((), device=model.device)
    for start in range(rows.start, rows.stop, part):
        own = slice(start, min(start + part, rows.stop))
        loss = training_loss(own, model, batch, sentences, draws, training) * ((own.stop - own.start) / (rows.stop - rows.start))
        loss.backward()
        total += loss.detach()
    return total


def training_loss(
    rows: slice, model: WorldModel, batch: Batch, sentences: list[str], draws: Draws, training: BaseTrainingConfig
) -> Tensor:
    """The mean loss of a batch's `rows`; instructions are encoded with gradient: the text encoder is trained along."""
    batch, draws = on_device(batch.take(rows), model.device), on_device(draws.take(rows), model.device)
    with autocast(model.device, training.precision):
        text = None if model.text_encoder is None else model.text_encoder(sentences[rows])
        tokens = model.action_encoder(batch.poses, text)
        return teacher_forcing_loss(model, batch.history, batch.future, tokens, draws)

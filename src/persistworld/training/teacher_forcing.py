"""Trains a world model by teacher forcing."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from persistworld.config import reading as configuration
from persistworld.config.compute import BaseTrainingCompute
from persistworld.config.training import BaseTrainingConfig
from persistworld.data.windows import Batch, WindowSource, draw_window, read_batch
from persistworld.runtime.distributed import average_gradients, mean_over_processes, on_device, own_share
from persistworld.runtime.errors import UserError
from persistworld.runtime.progress import track
from persistworld.runtime.randomness import generator
from persistworld.training.loss import Draws, draw, teacher_forcing_loss
from persistworld.training.optimizers import MatrixOptimizer, learning_rate_share
from persistworld.training.resumable import TrainingRun
from persistworld.world_model.compiler import require_compiler
from persistworld.world_model.model import WorldModel, autocast


def train_world_model(
    model: WorldModel,
    windows: WindowSource,
    training: BaseTrainingConfig,
    seed: int,
    run_folder: Path,
    compute: BaseTrainingCompute = BaseTrainingCompute(),
) -> WorldModel:
    """Train all of `model`; returns it with its averaged weights (`weight_ema` > 0) or its last ones. Its state is in `run_folder`."""
    optimizer = MatrixOptimizer(model.parameters(), training.optimizer)
    data = hashlib.sha256(repr((tuple(windows.episodes), windows.history_index)).encode()).hexdigest()[:16]
    digest = f"{configuration.digest(training)}-{configuration.digest(model.config)}-{data}-{seed}"
    weights = dict(model.named_parameters())
    run = TrainingRun(run_folder, digest, training.steps, compute.save_every, optimizer, weights, training.weight_ema > 0)

    model.train()
    if compute.gradient_checkpointing:
        model.unet.enable_gradient_checkpointing()
    if compute.torch_compile != "none":
        require_compiler("compute.base_training.torch_compile", compute.torch_compile)
        model.unet.compile(dynamic=False, mode=compute.torch_compile)
    recent: list[float] = []
    materials = Materials(model, windows, training, seed, "base_training", compute.readers).from_step(run.start)
    for step, (batch, sentences, draws) in enumerate(track(materials, training.steps, "base training", run.start), run.start):
        loss = accumulate_gradient(model, batch, sentences, draws, training, compute.train_batch or training.batch)
        average_gradients(model.parameters())
        norm = optimizer.step(learning_rate_share(step, training.steps, training.warmup, training.optimizer.decay_from))
        # The decay rises from 0.1, so that the random start is soon forgotten.
        run.update_average(min(training.weight_ema, (step + 1) / (step + 10)))
        recent.append(mean_over_processes(loss).item())
        run.end_step({"step": step, "loss": recent[-1], "gradient_norm": norm})
        if (step + 1) % 50 == 0:
            if run.writes:
                print(f"base training step {step + 1}: loss {sum(recent) / len(recent):.4f}", flush=True)
            recent.clear()
    result = run.result()
    with torch.no_grad():
        for name, weight in weights.items():
            weight.copy_(result[name])
    return model.eval().requires_grad_(False)


@dataclass(frozen=True)
class Materials(Dataset):
    """The input of each step: its windows, their instructions and the draws of its loss. A function of the step alone."""

    model: WorldModel
    windows: WindowSource
    training: BaseTrainingConfig
    seed: int
    purpose: str  # what is trained: two trainings with one seed draw different numbers
    readers: int = 0  # processes that draw steps ahead

    def __len__(self) -> int:
        return self.training.steps

    def __getitem__(self, step: int) -> tuple[Batch, list[str], Draws]:
        rng = generator(self.seed, self.purpose, step)
        batch, sentences = draw_batch(self.model, self.windows, self.training, rng)
        return batch, sentences, draw(batch.history, batch.future, self.training, rng)

    def from_step(self, start: int) -> Iterator[tuple[Batch, list[str], Draws]]:
        """The steps from `start` on, in order. With `readers`, other processes draw them ahead."""
        # The loader gets its own generator, or it would draw from torch's global one. Processes fork: open shards cannot be pickled.
        rest, own, readers = range(start, len(self)), torch.Generator(), self.readers
        how = "fork" if readers else None
        try:
            yield from DataLoader(self, batch_size=None, sampler=rest, num_workers=readers, generator=own, multiprocessing_context=how)
        except UserError as error:  # from a reader, its message is the end of a traceback
            raise UserError(str(error).rpartition(f"{UserError.__name__}: ")[2].strip()) from None


def draw_batch(
    model: WorldModel, windows: WindowSource, training: BaseTrainingConfig, rng: torch.Generator
) -> tuple[Batch, list[str]]:
    """Random windows of random episodes, and their instructions."""
    chosen = [windows.episodes[i] for i in torch.randint(len(windows.episodes), (training.batch,), generator=rng).tolist()]
    sizes = (model.config.history, model.config.future)
    rows = [(e.index, *draw_window(e.frames, training, *sizes, windows.history_index, rng)) for e in chosen]
    return read_batch(windows.store, rows, model.statistics.normalise), [e.instruction for e in chosen]


def accumulate_gradient(
    model: WorldModel,
    batch: Batch,
    sentences: list[str],
    draws: Draws,
    training: BaseTrainingConfig,
    part: int,
    key: str = "base_training.batch",
) -> Tensor:
    """The loss of this process's share of a batch, detached. Gradients accumulate over backward passes of `part` windows each.

    key: the parameter that sets the size of the batch, for the error message.
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
    """The mean loss of these `rows` of a batch. The text encoder is trained, too: instructions are encoded with gradients."""
    batch, draws = on_device(batch.take(rows), model.device), on_device(draws.take(rows), model.device)
    with autocast(model.device, training.precision):
        text = None if model.text_encoder is None else model.text_encoder(sentences[rows])
        tokens = model.action_encoder(batch.poses, text)
        return teacher_forcing_loss(model, batch.history, batch.future, tokens, draws)

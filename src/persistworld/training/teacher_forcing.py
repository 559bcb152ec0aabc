"""Trains a world model by teacher forcing."""

import dataclasses
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
    """Train all of `model`. Returns it with averaged (`weight_ema` > 0) or last weights. The run's state is in `run_folder`."""
    optimizer = MatrixOptimizer(model.parameters(), training.optimizer)
    data = hashlib.sha256(repr((tuple(windows.episodes), windows.history_index)).encode()).hexdigest()[:16]
    digest = f"{configuration.digest(dataclasses.replace(training, steps=1))}-{configuration.digest(model.config)}-{data}-{seed}"
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
        # The decay rises from 0.1, so that the random initial weights soon drop out of the average.
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
    """The inputs of each step: windows, their instructions and the draws of the loss. They depend only on the step."""

    model: WorldModel
    windows: WindowSource
    training: BaseTrainingConfig
    seed: int
    purpose: str  # names the training: two trainings with the same seed draw different numbers
    readers: int = 0  # worker processes that prefetch steps

    def __len__(self) -> int:
        return self.training.steps

    def __getitem__(self, step: int) -> tuple[Batch, list[str], Draws]:
        rng = generator(self.seed, self.purpose, step)
        batch, sentences = draw_batch(self.model, self.windows, self.training, rng)
        return batch, sentences, draw(batch.history, batch.future, self.training, rng)

    def from_step(self, start: int) -> Iterator[tuple[Batch, list[str], Draws]]:
        """The inputs of step `start` and all later steps, in order. With `readers`, worker processes prefetch them."""
        # The loader gets its own generator; otherwise it would draw from torch's global one. Workers fork: open shards cannot be pickled.
        rest, own, readers = range(start, len(self)), torch.Generator(), self.readers
        how = "fork" if readers else None
        try:
            yield from DataLoader(self, batch_size=None, sampler=rest, num_workers=readers, generator=own, multiprocessing_context=how)
        except UserError as error:  # if a worker raises it, the message is at the end of a traceback
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
    """The detached loss of this process's share of a batch. Gradients accumulate over backward passes with `part` windows each.

    key: name of the parameter that sets the batch size, for the error message.
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
    """The mean loss of the given `rows` of a batch. Instructions are encoded with gradients: the text encoder is trained as well."""
    batch, draws = on_device(batch.take(rows), model.device), on_device(draws.take(rows), model.device)
    with autocast(model.device, training.precision):
        text = None if model.text_encoder is None else model.text_encoder(sentences[rows])
        tokens = model.action_encoder(batch.poses, text)
        return teacher_forcing_loss(model, batch.history, batch.future, tokens, draws)

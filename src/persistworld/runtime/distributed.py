"""Where computation runs, and several processes as one: each takes its share of a global batch or of a step's groups, and gradients are
added up over all of them.

Started by `accelerate launch` or `torchrun`, or alone. All randomness is drawn on the CPU, for the global batch or by a group's number,
so that the losses depend neither on the device nor on the number of processes (beyond rounding).
"""

import dataclasses
from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from accelerate import PartialState
from torch import Tensor, nn

from persistworld.runtime.errors import UserError

Value = TypeVar("Value")

# How long processes wait for each other: for hours where one makes what all use. A dead one is torchrun's to notice.
PATIENCE = timedelta(days=2)


def processes() -> PartialState:
    """This process's place among all; sets up communication on the first call (gloo on CPUs, nccl on GPUs)."""
    return PartialState(cpu=not torch.cuda.is_available(), timeout=PATIENCE)


def device() -> torch.device:
    """This process's accelerator, or the CPU."""
    return processes().device


def on_device(value: Value, place: torch.device) -> Value:
    """A dataclass of tensors (a batch, a condition) with each of them on `place`; itself when they are there already."""
    moved = {name: field.to(place) for name, field in vars(value).items() if isinstance(field, Tensor)}
    return dataclasses.replace(value, **moved)


def own_part(count: int) -> slice:
    """This process's part of `count` things in a row: as many as every other's, or one more or fewer; perhaps none."""
    rank, ranks = processes().process_index, processes().num_processes
    return slice(count * rank // ranks, count * (rank + 1) // ranks)


def own_share(count: int, key: str) -> slice:
    """This process's rows of a global batch of `count`. Raises UserError when it cannot be split evenly."""
    if count % (ranks := processes().num_processes):
        raise UserError(f"{key} = {count}: cannot be split evenly over {ranks} processes")
    return own_part(count)


def own_groups(count: int) -> slice:
    """This process's groups of a step's `count`. Raises UserError when there are fewer groups than processes."""
    if count < (ranks := processes().num_processes):
        raise UserError(f"post_training.groups = {count}: fewer than the {ranks} processes; start at most {count}, or name more groups")
    return own_part(count)


def sum_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replace gradients by their sum over all processes, in one message."""
    if processes().num_processes == 1:
        return
    gradients = [p.grad for p in parameters if p.grad is not None]
    flat = torch.cat([g.flatten() for g in gradients])
    dist.all_reduce(flat)
    for gradient, total in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(total.view_as(gradient))


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replace gradients by their mean over all processes."""
    parameters = list(parameters)
    sum_gradients(parameters)
    for parameter in parameters:
        if parameter.grad is not None:
            parameter.grad /= processes().num_processes


def mean_over_processes(value: Tensor) -> Tensor:
    """The mean of a tensor over all processes."""
    state = processes()
    if state.num_processes == 1:
        return value
    value = value.detach().clone()
    dist.all_reduce(value)
    return value / state.num_processes


def gathered(values: Sequence[Value]) -> list[Value]:
    """Every process's values, one process's after the other's, in every process. Tensors among them must be on the CPU."""
    state = processes()
    if state.num_processes == 1:
        return list(values)
    parts: list[list[Value]] = [[] for _ in range(state.num_processes)]
    dist.all_gather_object(parts, list(values))
    return [value for part in parts for value in part]


def collected(values: Sequence[Value]) -> list[Value]:
    """Every process's values, one process's after the other's, in the first process; nothing in the others.

    For what is large, where `gathered` would have it in every process's memory. Tensors among them must be on the CPU.
    """
    state = processes()
    if state.num_processes == 1:
        return list(values)
    parts: list[list[Value]] | None = [[] for _ in range(state.num_processes)] if state.is_main_process else None
    dist.gather_object(list(values), parts)
    return [value for part in parts or [] for value in part]

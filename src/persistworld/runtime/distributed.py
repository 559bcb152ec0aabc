"""Devices and data parallelism: each process takes its share of a global batch or of a step's groups, and gradients are summed over all.

Processes are started by `accelerate launch` or `torchrun`; a single one needs neither. All random numbers are drawn on the CPU, for the
global batch or by the group's number. The losses therefore do not depend on the device or the number of processes, except for rounding.
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

# How long processes wait for each other. One process may work for hours while the others wait. torchrun detects dead processes.
PATIENCE = timedelta(days=2)


def processes() -> PartialState:
    """This process's rank and the number of processes. The first call sets up communication (gloo on CPUs, nccl on GPUs)."""
    return PartialState(cpu=not torch.cuda.is_available(), timeout=PATIENCE)


def device() -> torch.device:
    """This process's accelerator, or the CPU."""
    return processes().device


def on_device(value: Value, place: torch.device) -> Value:
    """A dataclass of tensors (a batch, a condition) moved to `place`. Returns the same object if all are there already."""
    moved = {name: field.to(place) for name, field in vars(value).items() if isinstance(field, Tensor)}
    return dataclasses.replace(value, **moved)


def own_part(count: int) -> slice:
    """This process's contiguous part of `count` items. Sizes differ by at most one between processes, and a part can be empty."""
    rank, ranks = processes().process_index, processes().num_processes
    return slice(count * rank // ranks, count * (rank + 1) // ranks)


def own_share(count: int, key: str) -> slice:
    """This process's rows of a global batch of `count`. Raises UserError if the batch cannot be split evenly."""
    if count % (ranks := processes().num_processes):
        raise UserError(f"{key} = {count}: cannot be split evenly over {ranks} processes")
    return own_part(count)


def own_groups(count: int) -> slice:
    """This process's groups among the `count` groups of a step. Raises UserError if there are fewer groups than processes."""
    if count < (ranks := processes().num_processes):
        raise UserError(f"post_training.groups = {count}: fewer than the {ranks} processes; start at most {count}, or name more groups")
    return own_part(count)


def sum_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replace gradients by their sum over all processes, in one all-reduce."""
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
    """The values of all processes in rank order, in every process. Tensors must be on the CPU."""
    state = processes()
    if state.num_processes == 1:
        return list(values)
    parts: list[list[Value]] = [[] for _ in range(state.num_processes)]
    dist.all_gather_object(parts, list(values))
    return [value for part in parts for value in part]


def collected(values: Sequence[Value]) -> list[Value]:
    """The values of all processes in rank order, in the first process. Empty in the others. Tensors must be on the CPU.

    Use it for large values: `gathered` would hold them in every process's memory.
    """
    state = processes()
    if state.num_processes == 1:
        return list(values)
    parts: list[list[Value]] | None = [[] for _ in range(state.num_processes)] if state.is_main_process else None
    dist.gather_object(list(values), parts)
    return [value for part in parts or [] for value in part]

"""Several processes as one: each takes its share of a global batch, and gradients are averaged over all of them.

Started by `accelerate launch` or `torchrun`, or alone. All randomness is drawn for the global batch, so the losses do not depend on the
number of processes (beyond rounding).
"""

from collections.abc import Iterable

import torch
import torch.distributed as dist
from accelerate import PartialState
from torch import Tensor, nn

from persistworld.errors import UserError


def processes() -> PartialState:
    """This process's place among all; sets up communication on the first call (gloo on CPUs, nccl on GPUs)."""
    return PartialState(cpu=not torch.cuda.is_available())


def own_share(count: int, key: str) -> slice:
    """This process's rows of a global batch of `count`. Raises UserError when it cannot be split evenly."""
    state = processes()
    if count % state.num_processes:
        raise UserError(f"{key} = {count}: cannot be split evenly over {state.num_processes} processes")
    size = count // state.num_processes
    return slice(state.process_index * size, (state.process_index + 1) * size)


def require_single_process(stage: str) -> None:
    """Raise UserError when several processes were started for a stage that runs in one."""
    if (count := processes().num_processes) > 1:
        raise UserError(f"{stage}: started in {count} processes, but it runs in one; start it without a launcher")


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replace gradients by their mean over all processes, in one message."""
    state = processes()
    if state.num_processes == 1:
        return
    gradients = [p.grad for p in parameters if p.grad is not None]
    flat = torch.cat([g.flatten() for g in gradients])
    dist.all_reduce(flat)
    flat /= state.num_processes
    for gradient, mean in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(mean.view_as(gradient))


def mean_over_processes(value: Tensor) -> Tensor:
    """The mean of a tensor over all processes."""
    state = processes()
    if state.num_processes == 1:
        return value
    value = value.detach().clone()
    dist.all_reduce(value)
    return value / state.num_processes

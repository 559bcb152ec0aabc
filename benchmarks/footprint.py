"""FLOPs and peak memory of a computation without running it, on the meta device, where tensors have shapes but no data."""

import contextlib
import weakref
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode


def flops(run: Callable[[], object]) -> float:
    """FLOPs of matrix products and convolutions, including attention's own. A multiply-add counts as two."""
    with FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops()


def peak_bytes(run: Callable[[], object]) -> int:
    """The peak size in bytes of the tensors that `run` creates. Tensors that existed before do not count.

    Attention counts as a fused kernel: it keeps its inputs and output, but not the attention matrix.
    """
    with _fused_attention(), _Live() as live:
        run()
    return live.peak


class _Live(TorchDispatchMode):
    """Tracks the total size of live storages: adds each one that an operation creates, and subtracts it when it is freed."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        for tensor in tree_leaves((args, kwargs)):
            if isinstance(tensor, Tensor):
                self._known.add(tensor.untyped_storage()._cdata)
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor) and tensor.untyped_storage()._cdata not in self._known:
                self._add(tensor.untyped_storage())
        return out

    def _add(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        self._known.add(key)
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._free, key, size)

    def _free(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.now -= size


@contextlib.contextmanager
def _fused_attention() -> Iterator[None]:
    """Replace attention by a fused kernel, also when checkpointing recomputes it in the backward pass."""
    real, F.scaled_dot_product_attention = F.scaled_dot_product_attention, lambda q, k, v, **_: _Attention.apply(q, k, v)
    try:
        yield
    finally:
        F.scaled_dot_product_attention = real


class _Attention(torch.autograd.Function):
    """The shapes of fused attention, forward and backward."""

    @staticmethod
    def forward(ctx, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        out = torch.empty_like(query)
        ctx.save_for_backward(query, key, value, out)
        return out

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, ...]:
        return tuple(torch.empty_like(t) for t in ctx.saved_tensors[:3])

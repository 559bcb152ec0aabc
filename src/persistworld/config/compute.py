"""Parameters that change time and memory but not the results.

This section is not hashed. After a change, no output is out of date, and a stopped training can be resumed. Keys that change the rounding
of sums say so.
"""

from dataclasses import dataclass, field
from typing import Literal

from persistworld.config.checks import at_least


@dataclass(frozen=True)
class BaseTrainingCompute:
    train_batch: int = 0  # windows per backward pass; gradients are summed over the batch; 0: a process's whole share (rounding differs)
    gradient_checkpointing: bool = False  # recomputes activations in the backward pass instead of keeping them
    readers: int = 0  # data-loading processes that draw the windows of the next steps, so that a GPU does not wait
    torch_compile: Literal["none", "default", "reduce-overhead"] = "none"  # U-Net; reduce-overhead: CUDA graphs (rounding differs)
    save_every: int = 500  # steps between saved states

    def check(self) -> None:
        at_least(0, self, "compute.base_training", "train_batch", "readers")
        at_least(1, self, "compute.base_training", "save_every")


@dataclass(frozen=True)
class PostTrainingCompute:
    """Compute settings of post-training and its controls."""

    sample_batch: int = 0  # prefixes or candidates sampled at once; 0: all of a process's share (rounding differs)
    train_batch: int = 16  # candidates (or a control's windows) per backward pass; gradients are accumulated (rounding differs)
    gradient_checkpointing: bool = False  # recomputes activations in the backward pass instead of keeping them
    merged_adapter: bool = False  # trains through W + B A, not separate layers A and B: faster for narrow layers (rounding differs)
    save_every: int = 100  # steps between saved states

    def check(self) -> None:
        at_least(0, self, "compute.post_training", "sample_batch")
        at_least(1, self, "compute.post_training", "train_batch", "save_every")


@dataclass(frozen=True)
class RolloutCompute:
    batch: int = 8  # episodes rolled out together (rounding differs)
    torch_compile: bool = False  # compiles the U-Net (channels-last; CUDA graph on a GPU): minutes once, then faster (rounding differs)

    def check(self) -> None:
        at_least(1, self, "compute.rollout", "batch")


@dataclass(frozen=True)
class ComputeConfig:
    """GPUs, threads, batch sizes, gradient checkpointing, compilation, readers and the interval of saved states."""

    gpus: int = 1  # per job; 0: CPU only
    threads: int = 0  # of post-training and of its control, which run in parallel; 0: half of the cores each, at most four
    encode_batch: int = 64  # images per autoencoder call
    mask_batch: int = 16  # frames per RoboEngine call
    store_truth: bool = True  # keeps evaluation episodes' frames in data/truth (60 GB for DROID's 956); false: decodes them per model
    rollout: RolloutCompute = field(default_factory=RolloutCompute)
    base_training: BaseTrainingCompute = field(default_factory=BaseTrainingCompute)
    post_training: PostTrainingCompute = field(default_factory=PostTrainingCompute)

    def check(self) -> None:
        at_least(0, self, "compute", "gpus", "threads")
        at_least(1, self, "compute", "encode_batch", "mask_batch")
        self.rollout.check()
        self.base_training.check()
        self.post_training.check()

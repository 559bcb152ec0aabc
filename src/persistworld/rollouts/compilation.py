"""The U-Net prepared for many rollouts of one shape: `compute.rollout.torch_compile`."""

import torch
from torch import nn

from persistworld.world_model.compiler import require_compiler
from persistworld.world_model.model import WorldModel


def compile_unet(model: WorldModel, precision: str) -> None:
    """Compile `model`'s U-Net in place for sampling in `precision`; the names of its parameters stay what they were.

    Weights lie channels-last, as GPUs' convolutions read them, and those that autocast would cast in every sampler step are cast once: the
    model is for sampling from now on, not for training. On a GPU the whole forward pass is one CUDA graph (mode "reduce-overhead").
    Each shape is compiled on its own, because a CUDA graph is of one shape: `rollout` fills its batches up to one size. The first chunk
    takes minutes at full size. Raises UserError without a C++ compiler.
    """
    require_compiler("compute.rollout.torch_compile", True)
    held = torch.bfloat16 if precision == "bfloat16" else torch.float32
    for module in model.unet.modules():
        # The kinds of layers whose products autocast takes in bfloat16; normalisations stay in float32.
        if isinstance(module, nn.Linear | nn.Conv2d | nn.Conv3d):
            module.to(held)
        # A clip's frames, channels-last, are channels-last in 3-D as well: no copy between spatial and temporal layers.
        if isinstance(module, nn.Conv2d):
            module.to(memory_format=torch.channels_last)
        elif isinstance(module, nn.Conv3d):
            module.to(memory_format=torch.channels_last_3d)
    mode = "reduce-overhead" if model.device.type == "cuda" else "default"
    model.unet.compile(fullgraph=True, dynamic=False, mode=mode)

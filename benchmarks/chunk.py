"""Seconds, memory and FLOPs of one chunk at several batch sizes. The model is compiled if `compute.rollout.torch_compile` is set."""

import copy

import torch

from benchmarks.cost import H200, TERA, chunk_flops
from benchmarks.materials import Materials
from benchmarks.table import Row, peak_gib, seconds
from persistworld.rollouts.compilation import compile_unet


def rows(materials: Materials) -> list[Row]:
    """Time one chunk (the latency of a planner), a rollout's batch, and the batch that post-training samples at once."""
    params, model = materials.params, materials.model
    settings, training, compute = params.rollout, params.post_training, params.compute
    if compute.rollout.torch_compile:  # a copy, since other benchmarks use the model uncompiled
        model = copy.deepcopy(model)
        compile_unet(model, settings.precision)
    how = f"{settings.precision}, {'torch_compile' if compute.rollout.torch_compile else 'not compiled'}, {materials.weights} weights"
    flops = chunk_flops(params)
    parts = [Row("a chunk", flops / TERA, "TFLOP", f"{settings.sampler.steps} steps; {flops / H200:.3g} s at an H200's 989 TFLOP/s")]
    sizes = {1, compute.rollout.batch, compute.post_training.sample_batch or min(32, training.groups * training.candidates)}
    for batch in sorted(sizes):
        condition, noise = materials.condition(batch), materials.latents(batch, model.config.future)

        def sample(condition=condition, noise=noise) -> None:
            model.sample(condition, noise, settings.sampler, settings.precision)

        # Measured in the first run, which uses the most memory. Once a CUDA graph is recorded, its memory is no longer counted.
        peak = peak_gib(sample) if materials.device.type == "cuda" else None
        time = seconds(sample)
        parts.append(Row(f"a chunk, {batch} at once", time / batch, "s", f"{batch * flops / time / TERA:.3g} TFLOP/s; {how}"))
        if peak is not None:
            parts.append(Row(f"peak memory, {batch} at once", peak, "GiB", torch.cuda.get_device_name()))
    return parts

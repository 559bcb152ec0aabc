"""Seconds and memory of one chunk at several batch sizes, beside its FLOPs; compiled with `compute.rollout.torch_compile`."""

import copy

import torch

from benchmarks.cost import H200, TERA, chunk_flops
from benchmarks.materials import Materials
from benchmarks.table import Row, peak_gib, seconds
from persistworld.rollouts.compilation import compile_unet


def rows(materials: Materials) -> list[Row]:
    """A chunk alone (what a planner waits for), in a rollout's batch, and in the batch that post-training samples at once."""
    params, model = materials.params, materials.model
    settings, training, compute = params.rollout, params.post_training, params.compute
    if compute.rollout.torch_compile:  # a copy, for the other benchmarks take the plain model
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

        # The first run has the most memory in use: once a CUDA graph is recorded, what it holds counts no longer.
        peak = peak_gib(sample) if materials.device.type == "cuda" else None
        time = seconds(sample)
        parts.append(Row(f"a chunk, {batch} at once", time / batch, "s", f"{batch * flops / time / TERA:.3g} TFLOP/s; {how}"))
        if peak is not None:
            parts.append(Row(f"peak memory, {batch} at once", peak, "GiB", torch.cuda.get_device_name()))
    return parts

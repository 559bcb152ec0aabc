"""`rollout.torch_compile`: the same rollouts, compiled once. On a CPU: CUDA graphs are not tested."""

import copy
import dataclasses
import os
import shutil

import pytest
import torch
from refusals import refused
from tiny import HISTORY_INDEX, SAMPLER, SIZES, VIEWS, make_model

from persistworld import rollout
from persistworld.config.world_model import RolloutConfig
from persistworld.rollouts.compilation import compile_unet
from persistworld.rollouts.starts import poses_after, starts_of
from persistworld.world_model.model import WorldModel

SETTINGS = RolloutConfig(sampler=SAMPLER, chunks=2, history_index=HISTORY_INDEX, precision="float32")
COMPILED = 2  # rows: a compiled model has one batch size
FRAMES = 9  # of 2 chunks
needs_compiler = pytest.mark.skipif(
    shutil.which(os.environ.get("CXX", "g++")) is None, reason="torch.compile needs a C++ compiler, g++ or what CXX names"
)


@pytest.fixture
def small(base) -> WorldModel:
    """A U-Net of one level: convolutions and attention in space and time, and as little to compile as there can be."""
    torch.compiler.reset()  # another test's backend would count as a recompilation
    torch.manual_seed(0)
    config = dataclasses.replace(SIZES, unet=dataclasses.replace(SIZES.unet, channels=(32,), heads=(2,)))
    return WorldModel(config, VIEWS, base.statistics, base.text_encoder).eval().requires_grad_(False)


def rollouts(model, store, entries, settings, rows=0) -> torch.Tensor:
    """Of three episodes, two at once and then one, as the stage rolls them out."""
    parts = [entries[:2], entries[2:3]]
    poses = [poses_after(store, part, FRAMES - 1) for part in parts]
    pairs = zip(parts, poses, strict=True)
    return torch.cat([rollout(model, starts_of(model, store, p), path, [e.index for e in p], 0, settings, rows) for p, path in pairs])


def relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    return ((found - expected).norm() / expected.norm()).item()


@needs_compiler
def test_one_graph_serves_all_chunks_and_the_last_smaller_batch(small, store, entries):
    """Traced but not compiled, which takes a fraction of the time: no break in the graph, and nothing is traced again."""
    expected, names = rollouts(small, store, entries, SETTINGS), list(small.state_dict())
    compile_unet(small, "float32")
    assert list(small.state_dict()) == names
    assert small.unet.conv_in.weight.is_contiguous(memory_format=torch.channels_last)
    with torch.compiler.set_stance("default", force_backend="eager"), torch._dynamo.config.patch(error_on_recompile=True):
        found = rollouts(small, store, entries, SETTINGS, COMPILED)
    assert found.shape == (3, FRAMES, 4, 12, 4) and relative(found, expected) < 1e-4


@needs_compiler
@pytest.mark.slow
def test_compiled_rollouts_are_the_plain_ones(small, store, entries):
    expected = rollouts(small, store, entries, SETTINGS)
    compile_unet(small, "float32")
    with torch._dynamo.config.patch(error_on_recompile=True):
        assert relative(rollouts(small, store, entries, SETTINGS, COMPILED), expected) < 1e-4


@needs_compiler
def test_weights_in_bfloat16_are_those_that_autocast_makes(store, entries):
    """Cast once instead of in every step: not a bit differs (channels-last, which rounds in another order, taken back)."""
    model = make_model(0)
    settings = dataclasses.replace(SETTINGS, precision="bfloat16")
    expected = rollouts(model, store, entries, settings)
    compile_unet(model, "bfloat16")
    prepared = copy.deepcopy(model)  # a copy has the weights and is not compiled
    norms = {p.dtype for n, p in prepared.unet.named_parameters() if "norm" in n}
    assert prepared.unet.conv_in.weight.dtype == torch.bfloat16 and norms == {torch.float32}
    for parameter in prepared.unet.parameters():
        parameter.data = torch.empty(parameter.shape, dtype=parameter.dtype).copy_(parameter.data)
    assert torch.equal(rollouts(prepared, store, entries, settings), expected)


def test_without_a_compiler_it_is_one_line(base, monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with refused("compute.rollout.torch_compile = True", "no-such-compiler"):
        compile_unet(copy.deepcopy(base), "float32")

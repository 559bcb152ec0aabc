"""A checkpoint is loaded in less than 1.2 times the memory that it has, as a base, as a base with an adapter, and as a flat .pt."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from refusals import refused
from tiny import INSTRUCTIONS, SIZES, VIEWS

from persistworld.checkpoints.adapters import save_adapter
from persistworld.checkpoints.ctrl_world import flat_tensors
from persistworld.checkpoints.folders import load_base_model, save_world_model
from persistworld.checkpoints.layout import WEIGHTS
from persistworld.config.post_training import AdapterConfig, PostTrainingConfig
from persistworld.config.world_model import UNetConfig
from persistworld.runtime.tensor_files import TYPES, read_tensors, write_pickle, write_tensors
from persistworld.training.policy import Policy
from persistworld.world_model.autoencoder import Autoencoder, save_autoencoder
from persistworld.world_model.model import WorldModel
from persistworld.world_model.poses import PoseStatistics
from persistworld.world_model.text import InstructionEncoder, train_tokenizer

SETTINGS = PostTrainingConfig(lora=AdapterConfig(rank=4, alpha=4.0))
MEASURE = """
import os
import sys
from pathlib import Path
from persistworld.config.world_model import WorldModelConfig
from persistworld.config.reading import build_section
from persistworld.world_model.poses import PoseStatistics
from persistworld.runtime.files import read_json
from persistworld.checkpoints.adapters import load_world_model
from persistworld.checkpoints.ctrl_world import import_checkpoint
from persistworld.runtime.tensor_files import map_tensors

def status(name):
    return next(int(line.split()[1]) for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name)) * 1024

def read(kind, folder):
    if kind != "flat":
        return load_world_model(folder / kind)
    config = build_section(WorldModelConfig, read_json(folder / "base/config.json")["world_model"], "")
    poses = PoseStatistics("euler", (-1.0,) * 7, (1.0,) * 7)
    path = folder / "flat.pt"
    import_checkpoint(map_tensors(path), config, (), poses, folder / "base", path, folder / "imported")

small, large = map(Path, sys.argv[1:])
for kind in ("base", "post_trained", "flat"):
    if os.fork():  # a process each: what the allocator keeps of one load must not hide the next
        os.wait()
        continue
    read(kind, small)  # whatever is imported on first use is imported now
    before = status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # resets the high-water mark
    read(kind, large)
    print(kind, status("VmHWM") - before, flush=True)
    os._exit(0)
"""


def make(folder: Path, channels: tuple[int, ...]) -> None:
    """A base, a post-trained checkpoint and a flat .pt in `folder`; random weights."""
    heads = tuple(c // 32 for c in channels)
    unet = UNetConfig(channels=channels, heads=heads, layers=1, cross_attention_dim=32, addition_time_embed_dim=16)
    sizes = dataclasses.replace(SIZES, unet=unet, rotation="euler")
    text = InstructionEncoder(sizes.text_encoder, train_tokenizer(INSTRUCTIONS, sizes.text_encoder))
    model = WorldModel(sizes, VIEWS, PoseStatistics("euler", (-1.0,) * 7, (1.0,) * 7), text).requires_grad_(False)
    save_world_model(model, folder / "base")
    save_autoencoder(Autoencoder(sizes.autoencoder), folder / "base")
    theta = {n: p.detach() for n, p in Policy(model, SETTINGS.lora, True, seed=0).theta.items()}
    save_adapter(theta, model, folder / "base", folder / "post_trained", [SETTINGS], seed=0)
    write_pickle(flat_tensors(folder / "base"), folder / "flat.pt")


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the kernel's own count of memory is Linux's")
def test_loading_streams(tmp_path):
    torch.manual_seed(0)
    make(tmp_path / "small", (32, 32))
    make(tmp_path / "large", (192, 384))
    size = (tmp_path / "large/base" / WEIGHTS).stat().st_size
    command = [sys.executable, "-c", MEASURE, str(tmp_path / "small"), str(tmp_path / "large")]
    done = subprocess.run(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=True)
    shares = {kind: int(peak) / size for kind, peak in map(str.split, done.stdout.splitlines())}
    assert shares.keys() == {"base", "post_trained", "flat"} and size > 100e6
    assert max(shares.values()) < 1.2, shares
    assert min(shares.values()) > 0.5  # the measure sees the load


def test_what_is_read_is_what_was_written(tmp_path):
    """Every type; floating ones come as float32."""
    tensors = {name: torch.tensor([[0, 1], [1, 0]], dtype=dtype) for dtype, name in TYPES.items()} | {"empty": torch.zeros(0, 3)}
    write_tensors(tensors, tmp_path / "a.safetensors")
    for name, tensor in read_tensors(tmp_path / "a.safetensors").items():
        expected = tensors[name].float() if tensors[name].is_floating_point() else tensors[name]
        assert torch.equal(tensor, expected) and tensor.dtype == expected.dtype


def test_a_loaded_model_has_no_meta_tensor(base, tmp_path):
    """Buffers that no checkpoint holds (CLIP's position_ids) are there, too."""
    save_world_model(base, tmp_path)
    loaded = load_base_model(tmp_path)
    assert {t.device.type for t in (*loaded.parameters(), *loaded.buffers())} == {"cpu"}
    for (name, buffer), (_, expected) in zip(loaded.named_buffers(), base.named_buffers(), strict=True):
        assert torch.equal(buffer, expected), name


def test_damaged_files_are_one_line(tmp_path):
    path = tmp_path / "a.safetensors"
    with refused(path):
        read_tensors(path)
    write_tensors({"a": torch.zeros(8)}, path)
    whole = path.read_bytes()
    for part in (whole[:-1], whole[:20], b"", b"\xff" * 64):
        path.write_bytes(part)
        with refused(path):
            read_tensors(path)

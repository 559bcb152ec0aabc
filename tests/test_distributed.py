"""Two processes with half of the global batch each do what one does with all of it."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import distributed_worker
import pytest
import torch
from torch import nn

from persistworld.distributed import average_gradients, mean_over_processes, own_share


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def test_alone_there_is_nothing_to_share():
    assert own_share(5, "base_training.batch") == slice(0, 5)
    model = nn.Linear(2, 2)
    model(torch.ones(1, 2)).sum().backward()
    average_gradients(model.parameters())
    assert torch.equal(model.weight.grad, torch.ones(2, 2)) and mean_over_processes(torch.tensor(3.0)) == 3


def test_two_processes_train_like_one(latent_folder, tmp_path):
    """What torchrun starts, with its environment variables, over gloo on the CPU."""
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "OMP_NUM_THREADS": "1"}
    ranks = [
        subprocess.Popen(
            [sys.executable, distributed_worker.__file__, str(latent_folder), str(tmp_path)],
            env=os.environ | shared | {"RANK": rank, "LOCAL_RANK": rank, "CUDA_VISIBLE_DEVICES": ""},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in ("0", "1")
    ]
    try:
        alone = distributed_worker.main(str(latent_folder), tmp_path / "alone")
        errors = [rank.communicate(timeout=300)[1] for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
    assert [rank.returncode for rank in ranks] == [0, 0], errors
    first, second = (torch.load(tmp_path / f"result-{rank}.pt", weights_only=True) for rank in (0, 1))
    assert first["processes"] == second["processes"] == 2 and alone["processes"] == 1
    assert torch.equal(first["gradient"], second["gradient"]) and torch.equal(first["losses"], second["losses"])
    torch.testing.assert_close(first["losses"], alone["losses"], rtol=1e-4, atol=1e-5)
    scale = alone["gradient"].abs().max().item()
    torch.testing.assert_close(first["gradient"], alone["gradient"], rtol=1e-3, atol=1e-5 * scale)
    assert alone["losses"][1] != pytest.approx(alone["losses"][0].item(), rel=1e-2)  # three steps do something
    assert [p.name for p in Path(tmp_path).glob("state-*")] == ["state-00000003.pt"]  # the main process's alone
    assert first["refused"] == "base_training.batch = 5: cannot be split evenly over 2 processes"

"""Two processes with half of the global batch each do what one does with all of it, in base training, post-training and its control."""

import dataclasses
import os
import socket
import subprocess
import sys
from pathlib import Path

import distributed_worker
import pandas as pd
import pytest
import torch
from torch import nn

from persistworld.data.latents import LatentStore
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


def test_two_processes_train_like_one(latent_folder, entries, tmp_path):
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
        errors = [rank.communicate(timeout=900)[1] for rank in ranks]
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
    assert first["refused"].split("; ", 1) == [
        "base_training.batch = 5: cannot be split evenly over 2 processes",
        "post_training.groups = 1: fewer than the 2 processes; start at most 1, or name more groups",
    ]
    assert first["gathered"] == second["gathered"] == alone["gathered"] == [0, 1, 2, 3, 4]
    for run in ("post_trained", "control"):
        assert torch.equal(first[run], second[run])  # all processes take the same steps
    for run in (*distributed_worker.RUNS, "control"):
        compare_logs(tmp_path / run, tmp_path / "alone" / run)
    # One process takes up what two began, and ends as one that began alone.
    store, episodes = LatentStore(latent_folder), entries
    for run, settings in distributed_worker.RUNS.items():
        for folder in (tmp_path, tmp_path / "alone"):
            distributed_worker.post_train(store, episodes, folder / run, dataclasses.replace(settings, steps=3))
        compare_logs(tmp_path / run, tmp_path / "alone" / run)


def compare_logs(folder: Path, other: Path) -> None:
    """The same numbers up to rounding; seconds are nobody's."""
    logs = [pd.read_csv(path / "log.csv") for path in (folder, other)]
    logs = [log[[c for c in log if not c.startswith("seconds_")]] for log in logs]
    assert len(logs[0]) >= 2 and (logs[0]["gradient_norm"] > 0).all()
    pd.testing.assert_frame_equal(*logs, rtol=2e-3, atol=1e-6)

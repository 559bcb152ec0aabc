"""Two processes with half of the work each do what one does with all of it: in base training, post-training and its control, also when
one takes up what the other two began or the other way round, and in the stages that share their episodes."""

import dataclasses
import os
import socket
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import distributed_worker as worker
import pandas as pd
import pytest
import torch
from made_up import make_clone, stages
from refusals import assert_names
from test_masks import ENGINE
from torch import nn

from persistworld.data.latents import LatentStore
from persistworld.evaluation.masks import MaskStore
from persistworld.runtime.distributed import average_gradients, mean_over_processes, own_share
from persistworld.runtime.files import read_json


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


@pytest.fixture(scope="module")
def ranks(latent_folder, tmp_path_factory):
    """Two processes as torchrun starts them, over gloo on the CPU, and the folder in which they take up what one has begun."""
    folder = tmp_path_factory.mktemp("two")
    for run in worker.TEACHER_FORCED:
        worker.killed(run, latent_folder, folder / "begun" / run, steps=1)
    worker.post_train(LatentStore(latent_folder), folder / "begun/streams", dataclasses.replace(worker.RUNS["streams"], steps=1))
    engine = folder / "site/robo_engine"
    engine.mkdir(parents=True)
    (engine / "__init__.py").touch()
    (engine / "infer_engine.py").write_text(textwrap.dedent(ENGINE))
    for name in ("shared", "whole"):
        (folder / name).mkdir()
        changes = {"masks": {"source": "roboengine"}, "episodes": {"bad_share": 0.5}}
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(make_clone(folder / name, views=2, changes=changes))
            (folder / name / "made_up/videos/train/2/1.mp4").unlink()  # the second process's in its shard
            stages("episodes", "base_checkpoint")
    path = os.pathsep.join(filter(None, (str(engine.parent), os.environ.get("PYTHONPATH"))))
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "OMP_NUM_THREADS": "1"}
    started = [
        subprocess.Popen(
            [sys.executable, worker.__file__, str(latent_folder), str(folder)],
            env=os.environ | shared | {"RANK": rank, "LOCAL_RANK": rank, "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": path},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in ("0", "1")
    ]
    yield folder, started
    for rank in started:
        rank.kill()


@pytest.fixture(scope="module")
def alone(latent_folder, tmp_path_factory):
    """What one process does that is never killed: the folder of its runs, and their weights by name."""
    folder, store = tmp_path_factory.mktemp("alone"), LatentStore(latent_folder)
    ended = {run: train(store, folder / run) for run, train in worker.TEACHER_FORCED.items()}
    for run, settings in worker.RUNS.items():
        worker.post_train(store, folder / run, dataclasses.replace(settings, steps=3))
    return folder, ended


def ended(rank: subprocess.Popen) -> str:
    """What a process had to say on its errors, when it has ended or 15 minutes are over."""
    try:
        return rank.communicate(timeout=900)[1]
    except subprocess.TimeoutExpired:
        rank.kill()
        return "after 15 minutes: " + rank.communicate()[1]


@pytest.fixture(scope="module")
def two(ranks, alone):  # in this order: one trains while two do
    """The folder of the two processes, and what each of them found."""
    folder, started = ranks
    with ThreadPoolExecutor() as pool:  # at once: where one dies the other waits for it, and is not to hide why
        errors = list(pool.map(ended, started))
    assert [rank.returncode for rank in started] == [0, 0], errors
    return folder, *(torch.load(folder / f"result-{rank}.pt", weights_only=True) for rank in (0, 1))


def test_two_processes_compute_what_one_does(two, store):
    _, first, second = two
    assert first["processes"] == second["processes"] == 2
    assert torch.equal(first["gradient"], second["gradient"]) and torch.equal(first["loss"], second["loss"])
    whole = worker.first_step(store)
    torch.testing.assert_close(first["loss"], whole["loss"], rtol=1e-4, atol=1e-5)
    scale = whole["gradient"].abs().max().item()
    torch.testing.assert_close(first["gradient"], whole["gradient"], rtol=1e-3, atol=1e-5 * scale)
    assert first["gathered"] == second["gathered"] == first["collected"] == [0, 1, 2, 3, 4] and second["collected"] == []
    assert torch.equal(first["post_trained"], second["post_trained"])  # all processes take the same steps


def test_processes_that_cannot_go_on_together_say_so(two):
    folder, first, second = two
    batch, groups, states, other = first["refused"]
    assert_names(batch, "base_training.batch = 5", 2)
    assert_names(groups, "post_training.groups = 1", 2)
    assert_names(states, f"{folder}/begun/control", "step 1", "none")
    assert_names(other, "begun/control", "process 1", "process 0")
    assert second["refused"] == [batch, groups, states.replace("begun/control", "elsewhere/control"), other]


def test_two_processes_end_what_one_began(two, alone):
    """Base training, the control and streams, one step of which was done."""
    (folder, first, second), (other, ended) = two, alone
    for run in ("base", "control", "streams"):
        assert torch.equal(first["ended"][run], second["ended"][run])
    compare_weights(first["ended"], ended)
    for run, steps in (("base", 3), ("control", 4), ("streams", 2)):
        compare_logs(folder / "begun" / run, other / run, steps)
    assert [p.name for p in (folder / "begun/base").glob("state-*")] == ["state-00000003.pt"]  # the main process's alone


def test_one_process_ends_what_two_began(two, alone, store):
    """All three trainings, two steps of which were done, or all of them but one."""
    (folder, *_), (other, ended) = two, alone
    compare_weights({run: train(store, folder / "left" / run) for run, train in worker.TEACHER_FORCED.items()}, ended)
    compare_logs(folder / "left/control", other / "control", 4)
    for run, settings in worker.RUNS.items():
        worker.post_train(store, folder / "left" / run, dataclasses.replace(settings, steps=3))
        compare_logs(folder / "left" / run, other / run, 3)


def test_two_processes_write_the_bytes_of_one(two, monkeypatch):
    """Latents, ground truth, masks and scores; one of the episodes that the second process reads cannot be used."""
    folder, *_ = two
    monkeypatch.chdir(folder / "whole/clone")
    monkeypatch.syspath_prepend(folder / "site")
    stages(*worker.SHARED_STAGES)
    files = [f"data/latents/shard-{n}.{kind}" for n in (0, 1) for kind in ("safetensors", "json")]
    files += [f"data/truth/{kind}.npy" for kind in ("recorded", "decoded")]
    for name in (*files, "results/metrics/masks.json", "results/scores/copy_frame.parquet"):
        assert (folder / "whole/clone" / name).read_bytes() == (folder / "shared/clone" / name).read_bytes(), name
    one, other = (MaskStore(folder / name / "clone/data/masks.safetensors") for name in ("whole", "shared"))
    assert one.counts == other.counts and all(torch.equal(one.masks(i), other.masks(i)) for i in (99, 199))  # their header has no order
    assert read_json("data/manifest.json")["bad"].keys() == {"2"} and read_json("results/metrics/masks.json")["frames"] == 18
    assert not list((folder / "shared/clone/runs/latents").rglob("*.safetensors"))
    for name in ("robo_engine.infer_engine", "robo_engine"):
        sys.modules.pop(name, None)


def compare_weights(found: dict[str, torch.Tensor], ended: dict[str, torch.Tensor]) -> None:
    """Of `base` and `control`: apart by less than a fiftieth of what one step changed. AdamW enlarges rounding."""
    for run, whole in ended.items():
        assert (found[run] - whole).norm() < 0.02 * 1e-3 * len(whole) ** 0.5, run


def compare_logs(folder: Path, other: Path, steps: int) -> None:
    """The same numbers of the first `steps` steps up to rounding; seconds are nobody's."""
    logs = [pd.read_csv(path / "log.csv") for path in (folder, other)]
    logs = [log[[c for c in log if not c.startswith("seconds_")]][:steps] for log in logs]
    assert len(logs[0]) == len(logs[1]) == steps and (logs[0]["gradient_norm"] > 0).all()
    pd.testing.assert_frame_equal(*logs, rtol=2e-3, atol=1e-6)

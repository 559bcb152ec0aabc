"""DROID's real size, without DROID: seconds and peak memory of every stage that does not compute on frames, at a share of its counts.

    python -m benchmarks droid_size --share 0.01 [--folder FOLDER]

DROID has 95,600 episodes and 27 M rows, 1,000 episodes to a folder. The data set made here has a share of them; its frames are of a few
pixels, and files of equal content are hard links. Latents, rollouts and scores are made up in the stages' formats. Stages, and Snakemake's
plan of all jobs, run as processes of their own. `manifest` is also killed twice, and must then give the same bytes.
"""

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import yaml
from safetensors.torch import save_file

from benchmarks.table import Row
from persistworld.checkpoints.layout import CONFIG
from persistworld.config.params import Params, load_params
from persistworld.config.world_model import AutoencoderConfig
from persistworld.data.episodes import VIEWS
from persistworld.data.formats.lerobot_columns import VIDEO_KEYS
from persistworld.data.formats.lerobot_paths import DATA_PATH, VIDEO_PATH, file_path
from persistworld.data.latents import Encoded
from persistworld.data.manifest import evaluation_episodes, load_manifest, wanted_indices
from persistworld.data.video import write_video
from persistworld.evaluation.score_table import COLUMNS, METRICS, PROTOCOLS, REGIONS, write_scores
from persistworld.runtime.files import sha256, write_json
from persistworld.runtime.workspace import BASE, LATENTS, MANIFEST, SCORES, rollout_path
from persistworld.world_model.autoencoder import Autoencoder, save_autoencoder
from persistworld.world_model.poses import CTRL_WORLD_STATISTICS

ROOT = Path(__file__).parents[1]
EPISODES, CHUNK = 95_600, 1_000
LENGTHS = (174, 195, 216, 237, 258, 279, 285, 306, 327, 348, 369, 390)  # rows; their mean, 282, is DROID's
STRIDE, SIZE, SHARDS = 3, 16, 64  # 15 Hz -> 5 Hz; pixels of a view; shards of the latents
SENTENCES = [f"put object {number} into the container" for number in range(500)]
AUTOENCODER = AutoencoderConfig(patch=8, channels=(32,), layers=1)  # a cell of 8 pixels, as SVD's


def rows(share: float, folder: Path | None = None) -> list[Row]:
    """Make the data in `folder` (default: a temporary one, removed at the end) and run everything on it."""
    with tempfile.TemporaryDirectory(dir=folder) as name:
        return _Run(Path(name), share).rows()


class _Run:
    """One run in `folder` at `share` of DROID's counts."""

    def __init__(self, folder: Path, share: float) -> None:
        self.folder, self.work, self.count = folder, folder / "work", max(100, round(share * EPISODES))
        self.found: list[Row] = []

    def rows(self) -> list[Row]:
        self.made("data set", self.make_data_set)
        self.make_workspace()
        with contextlib.chdir(self.work):
            return self.stages()

    def stages(self) -> list[Row]:
        """Run everything in the working folder."""
        params = load_params("params.yaml")
        self.stage("episodes", "index, five episodes read, record")
        self.made("latents, made up", lambda: make_latents(params, self.count))
        self.stage("manifest", "index, split, pose statistics")
        self.kill_manifest()
        self.process("snakemake -n", [sys.executable, "-m", "snakemake", "-n", "--quiet", "all", "--cores", "8"], "all jobs")
        manifest = load_manifest(MANIFEST)
        chosen = [entry.index for entry in evaluation_episodes(manifest, params.evaluation, params.rollout_frames)]
        self.made("score table, made up", lambda: make_scores(params, chosen))
        make_rollouts(params, chosen)
        for name in ("tables", "preference", "figures", "report"):
            self.stage(name)
        return self.found

    def made(self, what: str, make) -> None:
        began = time.process_time()
        note = make()
        self.found.append(Row(what, time.process_time() - began, "CPU s", f"{note}; here, not a stage"))
        print(self.found[-1], file=sys.stderr, flush=True)

    def stage(self, name: str, note: str = "") -> None:
        self.process(name, [sys.executable, "-m", "persistworld.cli", name, "--threads", "1"], note)

    def process(self, what: str, command: list[str], note: str = "") -> float:
        """Run a command; adds its CPU seconds and peak memory (GB). Returns its wall seconds."""
        began = time.perf_counter()
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=self.environment())
        errors = process.stderr.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        wall = time.perf_counter() - began
        if process.returncode:
            note = f"FAILED: {errors.strip().splitlines()[-1] if errors.strip() else process.returncode}"
        seconds, memory = usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024 / 1e9
        self.found.append(Row(what, seconds, "CPU s", ", ".join(filter(None, (f"{wall:.3g} s here", f"{memory:.2g} GB", note)))))
        print(self.found[-1], file=sys.stderr, flush=True)
        return wall

    def environment(self) -> dict[str, str]:
        return os.environ | {"PYTHONPATH": str(ROOT / "src")}

    def kill_manifest(self) -> None:
        """Kill the stage in its course, at a third and two thirds of its time, and run it again: the same bytes."""
        before, whole = sha256(MANIFEST), self.found[-1].value
        MANIFEST.unlink()
        command = [sys.executable, "-m", "persistworld.cli", "manifest", "--threads", "1"]
        for share in (1 / 3, 2 / 3):
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=self.environment())
            while _cpu(process.pid) < share * whole and process.poll() is None:
                time.sleep(0.1)
            process.send_signal(signal.SIGKILL)
            process.wait()
            if MANIFEST.exists():
                self.found.append(Row("manifest, killed", 0, "", "FAILED: a killed stage left a manifest"))
        self.stage("manifest", "after two kills")
        if sha256(MANIFEST) != before:
            self.found.append(Row("manifest, killed", 0, "", "FAILED: other bytes after the kills"))

    def make_data_set(self) -> str:
        """LeRobot v2.1 in `data_set`: each length's parquet file and video are written once and linked for all its episodes."""
        root, models = self.folder / "data_set", self.folder / "models"
        models.mkdir(parents=True)
        rng = np.random.default_rng(0)
        low, high = np.array(CTRL_WORLD_STATISTICS.low), np.array(CTRL_WORLD_STATISTICS.high)
        for length in LENGTHS:
            pose = (low + (high - low) * rng.uniform(0.1, 0.9, (length, 7))).astype(np.float32)
            columns = {
                "observation.state.cartesian_position": list(pose[:, :6]), "observation.state.gripper_position": np.clip(pose[:, 6], 0, 1),
                "action.cartesian_position": list(pose[:, :6]), "action.gripper_position": np.clip(pose[:, 6], 0, 1),
                "timestamp": (np.arange(length) / 15).astype(np.float32), "frame_index": np.arange(length),
                "is_episode_successful": np.full(length, True),
            }  # fmt: skip
            pq.write_table(pa.table(columns), models / f"{length}.parquet")
            write_video(models / f"{length}.mp4", rng.integers(0, 255, (length, SIZE, SIZE, 3), np.uint8), 15)
        for index in range(self.count):
            length = LENGTHS[index % len(LENGTHS)]
            _link(models / f"{length}.parquet", file_path(root, DATA_PATH, index))
            for view in VIEWS:
                _link(models / f"{length}.mp4", file_path(root, VIDEO_PATH, index, view))
        listed = [
            {"episode_index": i, "length": LENGTHS[i % len(LENGTHS)], "tasks": [SENTENCES[i % len(SENTENCES)]]} for i in range(self.count)
        ]
        (root / "meta").mkdir()
        (root / "meta/episodes.jsonl").write_text("".join(json.dumps(row) + "\n" for row in listed))
        (root / "meta/tasks.jsonl").write_text("".join(json.dumps({"task_index": i, "task": t}) + "\n" for i, t in enumerate(SENTENCES)))
        features = {key: {"dtype": "video", "shape": [SIZE, SIZE, 3]} for key in VIDEO_KEYS.values()}
        info = {"codebase_version": "v2.1", "fps": 15, "features": features, "chunks_size": CHUNK, "data_path": DATA_PATH}
        write_json(root / "meta/info.json", info | {"video_path": VIDEO_PATH})
        return f"{self.count:,} episodes, {sum(row['length'] for row in listed) / 1e6:.3g} M rows"

    def make_workspace(self) -> None:
        """A working folder with the preset droid at small frames, links to the code, and a tiny base checkpoint."""
        (self.work / BASE).mkdir(parents=True)
        for name in ("src", "workflow", "assets"):
            (self.work / name).symlink_to(ROOT / name)
        raw = yaml.safe_load((ROOT / "presets/droid.yaml").read_text())
        raw["episodes"] |= {"path": str(self.folder / "data_set"), "height": SIZE, "width": SIZE}
        raw["base_checkpoint"] = {"source": "file", "location": "tiny_base"}
        raw["latents"] |= {"shards": SHARDS}
        raw["masks"], raw["metrics"]["lpips"] = {"source": "none"}, "tabletop"
        raw["compute"] |= {"gpus": 0, "store_truth": False}
        (self.work / "params.yaml").write_text(yaml.safe_dump(raw))
        (self.work / "tiny_base").mkdir()
        torch.manual_seed(0)
        save_autoencoder(Autoencoder(AUTOENCODER), self.work / BASE)
        write_json(self.work / BASE / CONFIG, {"pose_statistics": dataclasses.asdict(CTRL_WORLD_STATISTICS)})


def make_latents(params: Params, count: int) -> str:
    """The shards of all episodes, as the stage `latents` writes them; latents are noise."""
    rng = torch.Generator().manual_seed(0)
    low, high = torch.tensor(CTRL_WORLD_STATISTICS.low), torch.tensor(CTRL_WORLD_STATISTICS.high)
    cells = SIZE // AUTOENCODER.factor
    indices, frames = wanted_indices(dataclasses.replace(params.episodes, count=count)), 0
    for shard in range(SHARDS):
        tensors, episodes = {}, {}
        for index in indices[shard::SHARDS]:
            length = LENGTHS[index % len(LENGTHS)] // STRIDE
            tensors[str(index)] = torch.randn(length, AUTOENCODER.latent_channels, len(VIEWS) * cells, cells, generator=rng)
            tensors[f"{index}.poses"] = low + (high - low) * torch.rand(length, 7, generator=rng)
            episodes[str(index)] = dataclasses.asdict(Encoded(length, SENTENCES[index % len(SENTENCES)], True))
            frames += length
        LATENTS.mkdir(parents=True, exist_ok=True)
        save_file(tensors, LATENTS / f"shard-{shard}.safetensors")
        write_json(LATENTS / f"shard-{shard}.json", {"episodes": episodes, "bad": {}})
    return f"{frames / 1e6:.3g} M frames in {SHARDS} shards"


def make_scores(params: Params, episodes: list[int]) -> str:
    """A score table of every model, in the format of the stage `scores`; values are random, and better for later models."""
    rng, count = np.random.default_rng(0), params.rollout_frames
    axes = {
        "episode": episodes, "frame": range(count), "view": list(params.episodes.views), "region": REGIONS, "metric": METRICS,
        "protocol": PROTOCOLS,
    }  # fmt: skip
    index = pd.MultiIndex.from_product(axes.values(), names=axes).to_frame(index=False)
    meta = {"lpips_backbone": "tabletop", "convention": "ctrl_world", "ssim_window": 7, "masked_lpips": "multiplied", "empty_masks": {}}
    for better, model in enumerate(params.evaluation.models):
        seed = -1 if model in ("copy_frame", "autoencoder") else params.evaluation.seeds[0]
        value = rng.uniform(0.4, 0.6, len(index)) + 0.01 * better
        table = index.assign(model=model, seed=seed, chunk=np.maximum(index["frame"] - 1, 0) // 4, value=value)
        write_scores(SCORES / f"{model}.parquet", table[list(COLUMNS)], meta)
    return f"{len(index) * len(params.evaluation.models) / 1e6:.3g} M rows of {len(episodes)} episodes"


def make_rollouts(params: Params, episodes: list[int]) -> None:
    """Rollouts of base and post_trained, in the format of the stage `rollouts`; latents are noise."""
    cells = SIZE // AUTOENCODER.factor
    latents = torch.randn(len(episodes), params.rollout_frames, AUTOENCODER.latent_channels, len(VIEWS) * cells, cells)
    for model in ("base", "post_trained"):
        path = rollout_path(model, params.evaluation.seeds[0])
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file({"latents": latents, "episodes": torch.tensor(episodes)}, path)


def _link(source: Path, path: Path) -> None:
    if not path.parent.is_dir():
        path.parent.mkdir(parents=True)
    os.link(source, path)


def _cpu(process: int) -> float:
    """CPU seconds of a process; infinite once it has ended."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return float("inf")
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

"""The paper's scale on one GPU, in at most twelve minutes: `python -m benchmarks gpu [--size small] [--budget SECONDS] [--out FOLDER]`.

Random weights of full size (preset droid_single_gpu); no data set is needed. It measures seconds and memory of a chunk in several modes,
the autoencoder, a post-training step by phase, candidates batched and one by one, the reference's way of sampling, and two processes on one
GPU. `--size small` runs the same on a CPU with a tiny model, which only shows that the script works.

A chunk has 50 sampler steps; TIMED of them are timed, and seconds are scaled to all of them. Each measurement stands alone: if one fails
(out of memory), its error is a line of the result. Those that no longer fit into the budget are left out; the most important come first.
After each one, gpu.json and the page gpu.md are written to FOLDER (default: docs).
"""

import copy
import dataclasses
import functools
import gc
import json
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from diffusers.models.attention_processor import AttnProcessor2_0

from benchmarks import batching, phases
from benchmarks.engine import plain_loop
from benchmarks.materials import Materials, load_materials
from benchmarks.table import Row, markdown, peak_gib, seconds, seconds_in_turns
from persistworld.config.compute import RolloutCompute
from persistworld.config.params import Params, load_params
from persistworld.config.world_model import AutoencoderConfig, TextEncoderConfig, UNetConfig, WorldModelConfig
from persistworld.rollouts.compilation import compile_unet, prepare_unet
from persistworld.runtime.files import write_json
from persistworld.world_model.model import WorldModel, autocast

ROOT = Path(__file__).parents[1]
BUDGET = 700.0  # seconds
TIMED = 10  # sampler steps of a chunk that are timed
BATCHES = (1, 8, 16)
COMPILING = 100.0  # expected seconds to compile the full U-Net for one shape
FLOOR = "floor at an H200's 989 TFLOP/s: 0.46 s; aim: 1.0 s; the reference reports 5 s on an H100"
TINY = WorldModelConfig(
    autoencoder=AutoencoderConfig(patch=4, channels=(32,), layers=1),
    unet=UNetConfig(channels=(32, 32), heads=(1, 2), layers=1, cross_attention_dim=32, addition_time_embed_dim=16),
    text_encoder=TextEncoderConfig(hidden=16, layers=1, heads=1, projection=16, vocabulary=40, length=8),
)
Measure = Callable[[], list[Row]]


@dataclasses.dataclass(frozen=True)
class Measurement:
    """What is measured, how, and how many seconds it is expected to take at full size."""

    name: str
    measure: Measure
    expected: float = 10.0


class OutOfTime(Exception):
    """The budget ended in the middle of a measurement."""


def main(size: str, budget: float, folder: Path) -> dict:
    """Run everything; returns what gpu.json holds. Raises UserError if the full size has no GPU."""
    ends = time.monotonic() + budget
    params = load_params(ROOT / "presets/droid_single_gpu.yaml") if size == "full" else small_params()
    materials = load_materials(params)
    cuda = materials.device.type == "cuda"
    record = {
        "size": size, "device": torch.cuda.get_device_name() if cuda else f"CPU, {torch.get_num_threads()} threads", "gpu": cuda,
        "torch": torch.__version__, "machine": platform.machine(), "budget": budget, "results": [],
    }  # fmt: skip
    signal.signal(signal.SIGALRM, _out_of_time)
    for each in measurements(materials):
        record["results"].append(measured(each, ends))
        print(record["results"][-1], file=sys.stderr, flush=True)
        write_json(folder / "gpu.json", record)
        (folder / "gpu.md").write_text(page(record), encoding="utf-8")
    return record


def measured(each: Measurement, ends: float) -> dict:
    """The result of one measurement: its rows, or why there are none."""
    left = ends - time.monotonic()
    if left < each.expected:
        return {"name": each.name, "left out": f"{left:.0f} s of the budget were left, {each.expected:.0f} s expected"}
    began = time.monotonic()
    signal.setitimer(signal.ITIMER_REAL, left)
    try:
        rows = [dataclasses.asdict(row) for row in each.measure()]
    except Exception as error:  # whatever fails, the others go on
        lines = str(error).strip().splitlines()
        return {"name": each.name, "error": f"{type(error).__name__}: {lines[0] if lines else ''}"[:300]}
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        torch._dynamo.reset()
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    return {"name": each.name, "seconds": round(time.monotonic() - began, 1), "rows": rows}


def _out_of_time(*_: object) -> None:
    raise OutOfTime("the budget ended in this measurement")


def measurements(materials: Materials) -> Iterator[Measurement]:
    """All measurements, the most important first. Models in other modes are copies."""
    eager = materials.model
    yield Measurement("a chunk, float32", functools.partial(chunk, materials, eager, 1, "float32"), 20)
    for batch in BATCHES:
        yield Measurement(f"a chunk, bfloat16, batch {batch}", functools.partial(chunk, materials, eager, batch, "bfloat16"), 2 * batch)
    yield Measurement("decode and encode", functools.partial(autoencoder, materials))
    yield Measurement("a post-training step", functools.partial(step, materials), 60)
    yield Measurement("candidates, batched and one by one", functools.partial(candidates, materials), 60)
    yield Measurement("the reference's way", functools.partial(reference, materials), 30)
    for batch in BATCHES:
        name = f"a chunk, bfloat16 weights, channels-last, batch {batch}"
        yield Measurement(name, functools.partial(prepared, materials, batch), 2 * batch)
    yield Measurement("two processes on one GPU", two_processes, 30)
    for batch, mode in ((1, "reduce-overhead"), (8, "reduce-overhead"), (8, "default"), (16, "reduce-overhead"), (1, "default")):
        name = f"a chunk, {'CUDA graphs' if mode == 'reduce-overhead' else 'compiled'}, batch {batch}"
        yield Measurement(name, functools.partial(compiled, materials, batch, mode), COMPILING)


def chunk(materials: Materials, model: WorldModel, batch: int, precision: str) -> list[Row]:
    """Seconds per chunk and peak memory, `batch` chunks at once."""
    whole = materials.params.rollout.sampler
    timed = dataclasses.replace(whole, steps=min(TIMED, whole.steps))
    condition, noise = materials.condition(batch), materials.latents(batch, model.config.future)

    def sample() -> None:
        model.sample(condition, noise, timed, precision)

    peak = [Row("peak memory", peak_gib(sample), "GiB", "with the models")] if materials.device.type == "cuda" else []
    time = seconds(sample, 2) * whole.steps / timed.steps / batch
    return [Row("a chunk", time, "s", f"{timed.steps} of {whole.steps} steps timed; {FLOOR}"), *peak]


def compiled(materials: Materials, batch: int, mode: str) -> list[Row]:
    """`chunk` with the U-Net compiled, and the seconds of the first chunk, which compiles it."""
    model = copy.deepcopy(materials.model)
    compile_unet(model, "bfloat16", mode)
    began = time.monotonic()
    condition, noise = materials.condition(batch), materials.latents(batch, model.config.future)
    model.sample(condition, noise, dataclasses.replace(materials.params.rollout.sampler, steps=2), "bfloat16")
    first = time.monotonic() - began
    return [*chunk(materials, model, batch, "bfloat16"), Row("the first chunk", first, "s", "compiles")]


def prepared(materials: Materials, batch: int) -> list[Row]:
    """`chunk` with the weights held in bfloat16 and channels-last."""
    model = copy.deepcopy(materials.model)
    prepare_unet(model, "bfloat16")
    return chunk(materials, model, batch, "bfloat16")


def autoencoder(materials: Materials) -> list[Row]:
    """Images (one view of one frame) decoded and encoded per second, 16 at once."""
    images, found = materials.images(16), []
    with torch.no_grad():
        latents = materials.autoencoder.encode(images)
        for precision in ("float32", "bfloat16"):
            with autocast(materials.device, precision):
                found.append(Row(f"decode, {precision}", 16 / seconds(lambda: materials.autoencoder.decode(latents), 2), "images/s"))
                found.append(Row(f"encode, {precision}", 16 / seconds(lambda: materials.autoencoder.encode(images), 2), "images/s"))
    return found


def step(materials: Materials) -> list[Row]:
    """One post-training step by phase, and its peak memory."""
    few, factor = with_few_steps(materials)
    found = phases.rows(few, steps=2)
    scaled = [dataclasses.replace(row, value=factor * row.value) if row.what in ("prefix", "branch") else row for row in found]
    whole = sum(row.value for row in scaled if row.unit == "s" and row.what != "step")
    return [dataclasses.replace(row, value=whole) if row.what == "step" else row for row in scaled]


def candidates(materials: Materials) -> list[Row]:
    """The same candidates in one batch and one at a time."""
    few, factor = with_few_steps(materials)
    found = batching.rows(few, repeats=1)
    return [dataclasses.replace(row, value=row.value / factor, note="") if row.unit == "chunks/s" else row for row in found]


def reference(materials: Materials) -> list[Row]:
    """The reference's loop beside ours in turns: nothing is cached between steps, stock attention, two forward passes per step."""
    few, factor = with_few_steps(materials)
    sampler, model = few.params.rollout.sampler, materials.model
    condition, noise = materials.condition(1), materials.latents(1, model.config.future)
    stock = copy.deepcopy(model)
    stock.unet.set_attn_processor(AttnProcessor2_0())

    def theirs() -> None:
        with autocast(materials.device, "bfloat16"):
            plain_loop(stock, condition, noise, sampler, passes=2)

    ours, other = seconds_in_turns([lambda: model.sample(condition, noise, sampler, "bfloat16"), theirs], 2)
    return [
        Row("ours, a chunk", factor * ours, "s", "bfloat16, not compiled"),
        Row("the reference's way, a chunk", factor * other, "s", "bfloat16, two forward passes per step"),
        Row("ratio", other / ours, "", "the reference also decodes and encodes between chunks"),
    ]


def two_processes() -> list[Row]:
    """Two processes on one device sum a tensor: nccl on a GPU, if it allows that; gloo on a CPU."""
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "benchmarks.two_processes"]
    began = time.monotonic()
    found = subprocess.run(launch, capture_output=True, text=True, timeout=120, cwd=ROOT)
    if found.returncode:
        reasons = [line for line in found.stderr.splitlines() if "Error" in line] or found.stderr.splitlines()[-1:]
        raise RuntimeError(reasons[0].strip() if reasons else f"exit status {found.returncode}")
    result = json.loads(found.stdout.splitlines()[-1])
    return [
        Row(f"all-reduce of 100 MB over {result['backend']}", result["seconds"], "s"),
        Row("start to end", time.monotonic() - began, "s"),
    ]


def with_few_steps(materials: Materials) -> tuple[Materials, float]:
    """The materials with TIMED sampler steps, and the factor to all of them."""
    params, whole = materials.params, materials.params.rollout.sampler
    sampler = dataclasses.replace(whole, steps=min(TIMED, whole.steps))
    changed = dataclasses.replace(
        params,
        rollout=dataclasses.replace(params.rollout, sampler=sampler),
        post_training=dataclasses.replace(params.post_training, sampler=sampler),
    )
    return dataclasses.replace(materials, params=changed), whole.steps / sampler.steps


def small_params() -> Params:
    """The tabletop with a tiny random model, for a CPU."""
    whole = load_params(ROOT / "presets/tabletop.yaml")
    return dataclasses.replace(
        whole,
        world_model=TINY,
        base_checkpoint=dataclasses.replace(whole.base_checkpoint, location="nowhere"),
        episodes=dataclasses.replace(whole.episodes, height=16, width=16),
        post_training=dataclasses.replace(whole.post_training, groups=2, candidates=4, keep=1, prefix=(0, 1)),
        compute=dataclasses.replace(whole.compute, rollout=RolloutCompute(batch=2)),
    )


def page(record: dict) -> str:
    """gpu.md: the results as tables, and on what they were measured."""
    full = record["size"] == "full" and record["gpu"]
    warning = (
        f"Measured on one {record['device']}, with random weights of full size."
        if full
        else "**No GPU has measured this yet.** The numbers below are of a tiny model and only show that the script works."
    )
    parts = [
        "# One GPU, measured",
        "`python -m benchmarks gpu` writes this page and gpu.json beside it.",
        warning,
        f"{record['device']}; torch {record['torch']}; budget {record['budget']:.0f} s.",
    ]
    for each in record["results"]:
        if "rows" in each:
            parts.append(markdown(each["name"], [Row(**row) for row in each["rows"]]).strip())
        else:
            why = "error" if "error" in each else "left out"
            parts.append(f"### {each['name']}\n\n{why}: {each[why]}")
    return "\n\n".join(parts) + "\n"

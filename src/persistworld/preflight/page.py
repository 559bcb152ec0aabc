"""The page that a run begins with: what it will use, leave out and convert, and how much disk and time it takes.

Problems that would stop a later stage are reported here, in one line.
"""

from pathlib import Path

from persistworld.checkpoints.hub import known_model
from persistworld.checkpoints.layout import CONFIG, checkpoint_statistics
from persistworld.config.params import Params
from persistworld.config.reading import build_section
from persistworld.config.world_model import WorldModelConfig
from persistworld.data.formats import open_episodes
from persistworld.data.manifest import wanted_indices
from persistworld.preflight.survey import Survey, survey
from persistworld.runtime.errors import UserError
from persistworld.runtime.files import read_json, user_path
from persistworld.runtime.room import cache, free_bytes, used_bytes, writable
from persistworld.runtime.workspace import BASE, CHECKPOINTS, DATA, LATENTS, RESULTS, ROLLOUTS, RUNS, TRUTH
from persistworld.world_model.poses import CTRL_WORLD_STATISTICS, PoseStatistics

LISTED = 5  # the most notes and left-out episodes that are printed
FLOAT32 = 4  # bytes
LPIPS_FILES = {"alex": "alexnet-*.pth", "vgg": "vgg16-*.pth", "squeeze": "squeezenet1_1-*.pth"}


def preflight(params: Params, threads: int) -> str:
    """The page as text. Raises UserError at the first problem that would stop a run later."""
    _check_folders(params)
    model = _model(params)
    if model is not None:
        model.check_frames(params.episodes.height, params.episodes.width, len(params.episodes.views))
    if params.episodes.source == "simulate":
        wanted, frames, lines = wanted_indices(params.episodes), float(params.episodes.frames), []
        if not wanted:
            splits = ", ".join(params.episodes.splits)
            raise UserError(f"episodes.count = {params.episodes.count}: none of them is in episodes.splits, {splits}; raise it")
        lines.append(f"episodes      {len(wanted)} simulated, {params.episodes.frames} frames each")
    else:
        path = params.episodes.path
        source = open_episodes(path, params.episodes.keep_ranges)
        found = survey(source, params.episodes, _statistics(params), path)
        wanted, frames, lines = found.wanted, found.mean_frames, data_lines(found, params, threads)
    return "\n".join([*lines, *_disk_lines(params, model or params.world_model, len(wanted), frames)])


def data_lines(found: Survey, params: Params, threads: int) -> list[str]:
    """Lines on what is used of the data set, what is left out and what is converted."""
    settings, wanted = params.episodes, found.wanted
    splits = ", ".join(f"{len(indices)} {name}" for name, indices in found.splits.items())
    lines = [
        f"data set      {settings.path}: {found.listed} episodes, {len(wanted)} asked for ({splits})",
        f"views         {', '.join(settings.views)}" + _but("not used", [v for v in found.views if v not in settings.views]),
    ]
    if settings.keep_ranges:
        lines.append(f"idle time     left out as {settings.keep_ranges} says; of an episode its longest stretch is kept")
    height, width = found.size
    lines.append(
        f"frames        {height} x {width} -> {settings.height} x {settings.width}, every {_nth(found.stride)}frame -> {settings.fps:g} Hz"
    )
    tried = len(found.frames) + len(found.bad)
    lines.append(f"tried         {tried} episodes to their end: {len(found.frames)} can be used, {found.mean_frames:.0f} frames on average")
    lines += [f"  left out    episode {index}: {reason}" for index, reason in list(found.bad.items())[:LISTED]]
    lines += [f"  dealt with  in {count}: {note}" for note, count in found.notes.most_common(LISTED)]
    short = [index for index, count in found.frames.items() if count < params.rollout_frames]
    if short:
        lines.append(f"  too short   {len(short)} have fewer than a rollout's {params.rollout_frames} frames and are not evaluated")
    lines += [f"  poses       {each}" for each in found.ranges] or ["  poses       no checkpoint yet to hold them against"]
    minutes = found.seconds * len(wanted) / 60
    spread = f"{minutes:.3g} minutes for all on one core, {minutes / threads:.3g} on {threads}"
    lines.append(f"reading       {found.seconds:.2g} s an episode: {spread}")
    return lines


def _but(what: str, names: list[str]) -> str:
    return f" ({what}: {', '.join(names)})" if names else ""


def _nth(stride: int) -> str:
    return {1: "", 2: "second ", 3: "third "}.get(stride, f"{stride}th ")


def _check_folders(params: Params) -> None:
    """Raise UserError if a folder that a later stage needs is not writable."""
    for folder in (DATA, RUNS, CHECKPOINTS, RESULTS):
        if not writable(folder):
            raise UserError(f"{folder.absolute()}: cannot be written; work in a folder of your own")
    lpips, weights = params.metrics.lpips, cache("TORCH_HOME", "torch") / "hub/checkpoints"
    if lpips in LPIPS_FILES and not list(weights.glob(LPIPS_FILES[lpips])) and not writable(weights):
        raise UserError(
            f"metrics.lpips = {lpips}: its weights would be downloaded to {weights}, which cannot be written; set TORCH_HOME to a folder "
            "that can"
        )
    hub = cache("HF_HOME", "huggingface")
    if params.base_checkpoint.source == "hf" and not (BASE / CONFIG).exists() and not writable(hub):
        raise UserError(
            f"base_checkpoint.location = {params.base_checkpoint.location}: would be downloaded to {hub}, which cannot be written; set "
            "HF_HOME to a folder that can"
        )


def _config(params: Params) -> Path | None:
    """The folder with the base checkpoint's config.json, if it can be read before the checkpoint is fetched."""
    if params.base_checkpoint.source != "file":
        return None
    folder = user_path(params.base_checkpoint.location)
    raw = read_json(folder / CONFIG) if (folder / CONFIG).is_file() else None
    return folder if isinstance(raw, dict) and "pose_statistics" in raw and "world_model" in raw else None


def _model(params: Params) -> WorldModelConfig | None:
    """The base checkpoint's sizes, if they are known. A published model has the default sizes."""
    folder = _config(params)
    if folder is not None:
        return build_section(WorldModelConfig, read_json(folder / CONFIG)["world_model"], "world_model")
    published = params.base_checkpoint.source == "hf" and known_model(params.base_checkpoint.location)
    return WorldModelConfig() if published else None


def _statistics(params: Params) -> PoseStatistics | None:
    """The pose statistics of the base checkpoint, if they are already known."""
    folder = _config(params)
    if folder is not None:
        return checkpoint_statistics(folder)
    published = params.base_checkpoint.source == "hf" and known_model(params.base_checkpoint.location)
    return CTRL_WORLD_STATISTICS if published else None


def _disk_lines(params: Params, model: WorldModelConfig, episodes: int, frames: float) -> list[str]:
    """Lines on the disk space of latents and rollouts. Raises UserError if the disk has too little."""
    settings, factor = params.episodes, model.autoencoder.factor
    cells = (settings.height // factor) * (settings.width // factor) * len(settings.views)
    frame = model.autoencoder.latent_channels * cells * FLOAT32
    models = params.models.rolled_out(params.evaluation.models)
    evaluated = min(episodes, params.evaluation.episodes or episodes)
    latents = int(episodes * frames * frame)
    rollouts = len(models) * len(params.evaluation.seeds) * evaluated * params.rollout_frames * frame
    pixels = 2 * 3 * settings.height * settings.width * len(settings.views)  # bytes per frame: recorded and decoded, uint8 RGB
    truth = evaluated * params.rollout_frames * pixels if params.compute.store_truth else 0
    needed = {LATENTS: latents - used_bytes(LATENTS), TRUTH: truth - used_bytes(TRUTH), ROLLOUTS: rollouts - used_bytes(ROLLOUTS)}
    free = free_bytes(DATA)
    lacking = sum(max(0, size) for size in needed.values())
    if lacking > free:
        raise UserError(
            f"{DATA.absolute()}: latents ({_size(latents)}) and rollouts ({_size(rollouts)}) do not fit into the {_size(free)} that are "
            "free; make room, put data/ on another disk, or lower episodes.count"
        )
    return [
        f"disk          latents {_size(latents)}, rollouts at most {_size(rollouts)}; {_size(free)} are free in {DATA.absolute()}",
    ]


def _size(count: float) -> str:
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"

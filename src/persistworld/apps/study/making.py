"""Making a study: its items and films, from rollouts and recordings (preference) or from videos of policies (progress)."""

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

from persistworld.apps.study.films import encode_film, padded, read_frames
from persistworld.apps.study.order import chosen_pairs
from persistworld.apps.study.store import Material
from persistworld.config.params import Params
from persistworld.data.manifest import Entry, evaluation_episodes, load_manifest
from persistworld.evaluation.rollout_files import read_rollout
from persistworld.evaluation.truth import open_truth
from persistworld.runtime.errors import UserError
from persistworld.runtime.progress import track
from persistworld.runtime.workspace import BASE, MANIFEST
from persistworld.world_model.autoencoder import decode_views, load_autoencoder
from persistworld.world_model.views import split_views

DECODED = 32  # images at once
ROLLOUT_COLUMNS = ("world", "policy", "task", "state", "seed", "stages", "video")
ARROW = ">"  # between the stages of a task


def task_of(instruction: str) -> str:
    """The task in one word: the first word of the instruction, its verb. (Whole instructions are nearly all different.)"""
    return (instruction.split() or ["none"])[0].lower().strip(".,:;!?") or "none"


def pairs(params: Params, views: Sequence[str], count: int, seed: int) -> list[tuple[Entry, int, str]]:
    """The (episode, seed, view) that a preference study shows: see `order.chosen_pairs`."""
    entries = {e.index: e for e in evaluation_episodes(load_manifest(MANIFEST), params.evaluation, params.rollout_frames)}
    chosen = chosen_pairs(sorted(entries), params.evaluation.seeds, views, count, seed)
    return [(entries[episode], rollout_seed, view) for episode, rollout_seed, view in chosen]


def preference_materials(params: Params, models: tuple[str, str], items: list[tuple[Entry, int, str]]) -> Iterator[Material]:
    """Each item's recorded film and those of both models."""
    views, fps = params.episodes.views, params.episodes.fps
    autoencoder = load_autoencoder(BASE)
    truth = open_truth(params, autoencoder)
    for entry, seed, view in track(items, len(items), "films"):
        place = views.index(view)
        frames = {}
        for model in models:
            latents = split_views(read_rollout(model, seed, entry.index), len(views))[:, place]
            frames[model] = decode_views(autoencoder, latents, 1, DECODED)[:, 0].numpy()
        recorded = truth.recorded(entry.index)[:, place].numpy()
        films = padded([encode_film(part, fps) for part in (recorded, *(frames[model] for model in models))])
        about = {"episode": entry.index, "seed": seed, "view": view, "instruction": entry.instruction, "task": task_of(entry.instruction)}
        yield Material(about | {"frames": len(recorded), "fps": fps}, dict(zip(("reference", *models), films, strict=True)))


def read_policy_rollouts(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV of policy rollouts to label. Columns: `ROLLOUT_COLUMNS`; stages are in order and separated by >; video is a path
    relative to the CSV. Raises UserError, naming the line, for a missing column, value or file, and for a repeated rollout.
    """
    try:
        with open(path, newline="") as file:
            reader = csv.DictReader(file)
            rows, columns = list(reader), reader.fieldnames or []
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: not a readable CSV ({error})") from None
    if missing := [name for name in ROLLOUT_COLUMNS if name not in columns]:
        raise UserError(f"{path}: column '{missing[0]}' is missing; expected {', '.join(ROLLOUT_COLUMNS)}")
    seen = set()
    for line, row in enumerate(rows, 2):
        if empty := [name for name in ROLLOUT_COLUMNS if not (row[name] or "").strip()]:
            raise UserError(f"{path}, line {line}: {empty[0]} is empty")
        if not (path.parent / row["video"]).is_file():
            raise UserError(f"{path}, line {line}: {path.parent / row['video']}: no such video")
        key = tuple(row[name] for name in ROLLOUT_COLUMNS[:5])
        if key in seen:
            raise UserError(f"{path}, line {line}: the rollout {', '.join(key)} comes twice")
        seen.add(key)
    if not rows:
        raise UserError(f"{path}: names no rollout")
    return rows


def progress_materials(path: Path, rows: list[dict[str, str]]) -> Iterator[Material]:
    """Each policy rollout's film, encoded again so that nothing in the file reveals its origin."""
    for row in track(rows, len(rows), "films"):
        frames, fps = read_frames(str(path.parent / row["video"]))
        about: dict = {name: row[name].strip() for name in ROLLOUT_COLUMNS[:5]}
        about["stages"] = [stage.strip() for stage in row["stages"].split(ARROW)]
        yield Material(about | {"frames": len(frames), "fps": fps}, {"film": padded([encode_film(frames, fps)])[0]})

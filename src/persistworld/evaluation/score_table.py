"""The score table, the only input of tables and figures: one row per model, seed, episode, frame, view, region, metric and protocol."""

import functools
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from persistworld.runtime.errors import UserError
from persistworld.runtime.files import atomic_path

METRICS = ("ssim", "psnr", "lpips")  # the paper's order
REGIONS = ("full", "object", "robot")
PROTOCOLS = ("decoded", "raw")
PAPER_GROUPS = ("external", "wrist")  # the rows of the paper's tables; external is the mean of all exterior views
COLUMNS = {
    "model": "string", "seed": "int16", "episode": "int32", "chunk": "int16", "frame": "int16", "view": "string",
    "region": "string", "metric": "string", "protocol": "string", "value": "float32",
}  # fmt: skip
NAMES = [name for name, kind in COLUMNS.items() if kind == "string"]
KEY = [name for name in COLUMNS if name != "value"]
SCHEMA = pa.schema([(name, pa.type_for_alias(kind)) for name, kind in COLUMNS.items()])
# In memory, names are kept once: DROID's table has 15 M rows.
ENCODED = pa.schema([(f.name, pa.dictionary(pa.int32(), f.type) if pa.types.is_string(f.type) else f.type) for f in SCHEMA])
Cells = dict[tuple[str, ...], pd.Series]
META_KEY = b"persistworld"
SHARED_META = ("lpips_backbone", "convention", "ssim_window", "masked_lpips")  # must be equal in all files
# Optional: masks {source, episodes, episodes_without_instruction, episodes_without_noun}, left_out {split, too_short} (episodes).
OPTIONAL_META = ("masks", "left_out")


@dataclass(frozen=True)
class Scores:
    """The scores of all models. `meta` holds their common metadata, and `empty_masks`: {model: {view: {region: number of
    frames without a mask}}}.
    """

    frame: pd.DataFrame
    meta: dict[str, Any]

    @property
    def models(self) -> list[str]:
        """The models' names, in the order of the files."""
        return list(self.frame["model"].unique())

    @functools.cached_property
    def cells(self) -> Cells:
        """`episode_cells` of the scores, computed once."""
        return episode_cells(self.frame)

    @property
    def groups(self) -> tuple[str, ...]:
        """The groups of the scored views, in the order of the tables."""
        return view_groups(self.frame["view"].unique())


def write_scores(path: str | Path, frame: pd.DataFrame, meta: dict[str, Any]) -> None:
    """Write one model's scores atomically, with metadata about the metrics' settings."""
    table = pa.Table.from_pandas(frame[list(COLUMNS)], SCHEMA, preserve_index=False)
    table = table.replace_schema_metadata({META_KEY: json.dumps(meta, sort_keys=True).encode()})
    with atomic_path(path) as part:
        pq.write_table(table, part, compression="zstd")


def load_scores(paths: Iterable[str | Path], models: Sequence[str] = ()) -> Scores:
    """Read and join the models' parquet files. models: names that must be present, if given.

    Raises UserError, naming the file, for a missing file, wrong columns, unknown names, values that are not finite,
    duplicate rows, or files that were made with different metrics.
    """
    tables, shared, empty = [], {}, {}
    first = None
    for path in map(Path, paths):
        table, meta = _read(path)
        for key in SHARED_META + OPTIONAL_META:
            if key in OPTIONAL_META and key not in meta:
                continue
            if key not in meta:
                raise UserError(f"{path}: its metadata lacks '{key}'; score the model again (stage scores)")
            if shared.setdefault(key, meta[key]) != meta[key]:
                differs = f"{key} is {meta[key]!r}, but {shared[key]!r} in {first}"
                raise UserError(f"{path}: {differs}; score both models with the same parameters")
        first = first or path
        tables.append(table)
        for model in table["model"].unique().to_pylist():
            empty[model] = meta.get("empty_masks", {})
    if not tables:
        raise UserError("no score files: run the stage scores for every model of evaluation.models")
    missing = [model for model in models if model not in empty]
    if missing:
        raise UserError(f"no scores of model '{missing[0]}': run the stage scores --model {missing[0]}")
    together = pa.concat_tables(tables).unify_dictionaries().to_pandas()
    return Scores(together, {**shared, "empty_masks": empty})


def _read(path: Path) -> tuple[pa.Table, dict[str, Any]]:
    try:
        table = pq.read_table(path, read_dictionary=NAMES)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; run the stage scores --model {path.stem}") from None
    except (pa.ArrowInvalid, OSError) as error:
        raise UserError(
            f"{path}: not a whole parquet file ({error}); delete it and run the stage scores again"
        ) from None
    missing = [name for name in COLUMNS if name not in table.column_names]
    if missing:
        raise UserError(f"{path}: column '{missing[0]}' is missing; expected {', '.join(COLUMNS)}")
    try:
        chosen = table.select(list(COLUMNS)).cast(ENCODED).unify_dictionaries()
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise UserError(f"{path}: a column has the wrong type ({' '.join(str(error).split())})") from None
    frame = chosen.to_pandas()
    for column, known in (("region", REGIONS), ("metric", METRICS), ("protocol", PROTOCOLS)):
        unknown = set(frame[column].cat.categories) - set(known)
        if unknown:
            raise UserError(f"{path}: {column} '{min(unknown)}' is unknown; expected {', '.join(known)}")
    if not np.isfinite(frame["value"]).all():
        row = frame[~np.isfinite(frame["value"])].iloc[0]
        raise UserError(f"{path}: {_place(row)} is {row.value}; score the model again (empty masks have no row)")
    if frame.duplicated(KEY).any():
        row = frame[frame.duplicated(KEY)].iloc[0]
        raise UserError(f"{path}: {_place(row)} occurs twice; score the model again")
    return chosen, json.loads((table.schema.metadata or {}).get(META_KEY, b"{}"))


def _place(row: pd.Series) -> str:
    return f"{row.metric} of episode {row.episode}, frame {row.frame}, {row.view}"


def view_group(view: str) -> str:
    """The group of a view: external for every exterior view, otherwise the view's own name."""
    return "external" if view.startswith("exterior") else view


def view_groups(views: Iterable[str]) -> tuple[str, ...]:
    """The groups of `views` without repetition: the paper's groups first, then the others by name."""
    found = {view_group(view) for view in views}
    return tuple([g for g in PAPER_GROUPS if g in found] + sorted(found - set(PAPER_GROUPS)))


def closest_group(groups: Sequence[str]) -> str:
    """The group that represents the camera at the gripper: wrist if present, otherwise the last of `groups`."""
    return "wrist" if "wrist" in groups else groups[-1]


def _with_group(frame: pd.DataFrame) -> pd.DataFrame:
    group = frame["view"].astype("category")
    group = group.cat.codes.map(dict(enumerate(map(view_group, group.cat.categories)))).astype("category")
    return frame.assign(group=group, value=frame["value"].astype("float64"))


def episode_values(frame: pd.DataFrame) -> pd.DataFrame:
    """One value per (protocol, model, group, region, metric, episode): the mean over frames, then views, then seeds.

    `group` is the view's group (`view_group`). Frames, views or seeds without a value (empty masks) are left out of the mean.
    """
    outer = ["protocol", "model", "group", "region", "metric", "episode"]
    values = _with_group(frame)
    for level in (["view", "seed"], ["seed"], []):
        values = values.groupby(outer + level, observed=True, sort=True)["value"].mean().reset_index()
    return values


def curve_values(frame: pd.DataFrame) -> pd.DataFrame:
    """Like `episode_values`, but without the mean over frames: one value per (..., episode, frame)."""
    outer = ["protocol", "model", "group", "region", "metric", "episode", "frame"]
    values = _with_group(frame)
    for level in (["seed"], []):
        values = values.groupby(outer + level, observed=True, sort=True)["value"].mean().reset_index()
    return values


def episode_cells(frame: pd.DataFrame) -> Cells:
    """`episode_values` by cell: (protocol, model, group, region, metric) -> the episodes' values, indexed by episode."""
    values = episode_values(frame)
    key = ["protocol", "model", "group", "region", "metric"]
    parts = values.groupby(key, observed=True, sort=False)
    return {name: part.set_index("episode")["value"].sort_index() for name, part in parts}


def cell_values(cells: Cells, protocol: str, model: str, group: str, region: str, metric: str) -> pd.Series:
    """The episodes' values of one cell, indexed by episode, ascending; empty when there are none."""
    return cells.get((protocol, model, group, region, metric), pd.Series(dtype=float))

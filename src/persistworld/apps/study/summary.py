"""The numbers on the administrator's page: progress and agreement of the raters. No answer appears with a rater's name."""

from typing import Any

import numpy as np
import pandas as pd

from persistworld.apps.study.rows import csv_rows
from persistworld.apps.study.store import Store
from persistworld.evaluation.agreement import krippendorff_alpha
from persistworld.evaluation.preference import analysed


def summary(store: Store) -> dict[str, Any]:
    """Progress by rater in words (exact counts would reveal whose rows are whose in the CSV), totals, agreement, and remarks."""
    people = store.progress()
    rows = pd.DataFrame(csv_rows(store))
    kind = store.meta["kind"]
    return {
        "title": store.meta["title"],
        "kind": kind,
        "models": store.meta.get("models", []),
        "raters": [{"name": row["name"] or "(no name)", "state": _state(row)} for row in people],
        "answered": sum(row["answered"] for row in people),
        "wanted": sum(row["items"] for row in people),
        "items": len(store.items()),
        "results": None if rows.empty else _votes(rows, store.meta["models"]) if kind == "preference" else _labels(rows),
        "remarks": store.notes(),
    }


def _state(row: Any) -> str:
    if row["opened"] is None:
        return "link not opened"
    if row["began"] is None:
        return "reads the introduction"
    return "finished" if row["answered"] == row["items"] else "rates"


def _votes(rows: pd.DataFrame, models: list[str]) -> dict[str, Any]:
    """The results of `analysed` that concern all raters together."""
    found = analysed(rows, models[0])
    return {key: found[key] for key in ("ours", "theirs", "votes", "preference", "agreement", "position")}


def _labels(rows: pd.DataFrame) -> dict[str, Any]:
    """Mean progress by world and policy, and Krippendorff's alpha of the stages reached (interval level)."""
    item = ["world", "policy", "task", "state", "seed"]
    table = rows.groupby(item)["reached"].value_counts().unstack(fill_value=0)
    table = table.reindex(columns=range(int(rows["stages"].max()) + 1), fill_value=0)
    alpha = krippendorff_alpha(table.to_numpy(), "interval")
    means = rows.groupby(["world", "policy"])["progress"].mean().reset_index()
    shared = int((table.sum(axis=1) >= 2).sum())
    return {"progress": means.to_dict("records"), "alpha": None if np.isnan(alpha) else alpha, "shared": shared}

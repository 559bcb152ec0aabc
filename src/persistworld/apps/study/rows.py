"""A study's answers as rows of the CSVs that the statistics and the policy evaluation read (`evaluation.votes`)."""

from typing import Any

from persistworld.apps.study.store import Store, shown_as
from persistworld.evaluation.votes import PROGRESS, VOTES

CSV_COLUMNS = {"preference": VOTES, "progress": PROGRESS}


def csv_rows(store: Store) -> list[dict[str, Any]]:
    """One row per valid answer, in the order of arrival. Raters appear as codes, never by name."""
    items, row = store.items(), _vote if store.meta["kind"] == "preference" else _label
    return [row(answer, items[answer["item"]], store.meta.get("models", [])) for answer in store.answers()]


def _vote(answer: dict[str, Any], about: dict[str, Any], models: list[str]) -> dict[str, Any]:
    winner = shown_as(answer["answer"], answer["first"], models)
    loser = next(model for model in models if model != winner)
    item = {name: about[name] for name in ("episode", "seed", "view", "task")}
    return {"rater": answer["rater"], **item, "winner": winner, "loser": loser, "side": answer["answer"], "at": answer["at"]}


def _label(answer: dict[str, Any], about: dict[str, Any], _: list[str]) -> dict[str, Any]:
    reached, stages = int(answer["answer"]), len(about["stages"])
    item = {name: about[name] for name in ("world", "policy", "task", "state", "seed")}
    scale = {"reached": reached, "stages": stages, "progress": round(reached / stages, 6)}
    return {"rater": answer["rater"], **item, **scale, "at": answer["at"]}

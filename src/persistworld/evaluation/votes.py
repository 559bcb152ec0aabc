"""Votes of people as CSV: which of two models a rater preferred, item by item; and how far a policy's rollout came.

Rows are in the order in which the votes came, which is the order that Elo ratings take them in.
"""

import csv
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from persistworld.runtime.errors import UserError
from persistworld.runtime.files import atomic_path

# A vote: who, on which rollout, what is done in it, which model won against which, in which place the winner was shown (a, b), when.
VOTES = ("rater", "episode", "seed", "view", "task", "winner", "loser", "side", "at")
# A label: who, on which rollout of which policy (world: real, or a world model), how many of the stages were reached in order, when.
# progress is reached / stages, between 0 and 1 (paper, Table 12).
PROGRESS = ("rater", "world", "policy", "task", "state", "seed", "reached", "stages", "progress", "at")
ITEM = ["episode", "seed", "view"]


def write_rows(path: str | Path, columns: tuple[str, ...], rows: Iterable[Mapping[str, Any]]) -> None:
    """Write a CSV with a header, atomically."""
    with atomic_path(path) as part, open(part, "w", newline="") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def read_votes(path: str | Path) -> pd.DataFrame:
    """The votes of one pair of models, with the columns `VOTES`; there may be none.

    Raises UserError, naming the file and the line, for anything that is no vote: a missing column or value, another side than a or b, a
    model against itself, a third model, a rater who votes twice on one item.
    """
    path = Path(path)
    try:
        votes = pd.read_csv(path, dtype={name: str for name in VOTES if name not in ("episode", "seed")}, keep_default_na=False)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; `persistworld study export NAME --output {path}` writes it") from None
    except (ValueError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not a CSV of votes ({' '.join(str(error).split())}); export it again") from None
    if missing := [name for name in VOTES if name not in votes.columns]:
        raise UserError(f"{path}: column '{missing[0]}' is missing; expected {', '.join(VOTES)}")
    votes = votes[list(VOTES)]
    numbers = votes[["episode", "seed"]].apply(pd.to_numeric, errors="coerce")
    empty = (votes[["rater", "view", "winner", "loser"]] == "").any(axis=1)
    models = sorted(set(votes["winner"]) | set(votes["loser"]))
    for wrong, why in (
        (empty, "rater, view, winner or loser is empty"),
        ((numbers.isna() | (numbers % 1 != 0)).any(axis=1), "episode or seed is no whole number"),
        (~votes["side"].isin(["a", "b"]), "side is neither a nor b"),
        (votes["winner"] == votes["loser"], "winner and loser are the same model"),
        (~votes[["winner", "loser"]].isin(models[:2]).all(axis=1), f"a third model ({', '.join(models)}); give each pair a file"),
        (votes.duplicated(["rater", *ITEM]), "the rater has a vote on this item already"),
    ):
        if wrong.any():
            raise UserError(f"{path}, line {int(wrong.to_numpy().argmax()) + 2}: {why}")
    return votes.astype({"episode": int, "seed": int})

"""CSV files of human votes (which of two models a rater preferred on each item), and of progress labels of policies' rollouts.

Rows are in the order of the votes, in which Elo ratings process them.
"""

import csv
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from persistworld.runtime.errors import UserError
from persistworld.runtime.files import atomic_path

# A vote: the rater, the rollout (episode, seed, view), its task, the winning and the losing model, the winner's side (a or b), the time.
VOTES = ("rater", "episode", "seed", "view", "task", "winner", "loser", "side", "at")
# A label: the rater, the rollout (world: real or a world model; policy, task, state, seed), the number of stages reached in order, the
# number of all stages, progress = reached / stages in 0..1 (paper, Table 12), the time.
PROGRESS = ("rater", "world", "policy", "task", "state", "seed", "reached", "stages", "progress", "at")
ITEM = ["episode", "seed", "view"]


def write_rows(path: str | Path, columns: tuple[str, ...], rows: Iterable[Mapping[str, Any]]) -> None:
    """Write a CSV file with a header, atomically."""
    with atomic_path(path) as part, open(part, "w", newline="") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def read_votes(path: str | Path) -> pd.DataFrame:
    """The votes of one pair of models, with the columns `VOTES`; there may be none.

    Raises UserError, naming the file and the line, for invalid votes: a missing column or value, a side that is not a or b, a model
    against itself, a third model, a rater with two votes on one item.
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


def read_progress(path: str | Path) -> pd.DataFrame:
    """Labels of people, with the columns `PROGRESS`, at least one row (`persistworld study export` writes them).

    Raises UserError, naming the file and the line, for a missing column or value, `reached` beyond `stages`, a rater with two labels on one
    rollout, and files without a rollout of `real`.
    """
    path = Path(path)
    words, numbers = ["rater", "world", "policy", "task"], ["state", "seed", "reached", "stages"]
    try:
        rows = pd.read_csv(path, dtype=dict.fromkeys(words, str), keep_default_na=False)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; `persistworld study export NAME --output {path}` writes it") from None
    except (ValueError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not a CSV of labels ({' '.join(str(error).split())}); export it again") from None
    if missing := [name for name in (*words, *numbers) if name not in rows.columns]:
        raise UserError(f"{path}: column '{missing[0]}' is missing; expected {', '.join(PROGRESS)}")
    values = rows[numbers].apply(pd.to_numeric, errors="coerce")
    for wrong, why in (
        ((rows[words] == "").any(axis=1), "rater, world, policy or task is empty"),
        ((values.isna() | (values % 1 != 0)).any(axis=1), "state, seed, reached or stages is no whole number"),
        ((values["reached"] < 0) | (values["reached"] > values["stages"]) | (values["stages"] < 1), "reached must lie in 0..stages"),
        (rows.duplicated([*words, "state", "seed"]), "the rater has a label on this rollout already"),
    ):
        if wrong.any():
            raise UserError(f"{path}, line {int(wrong.to_numpy().argmax()) + 2}: {why}")
    if not (rows["world"] == "real").any():
        raise UserError(f"{path}: no rollout of the world 'real', with which the models are compared")
    rows = rows[[*words, *numbers]].astype(dict.fromkeys(numbers, int))
    return rows.assign(progress=rows["reached"] / rows["stages"])

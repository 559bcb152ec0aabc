"""Finds an episode's instruction in the columns and lists where data sets store it."""

import json
import math
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from persistworld.data.formats.reading import odd_file
from persistworld.runtime.errors import UserError

COLUMNS = ("language_instruction", "language_instruction_2", "language_instruction_3")  # DROID's: three annotators
PARAPHRASES = re.compile(r"(?:^|\s)\|(?=\s|$)")  # separates paraphrases (nvidia/Cosmos3-DROID); the first is used
INDEX_COLUMN = "__index_level_0__"  # pandas' name for an unnamed index; LeRobot v3.0 stores a task's text in it


def first_words(found: Any) -> str:
    """The first non-empty instruction in a text or in a list of texts; "" if there is none."""
    if isinstance(found, str):
        return next((part.strip() for part in PARAPHRASES.split(found) if part.strip()), "")
    if isinstance(found, list | tuple):
        return next((words for each in found if (words := first_words(each))), "")
    if isinstance(found, bytes):
        return first_words(found.decode(errors="replace"))
    return ""


def instruction(table: pa.Table, listed: dict[str, Any], tasks: dict[int, str]) -> str:
    """The instruction of one episode; "" if there is none. These places are searched in order:

    the columns `language_instruction`, `_2` and `_3`; the keys `tasks` and `task` of the episode list's row (`listed`); and the column
    `task_index` (or the list's), looked up in the data set's `tasks`.
    """
    for name in COLUMNS:
        if name in table.column_names and (words := first_words(table[name].to_pylist())):
            return words
    for key in ("tasks", "task"):
        if words := first_words(listed.get(key)):
            return words
    numbers = table["task_index"].to_pylist() if "task_index" in table.column_names else [listed.get("task_index")]
    return first_words([tasks.get(number, "") for each in numbers if (number := _number(each)) is not None])


def _number(value: Any) -> int | None:
    only = value[0] if isinstance(value, list) and len(value) == 1 else value
    known = isinstance(only, int | float) and math.isfinite(only) and only == int(only)
    return int(only) if known else None


def read_tasks(root: Path) -> dict[int, str]:
    """task_index -> instruction, from meta/tasks.parquet (v3.0) or meta/tasks.jsonl (v2.1); empty without either file.

    Raises UserError when the file is malformed, or when two tasks have the same number.
    """
    parquet, lines = root / "meta/tasks.parquet", root / "meta/tasks.jsonl"
    if parquet.is_file():
        with odd_file(parquet, "not a list of tasks"):
            table = pq.read_table(parquet)
            names = [name for name in table.column_names if name != "task_index"]
            words = next((name for name in ("task", INDEX_COLUMN, *names) if name in names), None)
            if "task_index" not in table.column_names or words is None:
                raise UserError(f"{parquet}: expected task_index and the task's words, found {', '.join(table.column_names)}")
            return _unique(parquet, zip(table["task_index"].to_pylist(), table[words].to_pylist(), strict=True))
    if lines.is_file():
        with odd_file(lines, "not a list of tasks, one JSON object a line"):
            rows = [json.loads(line) for line in lines.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
            return _unique(lines, ((row["task_index"], row["task"]) for row in rows))
    return {}


def _unique(path: Path, pairs: Iterable[tuple[Any, Any]]) -> dict[int, str]:
    tasks: dict[int, str] = {}
    for number, task in pairs:
        words = first_words(task)
        if tasks.setdefault(int(number), words) != words:
            raise UserError(f"{path}: task_index {int(number)} is both '{tasks[int(number)]}' and '{words}'; give each task its own")
    return tasks

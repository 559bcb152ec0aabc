"""A study is one SQLite file: items, films, raters, answers, and the key that says which model was shown as A.

Answers are written with `synchronous = FULL` in WAL mode, so an acknowledged answer survives a kill or a power cut. Answers are never
changed; undoing one sets the time at which it was undone. A unique index allows each rater one valid answer per item.
"""

import contextlib
import datetime
import hashlib
import json
import re
import secrets
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from persistworld.apps.study.order import rater_order, shown_first
from persistworld.runtime.errors import UserError
from persistworld.runtime.files import atomic_path

STUDIES = Path("studies")
NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
VERSION = 1
NOTES = 20  # remarks of one rater
NOT_YOURS = "no such video; reload the page"
CANDIDATES = ("a", "b")
SLOTS = (*CANDIDATES, "reference", "film")  # places for a film on the page
TABLES = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE items (id INTEGER PRIMARY KEY, about TEXT NOT NULL);
CREATE TABLE films (item INTEGER NOT NULL REFERENCES items, role TEXT NOT NULL, mp4 BLOB NOT NULL, PRIMARY KEY (item, role));
CREATE TABLE raters (
    id INTEGER PRIMARY KEY, code TEXT NOT NULL UNIQUE, name TEXT NOT NULL, token TEXT NOT NULL UNIQUE, opened TEXT, began TEXT
);
CREATE TABLE assignments (
    handle TEXT PRIMARY KEY, rater INTEGER NOT NULL REFERENCES raters, item INTEGER NOT NULL REFERENCES items, place INTEGER NOT NULL,
    first TEXT, UNIQUE (rater, item)
) WITHOUT ROWID;
CREATE TABLE answers (
    id INTEGER PRIMARY KEY AUTOINCREMENT, handle TEXT NOT NULL REFERENCES assignments, answer TEXT NOT NULL, request TEXT NOT NULL UNIQUE,
    at TEXT NOT NULL, undone TEXT
);
CREATE UNIQUE INDEX one_answer ON answers (handle) WHERE undone IS NULL;
CREATE TABLE notes (id INTEGER PRIMARY KEY, rater INTEGER NOT NULL REFERENCES raters, text TEXT NOT NULL, at TEXT NOT NULL);
"""
STANDING = (
    "SELECT answers.*, assignments.rater, assignments.item, assignments.first FROM answers JOIN assignments USING (handle) "
    "WHERE answers.undone IS NULL"
)


class Refused(Exception):
    """An answer that contradicts the database: the rater's page is out of date, or the request is forged."""


@dataclass(frozen=True)
class Material:
    """An item to store. about: its description (JSON values); films: role -> mp4 bytes."""

    about: dict[str, Any]
    films: dict[str, bytes]


def study_path(name: str) -> Path:
    """The path of a study's file. Raises UserError if `name` is not allowed."""
    if not NAME.fullmatch(name):
        raise UserError(f"study {name}: use lower-case letters, digits, - and _, at most 64 of them")
    return STUDIES / f"{name}.sqlite"


def create_study(path: Path, meta: dict[str, Any], materials: Iterable[Material]) -> str:
    """Write a new study and return the administrator's token. Only its digest is stored. Raises UserError if the study exists.

    meta: JSON values; `kind` is preference or progress, `seed` the order's, `models` the two that are compared (preference).
    """
    if path.exists():
        raise UserError(f"{path}: exists, and may hold votes; choose another name, or move it away")
    token = secrets.token_urlsafe(24)
    with atomic_path(path) as part, contextlib.closing(sqlite3.connect(part)) as database:
        database.executescript(TABLES)
        rows = {"version": VERSION, "created": _now(), "administrator": _digest(token), **meta}
        database.executemany("INSERT INTO meta VALUES (?, ?)", [(key, json.dumps(value)) for key, value in rows.items()])
        for material in materials:
            item = database.execute("INSERT INTO items (about) VALUES (?)", [json.dumps(material.about, sort_keys=True)]).lastrowid
            database.executemany("INSERT INTO films VALUES (?, ?, ?)", [(item, role, mp4) for role, mp4 in material.films.items()])
        database.commit()
    return token


class Store:
    """An open study. All methods may be called from any thread."""

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise UserError(f"{path}: no such study; `persistworld study create {path.stem}` makes it")
        self.path, self._lock = path, threading.Lock()
        try:
            self._database = self._connect()
            self._films, self._films_lock = self._connect(), threading.Lock()  # of its own: films are read while answers are written
            self.meta = {key: json.loads(value) for key, value in self._database.execute("SELECT key, value FROM meta")}
        except (sqlite3.DatabaseError, ValueError) as error:
            raise UserError(f"{path}: not a study ({error})") from None
        if self.meta.get("version") != VERSION:
            raise UserError(f"{path}: has version {self.meta.get('version')}, but this program reads version {VERSION}")

    def _connect(self) -> sqlite3.Connection:
        database = sqlite3.connect(self.path, check_same_thread=False, timeout=30, isolation_level=None)
        database.row_factory = sqlite3.Row
        for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON"):
            database.execute(f"PRAGMA {pragma}")
        return database

    def close(self) -> None:
        """Merge the write-ahead log into the file and close it."""
        for database in (self._films, self._database):
            database.close()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """One transaction. It is on the disk when the block ends, and has no effect if the block raises."""
        with self._lock:
            self._database.execute("BEGIN IMMEDIATE")
            try:
                yield self._database
            except BaseException:
                self._database.execute("ROLLBACK")
                raise
            self._database.execute("COMMIT")

    def _rows(self, query: str, *values: Any) -> list[sqlite3.Row]:
        with self._lock:
            return self._database.execute(query, values).fetchall()

    def items(self) -> dict[int, dict[str, Any]]:
        """The description of each item, by number."""
        return {row["id"]: json.loads(row["about"]) for row in self._rows("SELECT * FROM items")}

    def invite(self, name: str = "") -> str:
        """Add a rater with its own order and sides. Returns the invitation's token. Only its digest is stored."""
        token = secrets.token_urlsafe(24)
        with self._writing() as database:
            place = database.execute("SELECT coalesce(max(id), 0) + 1 FROM raters").fetchone()[0]
            items = [row[0] for row in database.execute("SELECT id FROM items ORDER BY id")]
            codes = {row[0] for row in database.execute("SELECT code FROM raters")}
            code = next(code for code in iter(lambda: f"r{secrets.randbelow(10**6):06d}", "") if code not in codes)
            database.execute("INSERT INTO raters (id, code, name, token) VALUES (?, ?, ?, ?)", [place, code, name, _digest(token)])
            models, seed = self.meta.get("models"), self.meta["seed"]
            first = shown_first(items, tuple(models), seed, place) if models else {}
            rows = [(_handle(), place, item, at, first.get(item)) for at, item in enumerate(rater_order(items, seed, place))]
            database.executemany("INSERT INTO assignments VALUES (?, ?, ?, ?, ?)", rows)
        return token

    def rater_of(self, token: str) -> sqlite3.Row | None:
        """The rater that a token belongs to."""
        found = self._rows("SELECT * FROM raters WHERE token = ?", _digest(token))
        return found[0] if found else None

    def is_administrator(self, token: str) -> bool:
        return secrets.compare_digest(_digest(token), self.meta["administrator"])

    def note_time(self, rater: int, column: str) -> None:
        """Remember when a rater first `opened` the page, or `began` to rate."""
        if column not in ("opened", "began"):
            raise ValueError(column)
        with self._writing() as database:
            database.execute(f"UPDATE raters SET {column} = ? WHERE id = ? AND {column} IS NULL", [_now(), rater])

    def assignments(self, rater: int) -> list[sqlite3.Row]:
        """A rater's items in order: handle, item, and the number and text of the valid answer (None: not answered)."""
        return self._rows(
            "SELECT assignments.handle, item, answers.id AS number, answer FROM assignments "
            "LEFT JOIN answers ON answers.handle = assignments.handle AND undone IS NULL WHERE rater = ? ORDER BY place",
            rater,
        )

    def film(self, handle: str, slot: str) -> bytes | None:
        """The mp4 that a rater sees at one place of the page.

        handle: of the rater's item; slot: `reference`, `a` or `b` (the two candidates), or `film` (in a study of progress). Returns None
        for an unknown handle or slot, and if the item has no film for the slot.
        """
        if slot not in SLOTS:  # a model's name is no slot
            return None
        with self._films_lock:
            row = self._films.execute("SELECT item, first FROM assignments WHERE handle = ?", [handle]).fetchone()
            if row is None:
                return None
            role = shown_as(slot, row["first"], self.meta["models"]) if slot in CANDIDATES and row["first"] else slot
            found = self._films.execute("SELECT mp4 FROM films WHERE item = ? AND role = ?", [row["item"], role]).fetchone()
        return found[0] if found else None

    def record(self, rater: int, handle: str, answer: str, request: str) -> None:
        """Store an answer. It is on the disk when this returns. Repeating a request changes nothing.

        Raises Refused if the item is not the rater's or already has an answer, or if the request was used for something else or undone.
        """
        with self._writing() as database:
            before = database.execute("SELECT * FROM answers WHERE request = ?", [request]).fetchone()
            if before is not None:
                if (before["handle"], before["answer"], before["undone"]) == (handle, answer, None) and self._owns(database, rater, handle):
                    return
                raise Refused("this vote was sent before, and undone or changed since; reload the page")
            if not self._owns(database, rater, handle):
                raise Refused(NOT_YOURS)
            try:
                database.execute(
                    "INSERT INTO answers (handle, answer, request, at) VALUES (?, ?, ?, ?)", [handle, answer, request, _now()]
                )
            except sqlite3.IntegrityError:
                raise Refused("this video has your vote already, perhaps from another tab; reload the page") from None

    def possible_answers(self, rater: int, handle: str) -> list[str]:
        """The possible answers to an item: a or b, or the number of stages reached. Raises Refused for another rater's item."""
        rows = self._rows("SELECT about FROM assignments JOIN items ON items.id = item WHERE handle = ? AND rater = ?", handle, rater)
        if not rows:
            raise Refused(NOT_YOURS)
        stages = json.loads(rows[0]["about"]).get("stages")
        return list(CANDIDATES) if stages is None else [str(reached) for reached in range(len(stages) + 1)]

    def undo(self, rater: int, handle: str) -> str | None:
        """Undo a rater's last valid answer, which must belong to `handle`. Returns the answer before it. Raises Refused."""
        with self._writing() as database:
            last, before = (*database.execute(f"{STANDING} AND rater = ? ORDER BY answers.id DESC LIMIT 2", [rater]), None, None)[:2]
            if last is None or last["handle"] != handle:
                raise Refused("only your last vote can be undone, and it is another one; reload the page")
            database.execute("UPDATE answers SET undone = ? WHERE id = ?", [_now(), last["id"]])
            return before and before["handle"]

    @staticmethod
    def _owns(database: sqlite3.Connection, rater: int, handle: str) -> bool:
        return database.execute("SELECT 1 FROM assignments WHERE handle = ? AND rater = ?", [handle, rater]).fetchone() is not None

    def add_note(self, rater: int, text: str) -> None:
        """Store a remark. Raises Refused if the rater has already left `NOTES` remarks."""
        with self._writing() as database:
            if database.execute("SELECT count(*) FROM notes WHERE rater = ?", [rater]).fetchone()[0] >= NOTES:
                raise Refused(f"{NOTES} remarks are the most that are kept; write to the organisers")
            database.execute("INSERT INTO notes (rater, text, at) VALUES (?, ?, ?)", [rater, text, _now()])

    def notes(self) -> list[str]:
        """All remarks, sorted by text, so that the order does not reveal who wrote them or when."""
        return sorted(row["text"] for row in self._rows("SELECT text FROM notes"))

    def progress(self) -> list[sqlite3.Row]:
        """For each rater, sorted by name: name, times `opened` and `began`, number of items and of `answered` items."""
        return self._rows(
            "SELECT name, opened, began, count(assignments.handle) AS items, count(answers.id) AS answered FROM raters "
            "LEFT JOIN assignments ON rater = raters.id LEFT JOIN answers ON answers.handle = assignments.handle AND undone IS NULL "
            "GROUP BY raters.id ORDER BY name, raters.id"
        )

    def answers(self) -> list[dict[str, Any]]:
        """All valid answers in the order of arrival: rater (the code), item, answer, first, at."""
        query = f"SELECT standing.*, code FROM ({STANDING}) AS standing JOIN raters ON raters.id = standing.rater ORDER BY standing.id"
        return [{"rater": r["code"], **{key: r[key] for key in ("item", "answer", "first", "at")}} for r in self._rows(query)]

    def back_up(self, path: Path) -> None:
        """Copy the study into one file, also while it is being served. Raises UserError if the file exists."""
        if path.exists():
            raise UserError(f"{path}: exists; name a new file")
        with atomic_path(path) as part, contextlib.closing(sqlite3.connect(part)) as copy:
            self._connect().backup(copy)
            copy.execute("PRAGMA journal_mode = DELETE")  # one file, without a separate log


def shown_as(slot: str, first: str, models: Sequence[str]) -> str:
    """The model that a rater sees in slot a or b, given the model that is shown as A."""
    return first if slot == "a" else next(model for model in models if model != first)


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def _handle() -> str:
    return secrets.token_urlsafe(16)


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")

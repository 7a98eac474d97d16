"""Where a campaign's trials are kept: one SQLite file, written by one process, in transactions of batches.

    task(id, digest, identity, samples, masks, metrics, golden)   what trials depend on, as JSON, and its SHA-256
    trial(task, key, answers, numbers, faults, detected, failed, seen)   one trial: its seed or number, its answers
    look(task, trials, stopped, told)                       when a stopping rule looked, and what it said

`answers` are bit masks of the task's samples, one behind the other, each packed and filled to whole bytes, in the
order of `masks`; `numbers` are float32, likewise in the order of `metrics`. `faults` is how many faults fell, or 1 for
at least one, or NULL where they were not counted; `failed` why there are no answers; `seen` what else was seen, as
JSON. A trial is safe on the disk when `put` returns.
"""

import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hwfault.campaigns.file_systems import check_local
from hwfault.differences import differences
from hwfault.errors import FileError
from hwfault.inputs import check_regular
from hwfault.stream.check import signed64

FILE = "campaign.sqlite"
_FORMAT = "hwfault-campaign/1"
_APPLICATION = 0x68776661  # "hwfa", which tells the file from other programs' databases
_SEEN = "seen"
"""The column of trials that stores did not have at first."""
_TABLES = """
CREATE TABLE IF NOT EXISTS about(key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS task(id INTEGER PRIMARY KEY, digest TEXT NOT NULL UNIQUE, identity TEXT NOT NULL,
    samples INTEGER NOT NULL, masks TEXT NOT NULL, metrics TEXT NOT NULL, golden BLOB);
CREATE TABLE IF NOT EXISTS trial(task INTEGER NOT NULL REFERENCES task(id), key INTEGER NOT NULL, answers BLOB,
    numbers BLOB, faults INTEGER, detected INTEGER NOT NULL DEFAULT 0, failed TEXT, seen TEXT, PRIMARY KEY(task, key))
    WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS look(task INTEGER NOT NULL REFERENCES task(id), trials INTEGER NOT NULL,
    stopped INTEGER NOT NULL, told TEXT NOT NULL, PRIMARY KEY(task, trials)) WITHOUT ROWID;
"""
_PUT = """
INSERT INTO trial(task, key, answers, numbers, faults, detected, failed, seen) VALUES (?, ?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT(task, key) DO UPDATE SET answers = excluded.answers, numbers = excluded.numbers,
    faults = excluded.faults, detected = excluded.detected, failed = NULL, seen = excluded.seen
    WHERE trial.failed IS NOT NULL AND excluded.failed IS NULL
"""

Identity = Mapping[str, Any]
Bools = NDArray[np.bool_]


class Row(NamedTuple):
    """One trial as it is kept: `answers` (masks, samples), `numbers` (metrics, samples), or why it `failed`.

    `seen` is what else was seen on the way, as JSON tells it. A trial that did not fail and has no answers comes from
    a file of 0.4.0, which kept no more of it than `seen` says: how many answers were right (`correct`).
    """

    key: int
    answers: Bools | None
    numbers: NDArray[np.float32] | None = None
    faults: int | None = None
    detected: bool = False
    failed: str | None = None
    seen: Mapping[str, Any] | None = None


class Task(NamedTuple):
    """A task of a store: its number there, what its trials depend on, and how their answers are laid out."""

    id: int
    digest: str
    identity: Identity
    samples: int
    masks: tuple[str, ...]
    metrics: tuple[str, ...]


def digest_of(identity: Identity) -> str:
    """SHA-256 of all that the trials of a task depend on, however its JSON is spaced and ordered."""
    return sha256(json.dumps(identity, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


class Database:
    """The trials of a campaign in the file `campaign.sqlite` of a folder, which one process writes (see locked_folder).

    With `readonly` nothing is written, also while another process does. Raises FileError for what is no such file, on
    file systems of networks, and where the disk is full.
    """

    def __init__(self, path: Path | str, *, readonly: bool = False) -> None:
        self.path = Path(path)
        if self.path.exists():
            check_regular(self.path)
        elif readonly:
            raise FileError(f"{self.path}: is not there; expected the file of a campaign (hwfault campaign run)")
        if not readonly:
            check_local(self.path.parent)
        with self._explained():
            mode = "ro" if readonly else "rwc"
            self._connection = sqlite3.connect(f"{_uri(self.path)}?mode={mode}", uri=True, isolation_level=None)
        try:
            with self._explained():
                self._prepare(readonly)
        except BaseException:
            self._connection.close()
            raise

    @classmethod
    def in_memory(cls) -> "Database":
        """A store that is gone when it is closed."""
        made = cls.__new__(cls)
        made.path = Path(":memory:")
        made._connection = sqlite3.connect(":memory:", isolation_level=None)
        made._prepare(readonly=False)
        return made

    def _prepare(self, readonly: bool) -> None:
        """Checks whose file it is, and makes the tables of a new one."""
        ask = self._connection.execute
        ask("PRAGMA trusted_schema = OFF")
        known = ask("PRAGMA application_id").fetchone()[0]
        tables = ask("SELECT count(*) FROM sqlite_master").fetchone()[0]
        if known != _APPLICATION and (tables or readonly):
            raise FileError(f"{self.path}: is no file of hwfault campaign; choose another folder with --out")
        columns = {name for _, name, *_ in ask("PRAGMA table_info(trial)")}
        if not readonly:
            if known != _APPLICATION:  # who is refused below leaves the file as it was
                ask(f"PRAGMA application_id = {_APPLICATION}")
            # FULL: what was reported outlives the machine, not only the process; a batch costs one wait for the disk
            for pragma in ("journal_mode = WAL", "synchronous = FULL"):
                ask(f"PRAGMA {pragma}")
            self._connection.executescript(_TABLES)
            if columns and _SEEN not in columns:
                ask(f"ALTER TABLE trial ADD COLUMN {_SEEN} TEXT")
            ask("INSERT OR IGNORE INTO about VALUES ('format', ?)", (_FORMAT,))
        self._seen = "NULL" if readonly and _SEEN not in columns else _SEEN
        found = ask("SELECT value FROM about WHERE key = 'format'").fetchone()
        if found is None or found[0] != _FORMAT:
            told = "no format" if found is None else repr(found[0])
            raise FileError(f"{self.path}: {told}, expected {_FORMAT!r}; it was written by another version of hwfault")

    def close(self) -> None:
        """Closes the file; what was put there is safe already."""
        self._connection.close()

    def __enter__(self) -> "Database":
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    # what the campaign is

    def say(self, key: str, value: str) -> None:
        """Keeps a text about the campaign (its study, its commands), in the place of what the key said before."""
        with self._explained():
            self._connection.execute("INSERT OR REPLACE INTO about VALUES (?, ?)", (key, value))

    def said(self, key: str) -> str | None:
        """A text about the campaign; None where nothing was said."""
        with self._explained():
            found = self._connection.execute("SELECT value FROM about WHERE key = ?", (key,)).fetchone()
        return None if found is None else str(found[0])

    # tasks

    def task(
        self,
        identity: Identity,
        *,
        samples: int,
        masks: Sequence[str],
        metrics: Sequence[str] = (),
        golden: Bools | None = None,
    ) -> Task:
        """The task of that identity, made if need be; `golden` are the masks of the golden run, told once."""
        digest = digest_of(identity)
        kept = None if golden is None else pack(golden)
        with self._explained():
            self._connection.execute(
                "INSERT OR IGNORE INTO task(digest, identity, samples, masks, metrics, golden) "
                "VALUES (?, ?, ?, ?, ?, ?)",
                (digest, json.dumps(identity), samples, json.dumps(list(masks)), json.dumps(list(metrics)), kept),
            )
        found = self.find(digest)
        assert found is not None
        return found

    def find(self, digest: str) -> Task | None:
        """The task of that digest, None where there is none."""
        return next((task for task in self.tasks() if task.digest == digest), None)

    def tasks(self) -> list[Task]:
        """All tasks, in the order in which they came; raises FileError for one that is none."""
        with self._explained():
            rows = self._connection.execute(
                "SELECT id, digest, identity, samples, masks, metrics FROM task ORDER BY id"
            ).fetchall()
        return [self._task(row) for row in rows]

    def _task(self, row: Sequence[Any]) -> Task:
        try:
            identity, masks, metrics = (json.loads(text) for text in (row[2], row[4], row[5]))
            right = isinstance(identity, dict) and digest_of(identity) == row[1]
            names = all(isinstance(name, str) for name in (*masks, *metrics))
            if not right or not names or not isinstance(row[3], int) or row[3] < 1:
                raise ValueError("it is not what its digest says")
        except (TypeError, ValueError, RecursionError) as error:
            raise FileError(f"{self.path}: the task {row[1]!r} cannot be read ({error}); the file is damaged") from None
        return Task(row[0], row[1], identity, row[3], tuple(masks), tuple(metrics))

    def golden(self, task: Task) -> Bools | None:
        """The golden run's own masks (masks, samples), None where they were not told."""
        with self._explained():
            found = self._connection.execute("SELECT golden FROM task WHERE id = ?", (task.id,)).fetchone()
        return None if found is None or found[0] is None else self._unpacked(task, found[0])

    # trials

    def put(self, task: Task, rows: Iterable[Row]) -> None:
        """Keeps a batch of trials in one transaction; those that are there already stay, unless they had failed."""
        encoded = [_encoded(task, row) for row in rows]
        with self._explained(), self._transaction():
            self._connection.executemany(_PUT, encoded)

    def keys(self, task: Task) -> set[int]:
        """The keys of the trials that are there, those that failed among them."""
        with self._explained():
            found = self._connection.execute("SELECT key FROM trial WHERE task = ?", (task.id,)).fetchall()
        return {_unsigned(key) for (key,) in found}

    def rows(self, task: Task, key: int | None = None) -> Iterator[Row]:
        """All trials of a task by key, or that of one key; raises FileError for answers of another length."""
        only = "" if key is None else " AND key = ?"
        asked = (task.id,) if key is None else (task.id, signed64(key))
        with self._explained():
            found = self._connection.execute(
                f"SELECT key, answers, numbers, faults, detected, failed, {self._seen} FROM trial WHERE task = ?{only} "
                "ORDER BY key",
                asked,
            )
            for key, answers, numbers, faults, detected, failed, seen in found:
                masks = None if answers is None else self._unpacked(task, answers)
                metrics = None if numbers is None else self._numbers(task, numbers)
                beside = None if seen is None else self._beside(task, seen)
                yield Row(_unsigned(key), masks, metrics, faults, bool(detected), failed, beside)

    def failures(self, task: Task) -> list[tuple[int, str]]:
        """(key, why) of each trial that failed, by key."""
        with self._explained():
            found = self._connection.execute(
                "SELECT key, failed FROM trial WHERE task = ? AND failed IS NOT NULL ORDER BY key", (task.id,)
            ).fetchall()
        return [(_unsigned(key), str(why)) for key, why in found]

    def look(self, task: Task, trials: int, stopped: bool, told: str) -> None:
        """Keeps that a stopping rule looked after so many trials, whether it stopped, and what it said.

        Looks after more trials are forgotten: they were another rule's, or those of one part of the campaign.
        """
        with self._explained(), self._transaction():
            self._connection.execute("DELETE FROM look WHERE task = ? AND trials > ?", (task.id, trials))
            self._connection.execute(
                "INSERT OR REPLACE INTO look VALUES (?, ?, ?, ?)", (task.id, trials, stopped, told)
            )

    def looks(self, task: Task) -> list[tuple[int, bool, str]]:
        """(trials, stopped, told) of each look, in their order."""
        with self._explained():
            found = self._connection.execute(
                "SELECT trials, stopped, told FROM look WHERE task = ? ORDER BY trials", (task.id,)
            ).fetchall()
        return [(trials, bool(stopped), told) for trials, stopped, told in found]

    def _unpacked(self, task: Task, packed: object) -> Bools:
        try:
            return unpack(packed, len(task.masks), task.samples)
        except ValueError as error:
            raise FileError(
                f"{self.path}: answers of the task {task.digest[:12]}: {error}; the file is damaged"
            ) from None

    def _numbers(self, task: Task, stored: object) -> NDArray[np.float32]:
        expected = 4 * len(task.metrics) * task.samples
        if not isinstance(stored, bytes) or len(stored) != expected:
            raise FileError(
                f"{self.path}: numbers of the task {task.digest[:12]} are damaged, expected {expected} bytes"
            )
        return np.frombuffer(stored, "<f4").reshape(len(task.metrics), task.samples)

    def _beside(self, task: Task, stored: object) -> Mapping[str, Any]:
        try:
            found = json.loads(str(stored))
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            raise FileError(f"{self.path}: what a trial of the task {task.digest[:12]} saw is damaged, expected JSON")
        return found

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._connection.execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise FileError(f"{self.path}: {_why(error)}") from None


def differing(stored: Identity, asked: Identity) -> Mapping[str, tuple[Any, Any]]:
    """In what two tasks differ, by keys joined with dots: what is stored, and what was asked."""
    return differences(dict(stored), dict(asked))


def pack(masks: Bools) -> bytes:
    """Masks (k, n) as bytes, each filled to whole ones."""
    return np.packbits(masks, axis=1).tobytes()


def unpack(packed: object, masks: int, samples: int) -> Bools:
    """The masks (masks, samples) that were packed; raises ValueError for anything of another length."""
    width = -(-samples // 8)
    if not isinstance(packed, bytes) or len(packed) != masks * width:
        raise ValueError(f"expected {masks * width} bytes for {masks} outcomes of {samples} samples")
    bits = np.unpackbits(np.frombuffer(packed, np.uint8).reshape(masks, width), axis=1, count=samples)
    return bits.astype(np.bool_)


def _uri(path: Path) -> str:
    return path.absolute().as_uri()


def _why(error: sqlite3.Error) -> str:
    """What SQLite says, with what to do about it."""
    text = str(error)
    if "full" in text:
        return f"cannot be written ({text}); make room, and the same command goes on: what was counted is there"
    if "locked" in text:
        return f"another process writes there ({text}); wait for it to end"
    if "not a database" in text or "malformed" in text:
        return f"is no file of hwfault campaign, or is damaged ({text}); choose another folder with --out"
    return f"cannot be read or written ({text}); choose another folder with --out"


def _encoded(task: Task, row: Row) -> tuple[Any, ...]:
    answers = None if row.answers is None else pack(row.answers)
    numbers = None if row.numbers is None else np.ascontiguousarray(row.numbers, "<f4").tobytes()
    seen = None if row.seen is None else json.dumps(row.seen)
    return (task.id, signed64(row.key), answers, numbers, row.faults, int(row.detected), row.failed, seen)


def _unsigned(key: int) -> int:
    """A seed as it is said: SQLite's integers are signed."""
    return key & 0xFFFF_FFFF_FFFF_FFFF

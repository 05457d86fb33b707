"""Saves what is whole in a damaged ledger into a new file, and keeps the damaged one beside it."""

from __future__ import annotations

import contextlib
import math
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path

from stepdistill.errors import LedgerError
from stepdistill.files import sync_folder, writing
from stepdistill.teacher import account, schema
from stepdistill.teacher.entry import COLUMNS, INSERT, unpack
from stepdistill.teacher.owner import working
from stepdistill.teacher.pages import Raw, Value

KEPT = (("failures", "id"), ("claims", "slot"), ("batches", "rowid"))
"""Further tables, and what they are in order of."""
BESIDE = ("", "-wal", "-shm")
"""Ends of the names of a ledger's files."""
HEADER = {
    0: b"SQLite format 3\0" + schema.PAGE.to_bytes(2, "big") + b"\x02\x02\x00\x40\x20\x20",
    28: bytes(12),  # number of pages, free pages: SQLite goes by the size of the file then
    44: (4).to_bytes(4, "big") + bytes(8) + (1).to_bytes(4, "big") + schema.VERSION.to_bytes(4, "big"),
    64: bytes(4) + schema.APPLICATION.to_bytes(4, "big") + bytes(20),
}
"""What stands at the beginning of every ledger, by place."""


@dataclass(frozen=True)
class Salvaged:
    """What a salvage has come to.

    Attributes:
        ledger: the file.
        answers: whole answers in it now.
        dropped: answers that were damaged, as far as anything tells of them.
        kept: where the damaged file is now; None where nothing was damaged and nothing was done.
        paid: all that has been paid, in billionths of a US dollar; at least what the answers have cost.
        presumed: requests whose fate is unknown; None where the damage took that sum.
    """

    ledger: str
    answers: int
    dropped: int
    kept: str | None
    paid: int
    presumed: int | None

    def __str__(self) -> str:
        if self.kept is None:
            return f"{self.ledger}: whole, with {self.answers:,} answers; nothing to repair"
        lost = "" if self.presumed is not None else "; what was presumed paid beside the answers is not known"
        return (
            f"{self.ledger}: {self.answers:,} answers are salvaged, {self.dropped:,} were damaged and will "
            f"be asked again{lost}; the damaged file is kept as {self.kept}"
        )


def salvage(path: Path) -> Salvaged:
    """Put a ledger of all whole answers in the place of a damaged one; a whole one is left alone.

    The damaged files are kept under another name, and nothing is written into them. It needs room for
    two copies of the ledger.

    Raises:
        LedgerError: no such file, in use, not a ledger, of another release, or nothing of it is whole.
        RunFolderError: no room, or not writable.
    """
    if not path.is_file():
        raise LedgerError(f"{path}: no such file, so there is no ledger to repair; check annotate.ledger")
    _refuse_work(path)
    with writing(path), tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as folder:
        copy, new = Path(folder) / "copy", Path(folder) / "new"
        for end in BESIDE[:2]:
            if _beside(path, end).exists():
                shutil.copyfile(_beside(path, end), _beside(copy, end))
        whole = _examine(copy, path)
        try:
            found = _rebuild(path, copy, new)
        except sqlite3.Error as error:
            raise LedgerError(schema.complaint(path, error)) from None
        if whole is not None and found.answers <= whole.answers:
            return whole
        _refuse_work(path)
        return replace(found, kept=_replace(path, new))


def _refuse_work(path: Path) -> None:
    if working(path):
        raise LedgerError(f"{path}: another process works on this ledger; end it, then repair again")


def _examine(copy: Path, path: Path) -> Salvaged | None:
    """Whether all is whole; None where it is not. It looks at a copy, since SQLite changes what it opens."""
    with contextlib.closing(sqlite3.connect(copy, isolation_level=None)) as db:
        db.text_factory = bytes
        try:
            db.execute("BEGIN")
            if not schema.is_there(db, path) or not _is_sound(db):
                return None
            schema.check_index(db)
            sums = account.read(db)
            rows = db.execute(f"SELECT {COLUMNS} FROM completions NOT INDEXED")  # noqa: S608 - a constant
            if any(unpack(row) is None for row in rows):
                return None
        except sqlite3.Error:
            return None
    return Salvaged(str(path), sums["answers"], 0, None, sums["paid"], sums["presumed"])


def _is_sound(db: sqlite3.Connection) -> bool:
    return db.execute("PRAGMA integrity_check(1)").fetchall() == [(b"ok",)]


def _rebuild(path: Path, copy: Path, new: Path) -> Salvaged:
    """Make the new file: all whole answers, the sums, and what SQLite can read of the other tables."""
    broken: set[bytes] = set()
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(path.open("rb"))
        log = _beside(path, "-wal")
        raw = Raw(file, stack.enter_context(log.open("rb")) if log.exists() else None)
        db = stack.enter_context(contextlib.closing(sqlite3.connect(new, isolation_level=None)))
        db.execute(f"PRAGMA page_size = {schema.PAGE}")
        db.execute("PRAGMA journal_mode = OFF")  # a half-written file is thrown away
        db.execute("BEGIN")
        schema.create(db)
        db.executemany(INSERT, _whole(raw, broken))
        _copy_others(copy, db)
        found = _settle(path, db, raw.sums(), broken)
        db.execute("COMMIT")
    with new.open("rb") as done:
        os.fsync(done.fileno())
    return found


def _whole(raw: Raw, broken: set[bytes]) -> Iterator[tuple[Value | str, ...]]:
    """Answers for `INSERT`; the slots of those with a broken seal are noted."""
    for record in raw.records():
        _, slot, most, teacher, draw, example, text, finish, model, asked, written, cost, *rest = record
        seconds, at, seal = rest
        if unpack((slot, most, draw, text, finish, model, asked, written, cost, seal, None)) is None:
            if isinstance(slot, bytes):
                broken.add(slot)
            continue
        took = seconds if isinstance(seconds, int | float) and math.isfinite(seconds) else 0.0
        head = (slot, most, _text(teacher), draw, example, text, finish, model)
        yield (*head, asked, written, cost, took, _text(at), seal)


def _copy_others(copy: Path, new: sqlite3.Connection) -> None:
    with copy.open("r+b") as file:
        for place, raw in HEADER.items():
            file.seek(place)
            file.write(raw)
    with contextlib.closing(sqlite3.connect(copy, isolation_level=None)) as db:
        db.text_factory = lambda raw: raw.decode("utf-8", "replace")
        for table, key in KEPT:
            for row in _readable(db, table, key):
                new.execute(f"INSERT OR IGNORE INTO {table} VALUES ({','.join('?' * len(row))})", row)  # noqa: S608


def _readable(db: sqlite3.Connection, table: str, key: str) -> Iterator[tuple[Value | str, ...]]:
    """Rows of a table from its beginning and, where it breaks off, from its end."""
    for way in ("ASC", "DESC"):
        with contextlib.suppress(sqlite3.Error):
            yield from db.execute(f"SELECT * FROM {table} ORDER BY {key} {way}")  # noqa: S608 - of KEPT
            return


def _settle(path: Path, db: sqlite3.Connection, sums: dict[str, int], broken: set[bytes]) -> Salvaged:
    """Write the sums of the new file."""
    answers, cost = db.execute("SELECT COUNT(*), COALESCE(SUM(cost), 0) FROM completions").fetchone()
    if not answers and not sums:
        raise LedgerError(f"{path}: nothing of a ledger is in it; it is left as it is, give another file")
    (failed,) = db.execute("SELECT COALESCE(SUM(presumed), 0) FROM failures").fetchone()
    paid, presumed = max(cost, sums.get("paid", 0)), max(failed, sums.get("presumed", 0))
    for name, amount in (("paid", paid), ("presumed", presumed), ("answers", answers)):
        account.add(db, name, amount)
    query = "SELECT 1 FROM completions WHERE slot = ?"
    seen = sum(db.execute(query, (slot,)).fetchone() is None for slot in broken)
    dropped = max(seen, sums.get("answers", 0) - answers)
    return Salvaged(str(path), answers, dropped, None, paid, presumed if "presumed" in sums else None)


def _replace(path: Path, new: Path) -> str:
    """Put the new file in the place of the old ones, and give them a name of their own."""
    names = (path.with_name(f"{path.name}.damaged{'' if n == 1 else f'-{n}'}") for n in count(1))
    kept = next(name for name in names if not any(_beside(name, end).exists() for end in BESIDE))
    shutil.copymode(path, new)
    try:
        os.link(path, kept)  # not renamed: without a ledger at its place, all would be asked anew
    except OSError:
        shutil.copy2(path, kept)
    for end in BESIDE[1:]:  # before the new file is there, or SQLite would apply the old log to it
        with contextlib.suppress(FileNotFoundError):
            _beside(path, end).rename(_beside(kept, end))
    new.replace(path)
    sync_folder(path.parent)
    return str(kept)


def _beside(path: Path, end: str) -> Path:
    return path.with_name(path.name + end)


def _text(value: Value) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)

"""What a ledger's file looks like: its tables and marks, and whether a file is one."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

from stepdistill.errors import LedgerError
from stepdistill.teacher import account
from stepdistill.teacher.owner import working
from stepdistill.teacher.wal import is_whole

APPLICATION = 0x53444C47  # "SDLG"
VERSION = 1
PAGE = 4096
"""Bytes of a page, whatever SQLite was built with: a salvage cannot ask a broken header."""

TABLES = """
CREATE TABLE completions (
  id INTEGER PRIMARY KEY, slot BLOB NOT NULL, max_tokens INTEGER NOT NULL, teacher TEXT NOT NULL,
  draw INTEGER NOT NULL, example TEXT NOT NULL, text TEXT NOT NULL, finish TEXT NOT NULL, model TEXT NOT NULL,
  prompt_tokens INTEGER, completion_tokens INTEGER, cost INTEGER, seconds REAL NOT NULL, at TEXT NOT NULL,
  seal BLOB NOT NULL);
CREATE UNIQUE INDEX completions_by_slot ON completions (slot, max_tokens);
CREATE TABLE failures (
  id INTEGER PRIMARY KEY, slot BLOB NOT NULL, example TEXT NOT NULL, reason TEXT NOT NULL,
  detail TEXT NOT NULL, presumed INTEGER NOT NULL, at TEXT NOT NULL);
CREATE TABLE claims (slot BLOB PRIMARY KEY, owner TEXT NOT NULL, bound INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE batches (id TEXT PRIMARY KEY, teacher TEXT NOT NULL, state TEXT NOT NULL, at TEXT NOT NULL);
CREATE TABLE account (name TEXT PRIMARY KEY, amount INTEGER NOT NULL, seal BLOB NOT NULL) WITHOUT ROWID
"""
STATEMENTS = [part.strip() for part in TABLES.split(";")]


def prepare(db: sqlite3.Connection, path: Path) -> None:
    """Make a new connection ready: the file is a ledger then, in one piece, and durable.

    Raises:
        LedgerError, sqlite3.Error: as `is_there` and `check_index`.
    """
    _check_log(path)
    db.execute(f"PRAGMA page_size = {PAGE}")
    with _transaction(db, "DEFERRED"):
        there = is_there(db, path)
    _enter_wal(db)
    # NORMAL would lose the last answers on power loss, and they are paid for.
    db.execute("PRAGMA synchronous = FULL")
    db.execute("PRAGMA cell_size_check = ON")
    if not there:
        with _transaction(db, "IMMEDIATE"):
            if not is_there(db, path):  # another process may have been faster
                create(db)
    with _transaction(db, "DEFERRED"):
        check_index(db)


def create(db: sqlite3.Connection) -> None:
    """Make the tables, inside a transaction of the caller's."""
    for statement in STATEMENTS:
        db.execute(statement)
    account.begin(db)
    db.execute(f"PRAGMA user_version = {VERSION}")
    db.execute(f"PRAGMA application_id = {APPLICATION}")


def is_there(db: sqlite3.Connection, path: Path) -> bool:
    """Whether the file is a ledger that this release reads; False where it is empty.

    Call it inside a transaction: another process may be making the tables at this moment.

    Raises:
        LedgerError: another program's file, or a ledger of another release.
        sqlite3.DatabaseError: a ledger with damaged marks.
    """
    application, version = _mark(db, "application_id"), _mark(db, "user_version")
    found = [_words(sql) for (sql,) in db.execute("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL")]
    if (application, version) == (APPLICATION, VERSION):
        return True
    if found == STATEMENTS:
        raise sqlite3.DatabaseError("its header is not a ledger's, its tables are")
    if application != APPLICATION and (application or found):
        raise LedgerError(f"{path}: not a stepdistill ledger; give another file as annotate.ledger")
    if application == APPLICATION:
        raise LedgerError(
            f"{path}: a ledger of version {version}, and this release reads version {VERSION}; use "
            "the release that wrote it, or give another file as annotate.ledger"
        )
    return False


def check_index(db: sqlite3.Connection) -> None:
    """Check that every answer can be found, in one pass over the index, inside a read transaction.

    One wrong byte in the index would hide many answers, and all of them would be paid again.

    Raises:
        sqlite3.DatabaseError: an entry is missing or out of order.
    """
    count, before = 0, b""
    for (slot,) in db.execute("SELECT slot FROM completions INDEXED BY completions_by_slot ORDER BY slot"):
        if not isinstance(slot, bytes) or slot < before:
            raise sqlite3.DatabaseError("its index is out of order")
        count, before = count + 1, slot
    if count != account.read(db)["answers"]:
        raise sqlite3.DatabaseError("its index does not fit its answers")


def complaint(path: Path, error: sqlite3.Error) -> str:
    """What an error of SQLite means to a user, and the remedy."""
    said = str(error)
    if "full" in said or "disk I/O" in said or "readonly" in said or "unable to open" in said:
        return (
            f"{path}: the ledger cannot be written ({said}); make room or set annotate.ledger to another "
            "place, then run the same command again: stored answers are kept"
        )
    if "locked" in said or "busy" in said:
        return f"{path}: another program holds the ledger ({said}); end it, then run the same command again"
    said = " ".join(said.split())[:200]  # some messages of SQLite quote the damaged bytes
    return (
        f"{path}: the ledger is damaged ({said}); salvage its answers with `stepdistill annotate FILE "
        "--repair`, or give another file as annotate.ledger"
    )


def _check_log(path: Path) -> None:
    """Refuse before SQLite has read anything: it would drop what it cannot read, and delete the log."""
    for _ in range(5):
        fault = _fault_of_log(path)
        if fault is None:
            return
        time.sleep(0.2)  # another process may be making or closing the ledger at this moment
    raise sqlite3.DatabaseError(fault)


def _fault_of_log(path: Path) -> str | None:
    log = path.with_name(f"{path.name}-wal")
    try:
        if not log.exists() or working(path):
            return None
        if not path.stat().st_size and log.stat().st_size:
            return "it is empty, its write-ahead log is not"
        return None if is_whole(log, PAGE) else "its write-ahead log is broken"
    except FileNotFoundError:  # the last of other processes has just closed it
        return None


@contextlib.contextmanager
def _transaction(db: sqlite3.Connection, kind: str) -> Iterator[None]:
    """All that is read inside is of one moment, all that is written is there or nothing of it."""
    db.execute(f"BEGIN {kind}")
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        with contextlib.suppress(sqlite3.Error):
            db.execute("ROLLBACK")
        raise


def _enter_wal(db: sqlite3.Connection) -> None:
    """Switch to the write-ahead log; here SQLite does not wait for others that open a new file too."""
    for _ in range(600):
        try:
            db.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error):
                raise
            time.sleep(0.1)
    raise sqlite3.OperationalError("database is locked")


def _mark(db: sqlite3.Connection, name: str) -> int:
    return int(db.execute(f"PRAGMA {name}").fetchone()[0])


def _words(sql: bytes | str) -> str:
    return sql.decode("utf-8", "replace") if isinstance(sql, bytes) else str(sql)

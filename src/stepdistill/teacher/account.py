"""The ledger's sums: money paid and presumed, and the number of answers, each under a seal of its own."""

from __future__ import annotations

import sqlite3
from hashlib import blake2b

NAMES = ("paid", "presumed", "answers")


def begin(db: sqlite3.Connection) -> None:
    """Open all sums at 0."""
    db.executemany("INSERT INTO account VALUES (?, ?, ?)", ((n, 0, seal(n, 0)) for n in NAMES))


def read(db: sqlite3.Connection) -> dict[str, int]:
    """All sums by name.

    Raises:
        sqlite3.DatabaseError: one is missing or its seal is broken; a budget cannot be kept by it.
    """
    rows = db.execute("SELECT CAST(name AS BLOB), amount, seal FROM account").fetchall()
    found = {name.decode("ascii", "replace"): (amount, mark) for name, amount, mark in rows if name}
    if sorted(found) != sorted(NAMES) or any(seal(n, a) != mark for n, (a, mark) in found.items()):
        raise sqlite3.DatabaseError("its sums of money are not whole")
    return {name: amount for name, (amount, _) in found.items()}


def add(db: sqlite3.Connection, name: str, amount: int) -> None:
    """Add to one of the sums, inside a transaction of the caller's.

    Raises:
        sqlite3.DatabaseError: as `read`.
    """
    if amount:
        total = read(db)[name] + amount
        db.execute("UPDATE account SET amount = ?, seal = ? WHERE name = ?", (total, seal(name, total), name))


def seal(name: str, amount: object) -> bytes:
    """Checksum of a sum."""
    return blake2b(f"{name}|{amount}".encode(), digest_size=8).digest()

"""The ledger: one SQLite file in which every paid answer is kept before it counts as done."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from stepdistill.errors import LedgerError
from stepdistill.files import writing
from stepdistill.teacher import account, schema
from stepdistill.teacher.entry import COLUMNS, INSERT, Entry, now, pack, raw, unpack
from stepdistill.teacher.mounts import refuse_network
from stepdistill.teacher.owner import Owner, alive
from stepdistill.teacher.protocol import Ask, Failed, Reply

LEDGER = "ledger.sqlite"
"""Its file, where none is named: beside the run folders that share it."""
BATCH = "batch:"
"""Begins the owner of claims that a batch job holds."""
ROOM = 1 << 20
"""Bytes of disk below which nothing more is asked; what is on its way could not be stored."""
ROOM_EACH = 12 << 10
"""Bytes that an answer can take on the disk: its own pages, the index's, and both in the log."""
MOST = 500
"""Keys in one query; SQLite takes at least 999 parameters."""


@dataclass(frozen=True, slots=True)
class Money:
    """What the ledger knows of money, in billionths of a US dollar.

    `presumed`: requests whose fate is unknown (no reply in time, connection lost, process killed),
    counted at the most that they can have cost. `reserved`: requests on their way now.
    """

    paid: int
    presumed: int
    reserved: int

    @property
    def total(self) -> int:
        """All that may have to be paid."""
        return self.paid + self.presumed + self.reserved


class Ledger:
    """An open ledger; used by one thread at a time, by any number of processes.

    A claim on a slot lasts as long as its process lives; whoever comes across the claim of a dead
    process takes it over.
    """

    def __init__(self, path: Path) -> None:
        """Open a ledger, and make it if there is none.

        Raises:
            LedgerError: damaged, of another version or program, or on a network file system.
            RunFolderError: the disk is full or not writable.
        """
        self.path = path
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        refuse_network(path)
        if path.is_dir():
            raise LedgerError(f"{path}: is a folder; annotate.ledger names a file")
        self._in_doubt = False
        with contextlib.ExitStack() as stack, self._plainly():
            self._db = sqlite3.connect(path, timeout=60, isolation_level=None, check_same_thread=False)
            stack.callback(self._db.close)
            self._db.text_factory = bytes
            schema.prepare(self._db, path)
            self.owner = Owner(path)
            stack.callback(self.owner.leave)
            with self.transaction():
                self.sweep()
            stack.pop_all()

    def close(self) -> None:
        """Give up unused claims and close the file.

        Where a transaction has failed the claims stay, and the next process counts them as paid: results
        may have been on their way to the disk.
        """
        if not self._in_doubt:
            with contextlib.suppress(sqlite3.Error):
                self._db.execute("DELETE FROM claims WHERE owner = ?", (self.owner.name,))
        self._db.close()
        self.owner.leave()

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """What is done inside is on the disk when this ends, all of it or nothing."""
        with self._plainly():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                self._in_doubt = True
                with contextlib.suppress(sqlite3.Error):
                    self._db.execute("ROLLBACK")
                raise

    def has_room(self, answers: int) -> bool:
        """Whether the disk can take so many more answers, those on their way included."""
        return shutil.disk_usage(self.path.parent).free > ROOM + ROOM_EACH * answers

    def find(self, slots: Sequence[bytes], max_tokens: int) -> tuple[dict[bytes, Entry], list[int]]:
        """Answers that serve, by slot, and the row numbers of damaged ones.

        Raises:
            LedgerError: the file is damaged, and not in an answer alone.
        """
        found: dict[bytes, Entry] = {}
        damaged: list[int] = []
        with self._plainly():
            for start in range(0, len(slots), MOST):
                part = slots[start : start + MOST]
                marks = ",".join("?" * len(part))
                query = f"SELECT {COLUMNS} FROM completions WHERE slot IN ({marks})"  # noqa: S608 - marks only
                for row in self._db.execute(query, part):
                    entry = unpack(row)
                    if entry is None:
                        damaged.append(row[-1])
                    elif entry.serves(max_tokens):
                        found.setdefault(entry.slot, entry)
            self._need_index(damaged)
        return found, damaged

    def drop(self, rows: Iterable[int]) -> None:
        """Delete damaged rows, so that they can be asked again."""
        for row in rows:
            gone = self._db.execute("DELETE FROM completions WHERE id = ?", (row,)).rowcount
            account.add(self._db, "answers", -gone)

    def add(self, teacher: str, max_tokens: int, done: Sequence[tuple[Ask, Reply, int | None]]) -> None:
        """Store answers with their costs and end their claims; what is there already is not paid again."""
        at, known = now(), self._known([ask.slot for ask, _, _ in done], max_tokens)
        new = {one[0].slot: one for one in done if one[0].slot not in known}
        rows = [pack(teacher, max_tokens, ask, reply, cost, at) for ask, reply, cost in new.values()]
        stored = self._db.executemany(INSERT, rows).rowcount
        account.add(self._db, "answers", max(stored, 0))
        self.release(ask for ask, _, _ in done)
        self.charge("paid", sum(cost or 0 for _, _, cost in new.values()))

    def fail(self, ask: Ask, failed: Failed, presumed: int) -> None:
        """Note that an ask has no usable answer; its claim ends unless it is tried again."""
        values = (ask.slot, raw(ask.example_id), failed.reason, raw(failed.detail[:500]), presumed, now())
        self._db.execute(
            "INSERT INTO failures (slot, example, reason, detail, presumed, at) "
            "VALUES (?, CAST(? AS TEXT), ?, CAST(? AS TEXT), ?, ?)",
            values,
        )
        self.release([ask])
        self.charge("presumed", presumed)

    def claims(self, slots: Sequence[bytes]) -> dict[bytes, str]:
        """Which of the slots are being asked, and by which owner; those of the dead are taken over."""
        self.sweep()
        held: dict[bytes, str] = {}
        for start in range(0, len(slots), MOST):
            part = slots[start : start + MOST]
            query = f"SELECT slot, owner FROM claims WHERE slot IN ({','.join('?' * len(part))})"  # noqa: S608
            held |= {slot: owner.decode() for slot, owner in self._db.execute(query, part)}
        return held

    def claim(self, asks: Sequence[Ask]) -> None:
        """Take asks for this process, and reserve what they can cost."""
        rows = ((ask.slot, self.owner.name, ask.bound) for ask in asks)
        self._db.executemany("INSERT INTO claims VALUES (?, ?, ?)", rows)

    def sweep(self) -> None:
        """End the claims of processes that are gone, and count what they had on their way as paid."""
        found = self._db.execute("SELECT DISTINCT CAST(owner AS TEXT) FROM claims")
        owners = [row[0].decode("utf-8", "replace") for row in found]
        for owner in owners:
            if owner == self.owner.name or owner.startswith(BATCH) or alive(self.path, owner):
                continue
            query = "SELECT CAST(TOTAL(bound) AS INTEGER) FROM claims WHERE owner = ?"
            (bound,) = self._db.execute(query, (owner,)).fetchone()
            self._db.execute("DELETE FROM claims WHERE owner = ?", (owner,))
            self.charge("presumed", bound)

    def charge(self, name: str, amount: int) -> None:
        """Add to the account `paid` or `presumed`."""
        account.add(self._db, name, amount)

    def money(self) -> Money:
        """What has been paid and what may have to be."""
        with self._plainly():
            sums = account.read(self._db)
            (reserved,) = self._db.execute("SELECT COALESCE(SUM(bound), 0) FROM claims").fetchone()
        return Money(sums["paid"], sums["presumed"], reserved)

    def mean_tokens(self, teacher: str) -> float | None:
        """Tokens that this teacher's answers have had on average; None where there are none."""
        query = "SELECT AVG(completion_tokens) FROM completions WHERE teacher = CAST(? AS TEXT)"
        with self._plainly():
            (mean,) = self._db.execute(query, (raw(teacher),)).fetchone()
        return None if mean is None else float(mean)

    def entrust(self, batch: str, asks: Sequence[Ask]) -> None:
        """Hand claims over to a batch job, which lives on when this process ends."""
        rows = ((f"{BATCH}{batch}", ask.slot, self.owner.name) for ask in asks)
        self._db.executemany("UPDATE claims SET owner = ? WHERE slot = ? AND owner = ?", rows)

    def entrusted(self, batch: str) -> dict[bytes, int]:
        """The claims of a batch job: what each slot can cost."""
        query = "SELECT slot, bound FROM claims WHERE owner = ?"
        with self._plainly():
            return dict(self._db.execute(query, (f"{BATCH}{batch}",)))

    def batches(self, teacher: str) -> dict[str, str]:
        """Batch jobs that have not been fetched, with what was noted of them."""
        query = "SELECT id, state FROM batches WHERE teacher = ? ORDER BY at, id"
        with self._plainly():
            return {i.decode(): state.decode() for i, state in self._db.execute(query, (teacher,))}

    def note_batch(self, teacher: str, id_: str, state: str | None) -> None:
        """Keep, change or (state None) forget a batch job and what it claims."""
        self._db.execute("DELETE FROM batches WHERE id = ?", (id_,))
        if state is None:
            self._db.execute("DELETE FROM claims WHERE owner = ?", (f"{BATCH}{id_}",))
        else:
            self._db.execute("INSERT INTO batches VALUES (?, ?, ?, ?)", (id_, teacher, state, now()))

    def stranded(self, but: str | None) -> tuple[str, int] | None:
        """The teacher of a batch job and its number of claims, where to wait for claims is in vain.

        So it is where batch jobs hold all claims, and the processes that their states begin with are
        gone; but not where there are jobs of the teacher `but`, who fetches them itself.
        """
        query = (
            "SELECT COUNT(*), b.teacher, SUBSTR(b.state, 1, 16) FROM claims c "
            "LEFT JOIN batches b ON c.owner = 'batch:' || b.id GROUP BY c.owner"
        )
        found = None
        with self._plainly():
            for number, teacher, name in self._db.execute(query).fetchall():
                if name is None or teacher.decode() == but or self._works(name.decode()):
                    return None
                found = (teacher.decode(), number)
        return found

    def _works(self, owner: str) -> bool:
        return owner != self.owner.name and alive(self.path, owner)

    def _need_index(self, damaged: Sequence[int]) -> None:
        """Refuse where the index led to a whole answer for another slot: dropping that one would lose it."""
        for row in damaged:
            query = f"SELECT {COLUMNS} FROM completions NOT INDEXED WHERE id = ?"  # noqa: S608 - a constant
            if any(unpack(one) for one in self._db.execute(query, (row,))):
                raise sqlite3.DatabaseError("its index points to wrong answers")

    def _known(self, slots: Sequence[bytes], max_tokens: int) -> set[bytes]:
        known: set[bytes] = set()
        for start in range(0, len(slots), MOST):
            part = slots[start : start + MOST]
            marks = ",".join("?" * len(part))
            query = f"SELECT slot FROM completions WHERE max_tokens = ? AND slot IN ({marks})"  # noqa: S608
            known.update(row[0] for row in self._db.execute(query, (max_tokens, *part)))
        return known

    def release(self, asks: Iterable[Ask]) -> None:
        """End the claims on asks that this process or a batch job holds."""
        mine = ((ask.slot, self.owner.name, f"{BATCH}%") for ask in asks)
        self._db.executemany("DELETE FROM claims WHERE slot = ? AND (owner = ? OR owner LIKE ?)", mine)

    @contextlib.contextmanager
    def _plainly(self) -> Iterator[None]:
        """Say in one line what is wrong with the file."""
        with writing(self.path):
            try:
                yield
            except sqlite3.Error as error:
                raise LedgerError(schema.complaint(self.path, error)) from None

"""The ledger: answers and money survive processes, several of them work on it, mistakes get one line."""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from asking import answer_all, answer_to, ask_of, make, order_of, reply_to, served

from stepdistill.errors import LedgerError, RunFolderError
from stepdistill.teacher.ledger import Ledger
from stepdistill.teacher.protocol import Failed, Tally
from stepdistill.teacher.work import Work

CHILD = Path(__file__).with_name("asking_process.py")
Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts child processes; what still runs at the end is killed."""
    started: list[subprocess.Popen[str]] = []

    def begin(*given: object) -> subprocess.Popen[str]:
        command = [sys.executable, str(CHILD), *map(str, given)]
        started.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
        return started[-1]

    yield begin
    for child in started:
        child.kill()
        child.communicate()


def test_an_answer_and_its_cost_are_there_after_reopening(tmp_path: Path) -> None:
    path, order = tmp_path / "a.sqlite", order_of(())
    asks = [ask_of(order, f"q{n}", 9) for n in range(3)]
    with Ledger(path) as ledger, ledger.transaction():
        ledger.claim(asks)
        ledger.add("openai:m", 128, [(ask, reply_to(ask.prompt), 11) for ask in asks[:2]])
        ledger.fail(asks[2], Failed("timeout", "no reply", maybe_paid=True), 9)
    with Ledger(path) as ledger:
        found, damaged = ledger.find([ask.slot for ask in asks], 128)
        money = ledger.money()
        assert ledger.mean_tokens("openai:m") == 100
        assert ledger.mean_tokens("openai:n") is None
    assert {slot: entry.text for slot, entry in found.items()} == {
        ask.slot: reply_to(ask.prompt).text for ask in asks[:2]
    }
    assert damaged == []
    assert (money.paid, money.presumed, money.reserved, money.total) == (22, 9, 0, 31)


def test_an_answer_that_is_there_is_neither_replaced_nor_paid_again(tmp_path: Path) -> None:
    order = order_of(())
    ask = ask_of(order, "q")
    with Ledger(tmp_path / "a.sqlite") as ledger:
        for cost in (5, 7):
            with ledger.transaction():
                twice = [(ask, reply_to(ask.prompt), cost)] * 2
                ledger.add("openai:m", 128, twice)
        assert ledger.money().paid == 5


def test_what_fails_inside_a_transaction_leaves_nothing_and_its_claims_are_presumed(tmp_path: Path) -> None:
    path, order = tmp_path / "a.sqlite", order_of(())
    asks = [ask_of(order, f"q{n}", 30) for n in range(2)]
    with Ledger(path) as ledger:
        with ledger.transaction():
            ledger.claim(asks)
        with contextlib.suppress(ZeroDivisionError), ledger.transaction():
            ledger.add("openai:m", 128, [(asks[0], reply_to(asks[0].prompt), 5)])
            raise ZeroDivisionError
        assert ledger.find([asks[0].slot], 128) == ({}, [])
        assert (ledger.money().paid, ledger.money().reserved) == (0, 60)
    with Ledger(path) as ledger:
        assert (ledger.money().presumed, ledger.money().reserved) == (60, 0)


def test_unused_claims_end_with_the_ledger(tmp_path: Path) -> None:
    path, order = tmp_path / "a.sqlite", order_of(())
    with Ledger(path) as ledger, ledger.transaction():
        ledger.claim([ask_of(order, "q", 30)])
    with Ledger(path) as ledger:
        assert ledger.money().total == 0
        assert ledger.claims([ask_of(order, "q").slot]) == {}
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.sqlite"]


@pytest.mark.parametrize("harm", ["DELETE FROM account", "UPDATE account SET amount = amount + 1"])
def test_sums_that_were_tampered_with_are_not_gone_by(tmp_path: Path, harm: str) -> None:
    path = tmp_path / "a.sqlite"
    make(path, ["q"])
    with Ledger(path) as ledger:
        other = sqlite3.connect(path, isolation_level=None)
        other.execute(harm)
        other.close()
        with pytest.raises(LedgerError, match="sums of money"):
            ledger.money()
        with pytest.raises(LedgerError, match="sums of money"), ledger.transaction():
            ledger.charge("paid", 1)
    with pytest.raises(LedgerError, match=r"sums of money are not whole.*--repair"):
        Ledger(path)


def test_an_entry_missing_from_the_index_is_noticed_before_anything_is_asked(tmp_path: Path) -> None:
    path = tmp_path / "a.sqlite"
    make(path, [f"q{n}" for n in range(5)])
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("PRAGMA writable_schema = ON")
    (sql,) = db.execute("SELECT sql FROM sqlite_master WHERE name = 'completions_by_slot'").fetchone()
    db.execute(
        "UPDATE sqlite_master SET sql = ? WHERE name = 'completions_by_slot'", (f"{sql} WHERE id > 1",)
    )
    db.execute("PRAGMA writable_schema = RESET")
    db.execute("REINDEX")
    db.execute("PRAGMA writable_schema = ON")
    db.execute("UPDATE sqlite_master SET sql = ? WHERE name = 'completions_by_slot'", (sql,))
    db.close()
    with pytest.raises(LedgerError, match=r"index does not fit.*--repair"):
        Ledger(path)


def test_eight_processes_open_a_new_ledger_at_once(tmp_path: Path, start: Start) -> None:
    for attempt in range(3):
        go = tmp_path / f"go{attempt}"
        children = [start("enter", tmp_path / f"{attempt}.sqlite", go) for _ in range(8)]
        for child in children:
            assert child.stdout is not None
            assert child.stdout.readline() == "ready\n"
        go.touch()
        said = [child.communicate(timeout=120) for child in children]
        assert [out for out, _ in said] == ["done\n"] * 8, [error for _, error in said]
    assert not list(tmp_path.glob("*.owners"))


def test_a_killed_process_loses_its_claims_and_their_bounds_are_presumed(
    tmp_path: Path, start: Start
) -> None:
    path, order = tmp_path / "a.sqlite", order_of(["question 0", "question 1", "question 2"])
    child = start("hold", path)
    assert child.stdout is not None
    assert child.stdout.readline() == "held\n"
    with Ledger(path) as ledger:
        work = Work(ledger, order, Tally())
        assert [ask.example_id for ask in work.exchange((), 9)] == ["id-question 2"]
        assert (ledger.money().presumed, ledger.money().reserved > 100) == (0, True)
    child.send_signal(signal.SIGKILL)
    child.wait()
    with Ledger(path) as ledger:
        assert (ledger.money().presumed, ledger.money().reserved) == (100, 0)
        assert len(answer_all(ledger, order)) == 3
        assert ledger.money().presumed == 100


def test_claims_of_a_process_that_dies_later_are_taken_over_too(tmp_path: Path, start: Start) -> None:
    path = tmp_path / "a.sqlite"
    child = start("hold", path)
    assert child.stdout is not None
    assert child.stdout.readline() == "held\n"
    with Ledger(path) as ledger:
        work = Work(ledger, order_of(["question 0", "question 1"]), Tally())
        assert work.exchange((), 9) == []
        assert not work.finished
        child.send_signal(signal.SIGKILL)
        child.wait()
        asks = [ask for _ in range(3) for ask in work.exchange((), 9)]
        assert len(asks) == 2
        assert ledger.money().presumed == 100


def test_two_processes_share_the_work(tmp_path: Path, start: Start) -> None:
    path, n = tmp_path / "a.sqlite", 300
    children = [start("answer", path, tmp_path / f"sent{k}", n) for k in range(2)]
    for child in children:
        _, error = child.communicate(timeout=120)
        assert (child.returncode, error) == (0, "")
    sent = [line for k in range(2) for line in (tmp_path / f"sent{k}").read_text().splitlines()]
    assert sorted(sent) == sorted(f"question {k}" for k in range(n))
    assert served(path, sent) == {word: answer_to(word) for word in sent}
    with Ledger(path) as ledger:
        assert (ledger.money().presumed, ledger.money().reserved) == (0, 0)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 600 kB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=600k", "tmpfs", str(folder)]
    if os.geteuid() or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small file system needs root")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def fill(ledger: Ledger, words: list[str], stored: list[str]) -> None:
    """Claim and store sixteen at a time, whatever room there is."""
    order = order_of(())
    for start in range(0, len(words), 16):
        asks = [ask_of(order, word, 50) for word in words[start : start + 16]]
        with ledger.transaction():
            ledger.claim(asks)
        with ledger.transaction():
            ledger.add("openai:m", 128, [(ask, reply_to(ask.prompt), 11) for ask in asks])
        stored += words[start : start + 16]


def test_a_full_disk_stops_in_one_line_and_loses_nothing_stored(small_disk: Path) -> None:
    path, words, stored = small_disk / "a.sqlite", [f"question {n}" for n in range(2000)], list[str]()
    wanted = r"cannot be written.*make room"
    with pytest.raises(LedgerError, match=wanted) as caught, Ledger(path) as ledger:
        fill(ledger, words, stored)
    assert "\n" not in str(caught.value)
    assert 0 < len(stored) < len(words)
    subprocess.run(["mount", "-o", "remount,size=20m", str(small_disk)], check=True)
    assert served(path, words) == {word: answer_to(word) for word in stored}
    with Ledger(path) as ledger:
        money = ledger.money()
        assert money.paid == 11 * len(stored)
        assert money.presumed in (0, 16 * 50)  # of those that could not be stored, if they were asked
        assert money.reserved == 0
        assert answer_all(ledger, order_of(words)) == words[len(stored) :]


def test_a_ledger_where_nothing_may_be_written_is_refused_in_one_line(small_disk: Path) -> None:
    with Ledger(small_disk / "a.sqlite") as ledger:
        fill(ledger, ["q"], [])
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    for name in ("a.sqlite", "new.sqlite", "folder/new.sqlite"):
        with pytest.raises((LedgerError, RunFolderError), match=r"annotate\.ledger|read-only") as caught:
            Ledger(small_disk / name)
        assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_a_hundred_thousand_prompts_need_no_more_memory_than_five_thousand(
    tmp_path: Path, start: Start
) -> None:
    peaks = []
    for n in (5_000, 100_000):
        out, error = start("stream", tmp_path / f"{n}.sqlite", n).communicate(timeout=600)
        assert error == ""
        peaks.append(int(out))
    assert peaks[1] - peaks[0] < 12_000

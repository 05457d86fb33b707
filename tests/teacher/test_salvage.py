"""A damaged ledger is refused in one line or serves what is whole; a salvage loses no whole answer."""

from __future__ import annotations

import sqlite3
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from asking import answer_all, answer_to, ask_of, make, order_of, prompt, reply_to, served
from chaos_ledger import flip
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stepdistill.errors import LedgerError
from stepdistill.teacher.ledger import Ledger
from stepdistill.teacher.protocol import Failed, Reply
from stepdistill.teacher.salvage import salvage
from stepdistill.teacher.schema import PAGE

WORDS = [f"question {n}" for n in range(120)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A ledger of 120 answers, closed."""
    make(tmp_path / "ledger.sqlite", WORDS)
    return tmp_path / "ledger.sqlite"


def refused(act: Callable[[], object], *parts: str) -> None:
    with pytest.raises(LedgerError) as caught:
        act()
    assert "\n" not in str(caught.value)
    for part in parts:
        assert part in str(caught.value)


def overwrite(path: Path, place: int, raw: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(place)
        file.write(raw)


def all_right(path: Path, words: list[str]) -> None:
    texts = served(path, words)
    assert texts == {word: answer_to(word) for word in words}


@pytest.mark.parametrize("structure", [False, True])
def test_a_flipped_byte_costs_one_answer_or_is_refused_and_repaired(tmp_path: Path, structure: bool) -> None:
    found = flip(tmp_path, 30, 7, answers=300, structure=structure)
    assert (found.wrong_rows, found.asked_more, found.refused_with_many_lines) == (0, 0, 0)
    assert found.not_repaired == []
    assert sum(found.recovered) / len(found.recovered) >= 0.99
    assert found.asked_one + found.refused > 0


def test_a_whole_ledger_is_left_alone(path: Path) -> None:
    before, names = path.read_bytes(), sorted(path.parent.iterdir())
    found = salvage(path)
    assert found.kept is None
    assert found.answers == len(WORDS)
    assert "nothing to repair" in str(found)
    assert path.read_bytes() == before
    assert sorted(path.parent.iterdir()) == names


def test_an_answer_kept_only_in_the_log_of_a_killed_process_belongs_to_a_whole_ledger(tmp_path: Path) -> None:
    path, order = tmp_path / "ledger.sqlite", order_of(WORDS)
    with Ledger(path) as ledger:
        answer_all(ledger, order)
        for end in ("", "-wal"):
            (tmp_path / f"copy{end}").write_bytes(path.with_name(path.name + end).read_bytes())
    copy = tmp_path / "copy"
    assert copy.with_name("copy-wal").stat().st_size > copy.stat().st_size
    assert salvage(copy).kept is None
    all_right(copy, WORDS)


def test_the_damaged_files_are_kept_and_money_and_batches_survive(path: Path) -> None:
    order = order_of(WORDS)
    with Ledger(path) as ledger, ledger.transaction():
        ledger.fail(ask_of(order, "lost"), Failed("timeout", maybe_paid=True), 77)
        ledger.claim([ask_of(order, "far", 5)])
        ledger.entrust("b1", [ask_of(order, "far", 5)])
        ledger.note_batch("openai:m", "b1", "sent")
        before = ledger.money()
    overwrite(path, 16, b"\0\7")  # the page size: SQLite reads nothing then
    damaged = path.read_bytes()
    refused(lambda: Ledger(path), "damaged", "--repair")
    found = salvage(path)
    assert (found.answers, found.dropped) == (len(WORDS), 0)
    assert found.kept == str(path) + ".damaged"
    assert Path(found.kept).read_bytes() == damaged
    assert str(found).count("\n") == 0
    all_right(path, WORDS)
    with Ledger(path) as ledger:
        assert ledger.money() == before
        assert ledger.batches("openai:m") == {"b1": "sent"}
        assert ledger.entrusted("b1") == {ask_of(order, "far").slot: 5}
    overwrite(path, 16, b"\0\7")
    assert salvage(path).kept == str(path) + ".damaged-2"
    assert Path(found.kept).read_bytes() == damaged


def test_money_is_at_least_what_the_salvaged_answers_have_cost(path: Path) -> None:
    with Ledger(path) as ledger:
        paid = ledger.money().paid
    assert paid > 0
    raw = path.read_bytes()
    for name in (b"paid", b"presumed", b"answers"):
        raw = raw.replace(b"\x1c" + name, b"\x1c" + b"?" * len(name))
    path.write_bytes(raw)
    refused(lambda: Ledger(path), "sums of money", "--repair")
    found = salvage(path)
    assert (found.answers, found.paid, found.presumed) == (len(WORDS), paid, None)
    assert "not known" in str(found)


@pytest.mark.parametrize("page", [1, 2, 3, 4, 5, 6, 7])
def test_a_page_of_zeros_costs_what_was_on_it_alone(path: Path, page: int) -> None:
    overwrite(path, (page - 1) * PAGE, bytes(PAGE))
    try:
        with Ledger(path) as ledger:
            asked = answer_all(ledger, order_of(WORDS))
    except LedgerError:
        found = salvage(path)
        assert found.answers >= len(WORDS) - 6
        assert found.dropped in (len(WORDS) - found.answers, 0)
        with Ledger(path) as ledger:
            asked = answer_all(ledger, order_of(WORDS))
    assert len(asked) <= 6
    all_right(path, WORDS)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(share=st.floats(0.01, 0.99), junk=st.binary(min_size=1, max_size=3000), where=st.floats(0, 1))
def test_any_damage_ends_in_service_or_in_one_line(
    path: Path, share: float, junk: bytes, where: float
) -> None:
    raw = path.read_bytes()
    worse = path.with_name("worse.sqlite")
    place = int(len(raw) * where)
    for end in ("", "-wal", "-shm"):
        worse.with_name(worse.name + end).unlink(missing_ok=True)
    worse.write_bytes((raw[:place] + junk + raw[place + len(junk) :])[: int(len(raw) * share) + 1])
    said = []
    for act in (lambda: Ledger(worse).close(), lambda: salvage(worse)):
        try:
            act()
        except LedgerError as error:
            said.append(str(error))
    assert not any("\n" in line for line in said)
    try:
        texts = served(worse, WORDS)
    except LedgerError:
        return
    assert all(text == answer_to(word) for word, text in texts.items())


def test_a_cut_tail_is_repaired(path: Path) -> None:
    raw = path.read_bytes()
    path.write_bytes(raw[: len(raw) * 2 // 3 - 100])
    refused(lambda: answer_all(Ledger(path), order_of(WORDS)), "damaged", "--repair")
    found = salvage(path)
    assert 0.5 * len(WORDS) < found.answers < len(WORDS)
    assert found.answers + found.dropped == len(WORDS)
    with Ledger(path) as ledger:
        assert len(answer_all(ledger, order_of(WORDS))) == len(WORDS) - found.answers
    all_right(path, WORDS)


def test_without_its_log_a_ledger_serves_what_it_has(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    make(path, WORDS[:60])
    with Ledger(path) as ledger:
        answer_all(ledger, order_of(WORDS))
        bare = tmp_path / "bare.sqlite"
        bare.write_bytes(path.read_bytes())
    with Ledger(bare) as ledger:
        asked = answer_all(ledger, order_of(WORDS))
    assert set(asked) <= set(WORDS[60:])
    all_right(bare, WORDS)


def test_a_log_that_the_power_failed_on_is_no_damage(tmp_path: Path) -> None:
    """Of the last transaction some pages had not arrived: it was not stored, and the rest serves."""
    path = tmp_path / "ledger.sqlite"
    with Ledger(path) as ledger:
        answer_all(ledger, order_of(WORDS[:60]), 20)
        main, log = path.read_bytes(), path.with_name("ledger.sqlite-wal").read_bytes()
        with ledger.transaction():
            order = order_of(())
            asks = [ask_of(order, word) for word in WORDS[60:]]
            ledger.add("openai:m", 128, [(ask, reply_to(ask.prompt), 1) for ask in asks])
        more = bytearray(path.with_name("ledger.sqlite-wal").read_bytes())
    assert len(more) > len(log)
    more[len(log) + 24 : len(log) + 24 + PAGE] = bytes(PAGE)
    copy = tmp_path / "copy"
    copy.write_bytes(main)
    copy.with_name("copy-wal").write_bytes(more)
    all_right(copy, WORDS[:60])


def test_an_emptied_file_does_not_cost_its_log(tmp_path: Path) -> None:
    path, copy = tmp_path / "ledger.sqlite", tmp_path / "copy"
    with Ledger(path) as ledger:
        answer_all(ledger, order_of(WORDS))
        copy.with_name("copy-wal").write_bytes(path.with_name("ledger.sqlite-wal").read_bytes())
        copy.touch()
    refused(lambda: Ledger(copy), "it is empty", "--repair")
    assert salvage(copy).answers == len(WORDS)
    all_right(copy, WORDS)


def test_the_log_of_another_ledger_brings_no_wrong_answer(path: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.sqlite"
    with Ledger(other) as ledger:
        answer_all(ledger, order_of([f"another {n}" for n in range(80)]))
        log = other.with_name("other.sqlite-wal").read_bytes()
    path.with_name("ledger.sqlite-wal").write_bytes(log)
    kept = path.read_bytes()
    found = salvage(path)
    assert found.answers >= len(WORDS)
    assert Path(str(found.kept)).read_bytes() == kept
    all_right(path, WORDS)


@pytest.mark.slow
@pytest.mark.parametrize("place", [0, 2, 9, 17, 28, 32 + 24 + 60, 32 + 24 + PAGE + 9, 32 + 24 + PAGE + 30])
def test_a_damaged_log_is_salvaged_beyond_the_damage(tmp_path: Path, place: int) -> None:
    path = tmp_path / "ledger.sqlite"
    with Ledger(path) as ledger:
        for start in range(0, 120, 20):
            answer_all(ledger, order_of(WORDS[start : start + 20]))
        copy, log = tmp_path / "copy", path.with_name("ledger.sqlite-wal").read_bytes()
        main = path.read_bytes()
        copy.write_bytes(main)
    broken = bytearray(log)
    broken[place] ^= 0xFF
    copy.with_name("copy-wal").write_bytes(log)
    all_right(copy, WORDS)
    copy.write_bytes(main)
    copy.with_name("copy-wal").write_bytes(broken)
    refused(lambda: Ledger(copy), "write-ahead log", "--repair")
    assert copy.with_name("copy-wal").read_bytes() == bytes(broken)
    found = salvage(copy)
    assert found.answers >= len(WORDS) - 1
    assert copy.with_name("copy.damaged-wal").read_bytes() == bytes(broken)
    with Ledger(copy) as ledger:
        assert len(answer_all(ledger, order_of(WORDS))) == len(WORDS) - found.answers


@pytest.mark.parametrize("version", [0, 2, 77])
def test_a_ledger_of_another_release_is_left_to_it(path: Path, version: int) -> None:
    db = sqlite3.connect(path)
    db.execute("ALTER TABLE completions ADD COLUMN more TEXT")
    db.execute(f"PRAGMA user_version = {version}")
    db.close()
    before = path.read_bytes()
    for act in (lambda: Ledger(path), lambda: salvage(path)):
        refused(act, f"version {version}", "reads version 1", "annotate.ledger")
    assert path.read_bytes() == before


@pytest.mark.parametrize("place", [60, 63, 68])
def test_a_flipped_mark_is_not_taken_for_another_release_or_program(path: Path, place: int) -> None:
    overwrite(path, place, b"\x99")
    refused(lambda: Ledger(path), "damaged", "--repair")
    assert salvage(path).answers == len(WORDS)
    all_right(path, WORDS)


def test_files_of_others_are_refused_and_left_alone(tmp_path: Path) -> None:
    theirs, text, empty = tmp_path / "theirs.sqlite", tmp_path / "notes.txt", tmp_path / "empty"
    db = sqlite3.connect(theirs)
    db.execute("CREATE TABLE completions (id INTEGER PRIMARY KEY, words TEXT)")
    db.commit()
    db.close()
    text.write_text("These are my notes.\n" * 500)
    empty.touch()
    before = {file: file.read_bytes() for file in (theirs, text, empty)}
    refused(lambda: Ledger(theirs), "not a stepdistill ledger", "annotate.ledger")
    refused(lambda: salvage(theirs), "not a stepdistill ledger")
    refused(lambda: Ledger(text), "not a database", "annotate.ledger")
    refused(lambda: salvage(text), "nothing of a ledger")
    refused(lambda: salvage(empty), "nothing of a ledger")
    refused(lambda: Ledger(tmp_path), "is a folder")
    refused(lambda: salvage(tmp_path), "no such file")
    refused(lambda: salvage(tmp_path / "none"), "no such file")
    assert before == {file: file.read_bytes() for file in before}
    make(empty, WORDS[:3])
    all_right(empty, WORDS[:3])


def test_a_ledger_in_use_is_not_repaired(path: Path) -> None:
    overwrite(path, PAGE * 9 + 2000, b"?" * 30)
    with Ledger(path):
        refused(lambda: salvage(path), "another process", "repair again")
    salvage(path)


def test_words_of_every_kind_are_salvaged(tmp_path: Path) -> None:
    path, order = tmp_path / "ledger.sqlite", order_of(())
    texts = ["", "\ud800", "\0", "é" * 40_000, "\x10\x00\x2c" * 30, "0", "x" * 4090, "x" * 4000]
    asks = [ask_of(order, f"q{n}") for n in range(len(texts))]
    with Ledger(path) as ledger, ledger.transaction():
        replies = [Reply(text, "stop", "m", None, n, seconds=n / 3) for n, text in enumerate(texts)]
        ledger.add("openai:m", 9, [(ask, reply, None) for ask, reply in zip(asks, replies, strict=True)])
    overwrite(path, 0, b"?" * 100)
    assert salvage(path).answers == len(texts)
    with Ledger(path) as ledger:
        found, damaged = ledger.find([ask.slot for ask in asks], 9)
    assert [found[ask.slot].text for ask in asks] == texts
    assert damaged == []


def test_an_index_that_points_to_another_answer_deletes_none(path: Path) -> None:
    """Two entries of the index exchange their row numbers: both rows are whole, and neither is dropped."""
    order, raw = order_of(WORDS), bytearray(path.read_bytes())
    db = sqlite3.connect(path)
    slots = [order.keys.slot(prompt(word), 0) for word in WORDS[100:102]]
    ids = [db.execute("SELECT id FROM completions WHERE slot = ?", (slot,)).fetchone()[0] for slot in slots]
    db.close()
    for slot, mine, others in zip(slots, ids, reversed(ids), strict=True):
        entry = slot + struct.pack(">hB", 128, mine)
        assert raw.count(entry) == 1
        raw = raw.replace(entry, slot + struct.pack(">hB", 128, others))
    path.write_bytes(raw)

    def ask_all() -> None:
        with Ledger(path) as ledger:
            answer_all(ledger, order)

    refused(ask_all, "index", "--repair")
    assert salvage(path).answers == len(WORDS)
    all_right(path, WORDS)

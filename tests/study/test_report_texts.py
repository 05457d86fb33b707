"""Texts of others on a page, whatever stands in them."""

from __future__ import annotations

import json
import tempfile
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stepdistill.errors import DataError
from stepdistill.study.report import scan
from stepdistill.study.report.clean import clean, embed, finalize
from stepdistill.study.report.table import Column, Table, number, words

ANY = st.text(st.characters(exclude_categories=()) | st.sampled_from("<>&!-/\u2028\u2029\ud800\x00\x1b\x85"))


@given(ANY)
def test_a_cleaned_text_has_utf8_and_no_control_characters_and_nothing_else_is_lost(text: str) -> None:
    found = clean(text)
    found.encode("utf-8")
    assert not {c for c in found if unicodedata.category(c) in ("Cc", "Cs")} - {"\n", "\t"}
    kept = [c for c in text if unicodedata.category(c) not in ("Cc", "Cs") and c not in "\ufffe\uffff"]
    letters = iter(found)
    assert all(c in letters for c in kept)


@settings(max_examples=40)
@given(
    st.recursive(ANY | st.integers() | st.none(), lambda inner: st.lists(inner) | st.dictionaries(ANY, inner))
)
def test_embedded_json_cannot_end_its_element_and_is_the_same_value(value: object) -> None:
    text = embed(value)
    assert text.isascii()
    assert "<" not in text
    assert json.loads(text) == value


def test_markup_that_is_safe_already_is_left_alone() -> None:
    class Safe(str):
        pass

    safe = Safe("\x01")
    assert finalize(safe) is safe
    assert finalize("\x01") == "\\x01"
    assert finalize(None) == ""


def test_columns_that_say_the_same_everywhere_are_said_once() -> None:
    columns = [Column("task"), Column("method"), Column("empty"), Column("n", number=True)]
    rows = [[words("t"), words(name), words(None), number(n)] for name, n in (("a", 1), ("b", 2))]
    table = Table("x", "X", columns, rows).short()
    assert [column.title for column in table.columns] == ["method", "n"]
    assert table.same == [("task", "t")]
    alone = Table("x", "X", columns, rows[:1]).short()
    assert [column.title for column in alone.columns] == ["task", "method", "n"]


NAMES = st.sampled_from(["teacher", "finetune", 'odd "name\\', "", "é\u2028"])
ROWS = st.lists(
    st.fixed_dictionaries(
        {"name": NAMES, "gold": st.none() | ANY, "example_id": ANY, "text": ANY}, optional={"label": ANY}
    )
)


@settings(max_examples=40)
@given(ROWS, NAMES, st.sets(st.integers(0, 5)), st.booleans())
def test_rows_are_found_by_the_beginnings_of_their_lines_as_by_reading_all(
    rows: list[dict[str, str]], name: str, places: set[int], other_order: bool
) -> None:
    with tempfile.TemporaryDirectory() as home:
        path = Path(home) / "rows.jsonl"
        # Our own lines, or as another program may have written them.
        lines = (json.dumps(row, sort_keys=other_order, ensure_ascii=True) for row in rows)
        path.write_text("".join(line + "\n" for line in lines))
        counted = [row for row in rows if row["name"] == name and row["gold"] is not None]
        wanted = [(at, row) for at, row in enumerate(counted) if at in places]
        assert list(scan.answers(path, name, places)) == wanted
        short = [{key: row[key] for key in ("name", "example_id", "text")} for row in rows]
        path.write_text("".join(json.dumps(row, sort_keys=other_order) + "\n" for row in short))
        ids = {row["example_id"] for row in rows[::2]}
        mine = {row["example_id"]: row for row in short if row["name"] == name and row["example_id"] in ids}
        assert scan.explanations(path, name, ids) == mine
        assert scan.examples(path, ids) == {r["example_id"]: r for r in short if r["example_id"] in ids}


def test_a_file_that_is_not_there_has_no_rows(tmp_path: Path) -> None:
    assert list(scan.answers(tmp_path / "none", "finetune", {0})) == []
    assert scan.examples(tmp_path / "none", {"a"}) == {}


def test_a_damaged_line_is_named(tmp_path: Path) -> None:
    path = tmp_path / "predictions.jsonl"
    path.write_text('{"name": "finetune", "gold": "a", "exam\n')
    with pytest.raises(DataError, match=r"predictions.jsonl:1: malformed JSON"):
        list(scan.answers(path, "finetune", {0}))

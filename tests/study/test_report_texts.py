"""Texts of others on a page, whatever stands in them."""

from __future__ import annotations

import json
import unicodedata

from hypothesis import given
from hypothesis import strategies as st

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

"""JSON lines are read and written a row at a time, with the faults and line ends of the whole file."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stepdistill.errors import DataError
from stepdistill.files import iter_jsonl, read_jsonl, read_text, write_jsonl

Row = dict[str, Any]


def outcome(path: Path) -> tuple[list[Row], str]:
    """The rows up to the first fault, and the fault."""
    rows: list[Row] = []
    try:
        for row in iter_jsonl(path):
            rows.append(row)
    except DataError as error:
        return rows, str(error)
    return rows, ""


LINES = st.sampled_from(
    ["", " ", "\t", "\r", '{"a": 1}', '{"a": "\u2028\x85\x0b"}', '{"b": "é"}\r', "[1]", "{", "7", "\ufeff{}"]
)


@settings(deadline=None)
@given(lines=st.lists(LINES), mark=st.booleans())
def test_json_lines_end_at_line_feeds_alone_and_faults_have_their_number(
    lines: list[str], mark: bool
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.jsonl"
        path.write_bytes("\n".join(lines).encode("utf-8-sig" if mark else "utf-8"))
        expected: list[Row] = []
        for number, line in enumerate(read_text(path).split("\n"), start=1):
            try:
                row = json.loads(line) if line.strip() else None
            except ValueError:
                row = "nothing"
            if row is not None and not isinstance(row, dict):
                found, message = outcome(path)
                assert found == expected
                assert message.startswith(f"{path}:{number}: ")
                return
            expected += [] if row is None else [row]
        assert outcome(path) == (expected, "")
        assert read_jsonl(path) == expected


@pytest.mark.parametrize("before", [0, 1, 8191, 8192, 100_000])
@pytest.mark.parametrize("wrong", [b"\xff", b"\xe2\x82\n", b"\xed\xa0\x80", b"\xc3"])
def test_the_byte_that_is_not_utf_8_is_named_however_late(tmp_path: Path, before: int, wrong: bytes) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b" " * (before // 2) + b"\n" * (before - before // 2) + wrong)
    with pytest.raises(DataError) as caught:
        list(iter_jsonl(path))
    with pytest.raises(DataError) as whole:
        read_text(path)
    assert f"not UTF-8 (byte {before})" in str(caught.value)
    assert str(caught.value) == str(whole.value)


def test_json_lines_are_read_one_at_a_time(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"a": 1}\n' * 9999 + "nonsense\n")
    assert next(iter_jsonl(tmp_path / "a.jsonl")) == {"a": 1}


@pytest.mark.parametrize("there", [False, True])
def test_rows_that_fail_half_way_leave_the_old_file_and_nothing_else(tmp_path: Path, there: bool) -> None:
    path = tmp_path / "a.jsonl"
    if there:
        write_jsonl(path, [{"old": 1}])

    def rows() -> Iterator[Row]:
        yield {"new": 1}
        raise DataError("half way")

    with pytest.raises(DataError, match="half way"):
        write_jsonl(path, rows())
    assert [p.name for p in tmp_path.iterdir()] == (["a.jsonl"] if there else [])
    assert not there or read_jsonl(path) == [{"old": 1}]


def test_rows_are_written_as_they_come(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "a.jsonl", iter([{"a": "\u2028é"}, {"a": "\ud800"}]))
    assert (tmp_path / "a.jsonl").read_bytes() == b'{"a": "\\u2028\\u00e9"}\n{"a": "\\ud800"}\n'

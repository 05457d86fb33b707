"""The same rows read to the same examples out of every format, and every fault is named in one line."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from stepdistill.config import DataConfig
from stepdistill.errors import DataError
from stepdistill.records import Example
from stepdistill.task.load import load_examples, load_task

ROWS = [
    {"key": "a1", "message": "charged twice, \u2028 for March", "team": "billing"},
    {"key": "a2", "message": 'the app says "no"\nand closes', "team": "technical"},
    {"key": "a3", "message": "ünïcödé \U0001f600 {braces} <tags> & 'quotes'", "team": ""},
]
EXPECTED = [
    Example("a1", "Q: charged twice, \u2028 for March", "billing"),
    Example("a2", 'Q: the app says "no"\nand closes', "technical"),
    Example("a3", "Q: ünïcödé \U0001f600 {braces} <tags> & 'quotes'", None),
]
Reader = Callable[..., list[Example]]


@pytest.fixture
def read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Reader:
    """Reads `name` as the train split of a task file beside it, after writing `content` there."""
    monkeypatch.delenv("STEPDISTILL_DATA", raising=False)

    def reader(name: str, content: str | bytes | None = None, **changes: Any) -> list[Example]:
        if content is not None:
            (tmp_path / name).write_bytes(content.encode() if isinstance(content, str) else content)
        spec = {
            "name": "teams",
            "instruction": "Decide.",
            "input": "Q: {message}",
            "id": "key",
            "answer": {"kind": "label", "column": "team", "labels": ["billing", "technical"]},
            "data": {"files": {"train": name}},
        } | changes
        (tmp_path / "task.yaml").write_text(yaml.safe_dump(spec), encoding="utf-8")
        return load_examples(load_task(str(tmp_path / "task.yaml")), DataConfig())["train"]

    return reader


def as_json_lines(path: Path) -> None:
    path.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in ROWS), encoding="utf-8")


def as_json_list(path: Path) -> None:
    path.write_text("\n " + json.dumps(ROWS, indent=1, ensure_ascii=False), encoding="utf-8")


def as_table(path: Path) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(ROWS[0]), delimiter="\t" if path.suffix == ".tsv" else ",")
        writer.writeheader()
        writer.writerows(ROWS)


def as_parquet(path: Path) -> None:
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    parquet.write_table(pyarrow.Table.from_pylist(ROWS), path)


def as_datasets_folder(path: Path) -> None:
    pytest.importorskip("datasets").Dataset.from_list(ROWS).save_to_disk(str(path))


def as_xml(path: Path) -> None:
    from xml.etree import ElementTree

    root = ElementTree.Element("corpus")
    for row in ROWS:
        element = ElementTree.SubElement(root, "row", ID=row["key"], key=row["key"])
        for name in ("message", "team"):
            ElementTree.SubElement(element, name).text = row[name]
    path.write_text(ElementTree.tostring(root, "unicode"), encoding="utf-8")


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("rows.jsonl", as_json_lines),
        ("rows.JSONL", as_json_lines),
        ("rows.json", as_json_list),
        ("lines.json", as_json_lines),
        ("rows.csv", as_table),
        ("rows.tsv", as_table),
        ("rows.parquet", as_parquet),
        ("rows.xml", as_xml),
        ("folder", as_datasets_folder),
    ],
)
def test_every_format_reads_to_the_same_examples(
    read: Reader, tmp_path: Path, name: str, write: Callable[[Path], None]
) -> None:
    write(tmp_path / name)
    assert read(name) == EXPECTED


def lines(*rows: str) -> str:
    return "".join(f"{row}\n" for row in rows)


GOOD = '{"key": 1, "message": "hello", "team": "billing"}'
NEXT = '{"key": 2, "message": "bye", "team": "technical"}'
TABLE = "key,message,team"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", lines(GOOD, NEXT).encode("utf-8-sig")),
        ("a.json", f"[{GOOD}, {NEXT}]".encode("utf-8-sig")),
        ("a.csv", lines(TABLE, "1,hello,billing", "2,bye,technical").encode("utf-8-sig")),
        ("a.jsonl", lines(GOOD, NEXT).replace("\n", "\r\n")),
        ("a.json", lines("[", GOOD, ",", NEXT, "]").replace("\n", "\r\n")),
        ("a.csv", lines(TABLE, "1,hello,billing", "2,bye,technical").replace("\n", "\r\n")),
        ("a.jsonl", f"\n{GOOD}\n\n  \n{NEXT}"),
        ("a.csv", f"{TABLE}\n\n1,hello,billing\n\n2,bye,technical"),
        ("a.jsonl", lines(GOOD, '{"key": 2, "message": "  bye\\n", "team": "Technical"}')),
    ],
)
def test_byte_order_marks_line_ends_and_empty_lines_do_not_count(
    read: Reader, name: str, content: str
) -> None:
    assert read(name, content, input="{message}") == [
        Example("1", "hello", "billing"),
        Example("2", "bye", "technical"),
    ]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.jsonl", lines(GOOD, '{"key": 2,'), ["a.jsonl:2", "malformed JSON"]),
        ("a.jsonl", lines(GOOD, "", "nonsense"), ["a.jsonl:3", "malformed JSON", "'nonsense'"]),
        ("a.jsonl", lines(GOOD, "[1]"), ["a.jsonl:2", "JSON object per line", "'[1]'"]),
        ("a.jsonl", lines("[" * 100_000), ["a.jsonl:1", "nested too deeply"]),
        ("a.json", f"[\n{GOOD},\n{{]", ["a.json:3", "malformed JSON"]),
        ("a.json", f"[{GOOD}, 7]", ["a.json", "item 1 is 7", "JSON object"]),
        ("a.json", "[" * 100_000, ["a.json", "nested too deeply"]),
        # A defect when written: a ValueError that is no JSONDecodeError.
        ("a.json", '[{"key": ' + "9" * 5000 + "}]", ["a.json", "malformed JSON"]),
        ("a.json", "[]", ["a.json", "is empty", "at least one row"]),
        ("a.jsonl", b'{"key": "caf\xe9"}', ["a.jsonl", "not UTF-8", "byte 12", "iconv"]),
        ("a.csv", b"key\xff", ["a.csv", "not UTF-8", "byte 3", "iconv"]),
        ("a.jsonl", "", ["a.jsonl", "is empty", "at least one row"]),
        ("a.jsonl", "\n \n", ["a.jsonl", "is empty"]),
        ("a.csv", "", ["a.csv", "is empty"]),
        ("a.csv", TABLE, ["a.csv", "is empty"]),
        ("a.csv", lines(TABLE, "1,hello,billing", "2,bye"), ["a.csv:3", "2 columns", "header has 3"]),
        ("a.csv", lines(TABLE, "1,hello,billing,x"), ["a.csv:2", "4 columns", "header has 3"]),
        ("a.csv", lines(TABLE, '1,"hello,billing'), ["a.csv:2", "malformed table"]),
        # A defect when written: the last of equal columns won.
        ("a.csv", lines("key,message,team,team", "1,hi,billing,x"), ["a.csv", "'team'", "twice"]),
        ("a.tsv", lines(TABLE, "1,hello,billing"), ["a.tsv", "row 1", "no column 'message'", TABLE]),
        ("a.parquet", "PAR1 not really", ["a.parquet", "not a Parquet file"]),
        ("a.parquet", "", ["a.parquet", "not a Parquet file"]),
        ("a.xml", "<rows>\n<row>", ["a.xml:2", "malformed XML"]),
        ("a.xml", "<rows/>", ["a.xml", "is empty"]),
        (
            "a.xml",
            '<!DOCTYPE r [<!ENTITY a "boom">]><r ID="1">&a;</r>',
            ["a.xml", "document type is refused"],
        ),
        ("a.txt", GOOD, ["a.txt", "unknown file format '.txt'", ".jsonl", ".parquet"]),
        ("a.jsonn", GOOD, ["a.jsonn", "did you mean '.json"]),
        ("plain", GOOD, ["plain", "unknown file format 'plain'", ".jsonl"]),
        ("a.jsonl", lines(GOOD, NEXT, GOOD), ["a.jsonl", "the id '1'", "rows 1 and 3", "id: null"]),
        (
            "a.jsonl",
            lines(GOOD, NEXT.replace("technical", "legal")),
            ["a.jsonl", "row 2", "'legal'", "closed set", "billing, technical"],
        ),
        (
            "a.jsonl",
            lines(GOOD, '{"key": 2, "text": "x", "team": null}'),
            ["a.jsonl", "row 2", "no column 'message'", "key, text, team", "task file"],
        ),
        ("a.jsonl", '{"key": 1, "message": "x"}', ["a.jsonl", "row 1", "no column 'team'"]),
        ("a.jsonl", '{"message": "x", "team": null}', ["a.jsonl", "row 1", "no column 'key'"]),
    ],
)
def test_a_fault_is_one_line_with_file_place_and_remedy(
    read: Reader, name: str, content: str | bytes, said: list[str]
) -> None:
    with pytest.raises(DataError) as caught:
        read(name, content)
    message = str(caught.value)
    assert [part for part in said if part not in message] == [], message
    assert "\n" not in message


# A defect when written: null was the input text "None".
@pytest.mark.parametrize("value", ['""', '"  "', '"\\n\\t"', "null"])
def test_an_empty_input_is_refused_with_its_row(read: Reader, value: str) -> None:
    row = f'{{"key": 2, "message": {value}, "team": null}}'
    with pytest.raises(DataError, match="row 2: the input text is empty"):
        read("a.jsonl", lines(GOOD, row), input="{message}")


@pytest.mark.parametrize("name", ["absent.jsonl", "absent.parquet", "absent", "absent/part.csv"])
def test_a_missing_file_is_named_with_both_places_and_the_key(
    read: Reader, tmp_path: Path, name: str
) -> None:
    with pytest.raises(DataError, match="no such file") as caught:
        read(name)
    assert f"{tmp_path / name}:" in str(caught.value)
    assert str(tmp_path / "teams" / name) in str(caught.value)
    assert "data.root" in str(caught.value)


def test_a_folder_that_datasets_did_not_save_is_refused(read: Reader, tmp_path: Path) -> None:
    pytest.importorskip("datasets")
    (tmp_path / "folder").mkdir()
    with pytest.raises(DataError, match="not a folder saved by `datasets`") as caught:
        read("folder")
    assert "\n" not in str(caught.value)


def test_a_datasets_folder_with_several_splits_asks_for_one(read: Reader, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    rows = datasets.Dataset.from_list(ROWS)
    datasets.DatasetDict({"train": rows, "dev": rows}).save_to_disk(str(tmp_path / "folder"))
    with pytest.raises(DataError, match=r"holds the splits train, dev; name one, such as .*folder/train"):
        read("folder")
    assert read("folder/train") == EXPECTED


def test_line_ends_inside_a_cell_are_kept(read: Reader) -> None:
    found = read("a.csv", f'{TABLE}\r\n1,"a\r\nb",billing\r\n', input="{message}")
    assert found == [Example("1", "a\r\nb", "billing")]


def test_a_row_number_counts_rows_and_ids_number_them_from_zero(read: Reader) -> None:
    found = read("a.jsonl", lines(GOOD, "", NEXT), id=None)
    assert [example.id for example in found] == ["train-0", "train-1"]


CHOICE = {"kind": "choice", "column": "team", "options": "choices"}


def test_the_options_of_a_row_are_shown_lettered_where_the_template_says(read: Reader) -> None:
    row = '{"key": 1, "message": "Where?", "choices": ["sea", "lake", 3], "team": "lake"}'
    found = read("a.jsonl", row, input="{message}\n{options}", answer=CHOICE)
    assert found == [Example("1", "Where?\n(a) sea\n(b) lake\n(c) 3", "lake", ("sea", "lake", "3"))]


def test_a_dotted_column_reaches_into_a_nested_one(read: Reader) -> None:
    row = '{"key": 1, "message": "Where?", "choices": {"text": ["sea", "lake"]}, "team": "B"}'
    found = read("a.jsonl", row, answer=CHOICE | {"options": "choices.text"})
    assert found == [Example("1", "Q: Where?", "lake", ("sea", "lake"))]


def test_a_column_with_a_dot_in_its_name_is_found(read: Reader) -> None:
    row = '{"key": 1, "message": "Where?", "choices.text": ["sea", "lake"], "team": "sea"}'
    found = read("a.jsonl", row, answer=CHOICE | {"options": "choices.text"})
    assert found == [Example("1", "Q: Where?", "sea", ("sea", "lake"))]


# A defect when written: only the last part of the name was told.
def test_a_missing_nested_column_is_named_in_full(read: Reader) -> None:
    row = '{"key": 1, "message": "Where?", "choices": {"label": ["A"]}, "team": "A"}'
    with pytest.raises(DataError, match=r"row 1: no column 'choices\.text'"):
        read("a.jsonl", row, answer=CHOICE | {"options": "choices.text"})


def test_a_cell_of_a_table_holds_options_as_a_json_list(read: Reader) -> None:
    content = 'key,message,choices,team\n1,Where?,"[""sea"", ""lake"", 3]",B\n'
    assert read("a.csv", content, answer=CHOICE) == [Example("1", "Q: Where?", "lake", ("sea", "lake", "3"))]


@pytest.mark.parametrize(
    "value", ['"sea|lake"', "null", "7", '{"a": "sea"}', "[]", '"[1, "', '"[]"', f'"{"[" * 9999}"']
)
def test_options_that_are_no_list_are_refused_with_their_row(read: Reader, value: str) -> None:
    row = f'{{"key": 1, "message": "Where?", "choices": {value}, "team": null}}'
    with pytest.raises(DataError, match=r"row 1.*'choices'.*list"):
        read("a.jsonl", row, answer=CHOICE)


# A defect when written: the word None stood in the input.
def test_a_null_column_is_an_empty_text_and_not_the_word_none(read: Reader) -> None:
    row = '{"key": 1, "message": "hello", "context": null, "team": null}'
    assert read("a.jsonl", row, input="{context}\n{message}") == [Example("1", "hello", None)]

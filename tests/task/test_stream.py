"""Examples are read anew at every pass, equal to a plain reading, checked before the first is given."""

from __future__ import annotations

import csv
import json
import random
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from stepdistill.config import DataConfig, LimitConfig
from stepdistill.errors import DataError
from stepdistill.records import Example
from stepdistill.task import stream
from stepdistill.task.load import Task, load_examples, load_task, stream_examples
from stepdistill.task.stream import Hashes, digest_examples

Row = dict[str, Any]


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("STEPDISTILL_DATA", raising=False)


def rows_of(n: int, start: int = 0) -> list[Row]:
    return [
        {"key": f"k{i}", "message": f"message {i}", "team": (None, "a", "b")[i % 3]}
        for i in range(start, start + n)
    ]


def put(path: Path, rows: list[Row]) -> None:
    """Rows in the format that the name's ending says."""
    if path.suffix in (".csv", ".tsv"):
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(
                file, ["key", "message", "team"], delimiter="\t" if "t" in path.suffix else ","
            )
            writer.writeheader()
            writer.writerows(rows)
    elif path.suffix == ".parquet":
        pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
        parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    elif path.name == "list.json":
        path.write_text(json.dumps(rows), encoding="utf-8")
    elif path.suffix in (".json", ".jsonl"):
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    else:
        pytest.importorskip("datasets").Dataset.from_list(rows).save_to_disk(str(path))


def task_at(folder: Path, files: dict[str, str], name: str = "teams", **data: Any) -> Task:
    spec = {
        "name": name,
        "instruction": "Decide.",
        "input": "{message}",
        "id": "key",
        "answer": {"kind": "label", "column": "team", "labels": ["a", "b"]},
        "data": {"files": files} | data,
    }
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(spec), encoding="utf-8")
    return load_task(str(folder / f"{name}.yaml"))


FORMATS = ["a.jsonl", "lines.json", "list.json", "a.csv", "a.tsv", "a.parquet", "folder"]


@pytest.mark.parametrize("name", FORMATS)
def test_every_pass_gives_the_same_examples_in_every_format(tmp_path: Path, name: str) -> None:
    put(tmp_path / name, rows_of(3000))
    found = stream_examples(task_at(tmp_path, {"train": name}), DataConfig())["train"]
    expected = [Example(f"k{i}", f"message {i}", (None, "a", "b")[i % 3]) for i in range(3000)]
    assert list(found) == expected
    assert list(found) == expected
    assert len(found) == 3000


def test_two_passes_at_a_time_do_not_disturb_each_other(tmp_path: Path) -> None:
    put(tmp_path / "a.jsonl", rows_of(10))
    task = task_at(tmp_path, {"train": "a.jsonl"}, validation={"from": "train", "n": 3})
    found = stream_examples(task, DataConfig())
    left, right = iter(found["train"]), iter(found["train"])
    next(left)
    assert [*right][1:] == [*left]


def plainly(rows: list[Row], n: int, seed: int) -> tuple[list[Example], list[Example]]:
    """Train and validation as lists, by an independent reading."""
    examples = [Example(row["key"], row["message"].strip(), row["team"] or None) for row in rows]
    chosen = random.Random(seed).sample(range(len(rows)), n) if n else []
    return (
        [e for i, e in enumerate(examples) if i not in chosen],
        [examples[i] for i in sorted(chosen)],
    )


@st.composite
def cases(draw: st.DrawFn) -> dict[str, Any]:
    texts = st.text(st.characters(exclude_categories=("Cs",)), min_size=1).filter(str.strip)
    keys = draw(st.lists(texts, min_size=2, max_size=30, unique=True))
    rows = [
        {"key": key, "message": draw(texts), "team": draw(st.sampled_from([None, "", "a", "b"]))}
        for key in keys
    ]
    limit = st.none() | st.integers(1, 40)
    return {
        "rows": rows,
        "n": draw(st.integers(0, len(rows) - 1)),
        "seed": draw(st.integers(0, 5)),
        "train": draw(limit),
        "validation": draw(limit),
        "name": draw(st.sampled_from(["a.jsonl", "lines.json", "list.json", "a.parquet"])),
    }


@settings(max_examples=80, deadline=None)
@given(case=cases())
def test_the_stream_is_what_a_plain_reading_gives(case: dict[str, Any]) -> None:
    with tempfile.TemporaryDirectory() as name:
        put(Path(name) / case["name"], case["rows"])
        cut = {"validation": {"from": "train", "n": case["n"], "seed": case["seed"]}} if case["n"] else {}
        task = task_at(Path(name), {"train": case["name"]}, **cut)
        data = DataConfig(limit=LimitConfig(train=case["train"], validation=case["validation"]))
        found = stream_examples(task, data)
        train, validation = plainly(case["rows"], case["n"], case["seed"])
        expected = {"train": train[: case["train"]]}
        if case["n"]:
            expected["validation"] = validation[: case["validation"]]
        for _ in range(2):
            assert {split: list(examples) for split, examples in found.items()} == expected
        assert {split: len(examples) for split, examples in found.items()} == {
            split: len(examples) for split, examples in expected.items()
        }
        assert list(found) == list(expected)
        assert load_examples(task, data) == expected


@pytest.mark.parametrize("keep", [None, 4])
def test_unlabelled_inputs_come_last_without_those_held_out(tmp_path: Path, keep: int | None) -> None:
    put(tmp_path / "a.jsonl", rows_of(20))
    put(tmp_path / "b.jsonl", rows_of(5, start=100))
    put(tmp_path / "c.jsonl", rows_of(120, start=0))
    task_at(tmp_path, {"train": "c.jsonl"}, name="more")
    task = task_at(tmp_path, {"train": "a.jsonl", "test": "b.jsonl"}, validation={"from": "train", "n": 6})
    data = DataConfig(unlabelled=str(tmp_path / "more.yaml"), limit=LimitConfig(train=keep))
    found = stream_examples(task, data)
    train, validation = plainly(rows_of(20), 6, 0)
    held_out = {e.text for e in validation} | {f"message {i}" for i in range(100, 105)}
    extra = [f"message {i}" for i in range(120) if f"message {i}" not in held_out]
    assert [e.text for e in found["train"]] == [e.text for e in train[:keep]] + extra
    assert len(found["train"]) == len(train[:keep]) + 109
    added = list(found["train"])[len(train[:keep]) :]
    assert {(e.id.split(":")[0], e.label) for e in added} == {("more", None)}


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("places", [(0, 1), (0, 2999), (1023, 1024), (2998, 2999)])
def test_a_doubled_id_is_found_wherever_it_stands(tmp_path: Path, name: str, places: tuple[int, int]) -> None:
    rows = rows_of(3000)
    rows[places[1]]["key"] = rows[places[0]]["key"]
    put(tmp_path / name, rows)
    task = task_at(tmp_path, {"train": name})
    with pytest.raises(
        DataError, match=rf"id 'k{places[0]}' stands in rows {places[0] + 1} and {places[1] + 1};"
    ):
        stream_examples(task, DataConfig())


def test_of_several_doubled_ids_the_first_that_comes_again_is_named(tmp_path: Path) -> None:
    put(tmp_path / "a.jsonl", [*rows_of(9), *reversed(rows_of(9))])
    with pytest.raises(DataError, match="id 'k8' stands in rows 9 and 10;"):
        stream_examples(task_at(tmp_path, {"train": "a.jsonl"}), DataConfig())


def test_different_ids_of_one_hash_are_no_doubled_ids(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "_hash", lambda text: 7)
    put(tmp_path / "a.jsonl", rows_of(9))
    task = task_at(tmp_path, {"train": "a.jsonl"})
    assert len(stream_examples(task, DataConfig())["train"]) == 9
    put(tmp_path / "a.jsonl", rows_of(9) + rows_of(1, start=4))
    with pytest.raises(DataError, match="id 'k4' stands in rows 5 and 10;"):
        stream_examples(task, DataConfig())


@given(texts=st.lists(st.text(max_size=3)), other=st.text(max_size=3))
def test_hashes_know_what_they_were_given_and_what_twice(texts: list[str], other: str) -> None:
    known, added = Hashes(texts), Hashes()
    for text in texts:
        added.add(text)
    assert all(text in known for text in texts)
    assert (other in known) == (other in texts)
    assert len(added.doubled()) == len({text for text in texts if texts.count(text) > 1})


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"key": "x",', r"a\.jsonl:3001: malformed JSON"),
        ('{"key": "x", "message": " ", "team": null}', "row 3001: the input text is empty"),
        ('{"key": "x", "message": "m", "team": "c"}', "row 3001: label 'c' is not in the closed set"),
        (
            '{"key": "x", "text": "m", "team": "a"}',
            "row 3001: no column 'message'; the row has: key, text, team",
        ),
    ],
)
@pytest.mark.parametrize("limit", [None, 5])
def test_a_late_malformed_row_is_refused_before_any_example_is_given(
    tmp_path: Path, line: str, said: str, limit: int | None
) -> None:
    put(tmp_path / "a.jsonl", rows_of(3000))
    with (tmp_path / "a.jsonl").open("a") as file:
        file.write(line + "\n")
    with pytest.raises(DataError, match=said):
        stream_examples(task_at(tmp_path, {"train": "a.jsonl"}), DataConfig(limit=LimitConfig(train=limit)))


def test_digests_are_equal_for_equal_examples_and_tell_apart_all_others(tmp_path: Path) -> None:
    put(tmp_path / "a.jsonl", rows_of(20))
    task = task_at(tmp_path, {"train": "a.jsonl"}, validation={"from": "train", "n": 3})
    found, lists = stream_examples(task, DataConfig()), load_examples(task, DataConfig())
    train, validation = lists["train"], lists["validation"]
    same = digest_examples(found)
    assert same == digest_examples(found) == digest_examples({"validation": validation, "train": train})
    others: list[dict[Any, list[Example]]] = [
        {"train": train},
        {"train": train, "validation": validation[::-1]},
        {"train": validation, "validation": train},
        {"train": train + validation[:1], "validation": validation[1:]},
        {"train": train, "validation": validation, "test": []},
    ]
    assert len({same, *map(digest_examples, others)}) == len(others) + 1


PASS = """
import re, sys
from pathlib import Path
from stepdistill.config import DataConfig
from stepdistill.task.load import load_task, stream_examples
found = stream_examples(load_task(sys.argv[1]), DataConfig())
print(sum(1 for examples in found.values() for _ in examples))
print(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])
"""


# Not ru_maxrss: a child inherits that of the process that started it, which would hide any growth.
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak of memory is read from /proc")
@pytest.mark.slow
@pytest.mark.parametrize("name", ["a.jsonl", "a.csv"])
def test_memory_does_not_grow_with_the_rows(tmp_path: Path, name: str) -> None:
    peaks = []
    for n in (2_000, 100_000):
        put(tmp_path / name, [row | {"message": row["message"] * 20} for row in rows_of(n)])
        task_at(tmp_path, {"train": name}, validation={"from": "train", "n": 500})
        command = [sys.executable, "-c", PASS, str(tmp_path / "teams.yaml")]
        told = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
        assert int(told[0]) == n
        peaks.append(int(told[1]) * 1024)
    assert peaks[1] - peaks[0] < 12e6, peaks

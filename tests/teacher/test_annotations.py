"""Annotations are a mapping like a dict of them, and stay in their file until they are asked for."""

from __future__ import annotations

import json
import tracemalloc
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from stepdistill.config import AnnotateConfig, RunConfig, StudentConfig, TeacherConfig
from stepdistill.errors import DataError
from stepdistill.files import write_jsonl
from stepdistill.records import Annotation, Unparsed, unwatched
from stepdistill.study.job import Job
from stepdistill.teacher import lookup
from stepdistill.teacher.annotations import Stored, read_annotations

Row = dict[str, Any]
# Few letters, so that ids are doubled; half a surrogate pair and a line separator among them.
ids = st.text(st.sampled_from("ab\u00e9\u2028\n\ud800\U0001f600"), max_size=3)
words = st.text(max_size=20)
said = st.one_of(
    st.fixed_dictionaries({"rationale": st.none(), "label": st.none(), "rule": st.none(), "unread": words}),
    st.fixed_dictionaries(
        {"rationale": words, "label": words, "rule": words, "unread": st.none()},
        optional={
            "left_out": st.just("disagrees with gold"),
            "confidence": st.sampled_from([0.25, 1.0]),
            "more": st.lists(words, max_size=2),
        },
    ),
)
rows = st.lists(
    st.builds(
        lambda id_, split, rest: {"id": id_, "split": split, **rest},
        ids,
        st.sampled_from(["train", "test"]),
        said,
    ),
    max_size=20,
)


def row(id_: str = "a", **changes: Any) -> Row:
    known = {"rationale": f"why {id_}", "label": "yes", "rule": "exact", "unread": None}
    return {"id": id_, "split": "train", **known, **changes}


def meaning(one: Row) -> Annotation | Unparsed:
    if one["label"] is None or "left_out" in one:
        return Unparsed(one["id"], one.get("left_out", one["unread"]))
    more = tuple(one.get("more", ()))
    return Annotation(
        one["id"], one["rationale"], one["label"], one["rule"], one.get("confidence", 1.0), more
    )


def write(path: Path, rows: list[Row], is_plain: bool, end: str) -> None:
    """Rows as a program of another's might write them: blank lines, raw letters, no newline at the end."""
    lines = [json.dumps(one, ensure_ascii="\\ud" in json.dumps(one) or is_plain) for one in rows]
    mark = "" if is_plain else "\ufeff"
    path.write_text(mark + f"\n{'' if is_plain else ' '}\n".join(lines) + end, encoding="utf-8", newline="")


@settings(max_examples=150, deadline=None)
@given(
    rows=rows, bits=st.sampled_from([0, 1, 2, 64]), is_plain=st.booleans(), end=st.sampled_from(["", "\n"])
)
@example(rows=[row("b"), row("a"), row("b", label="no"), row("c")], bits=0, is_plain=True, end="\n")
def test_they_are_what_a_dict_of_them_would_be(
    rows: list[Row], bits: int, is_plain: bool, end: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "annotations.jsonl"
    write(path, rows, is_plain, end)
    expected: dict[str, dict[str, Annotation | Unparsed]] = {}
    for one in rows:
        expected.setdefault(one["split"], {})[one["id"]] = meaning(one)
    real = lookup.hash_id
    with pytest.MonkeyPatch.context() as patch:
        # Of few bits: that hashes are equal never happens with 64 of them, and must be right if it does.
        patch.setattr(lookup, "hash_id", lambda text: real(text) >> (64 - bits))
        found = read_annotations(path)
        assert list(found) == list(expected)
        for split, answers in found.items():
            wanted = expected[split]
            assert len(answers) == len(wanted)
            # In the order of a dict: doubled ids stand where the first stood, with what the last says.
            assert list(answers) == list(wanted)
            assert list(answers.items()) == list(wanted.items())
            assert list(answers.values()) == list(wanted.values())
            assert answers == wanted
            for id_ in {one["id"] for one in rows} | {"", "c", "ab"}:
                assert answers.get(id_) == wanted.get(id_)
                assert (id_ in answers) == (id_ in wanted)


def test_what_is_not_there_is_not_found(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "x.jsonl", [row("1")])
    found = read_annotations(tmp_path / "x.jsonl")["train"]
    for key in ("", "2", 1, None):
        assert key not in found
    with pytest.raises(KeyError, match="2"):
        found["2"]


def test_a_file_without_rows_has_no_splits(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text("\n\n")
    assert read_annotations(tmp_path / "x.jsonl") == {}


def test_rows_longer_than_any_block_are_read_whole(tmp_path: Path) -> None:
    rows = [row(str(n), rationale="w" * n) for n in (8000, 8192, 100_000, 1)]
    write_jsonl(tmp_path / "x.jsonl", rows)
    found = read_annotations(tmp_path / "x.jsonl")["train"]
    assert [found[one["id"]] for one in reversed(rows)] == [meaning(one) for one in reversed(rows)]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", r"x\.jsonl:3: malformed JSON"),
        ("[" * 100_000, r"x\.jsonl:3: malformed JSON \(nested too deeply\)"),
        ("[]", r"x\.jsonl:3: a JSON object per line is expected"),
        ("{}", r"x\.jsonl, row 2: no id, split, rationale, label, rule, unread; run `stepdistill annotate`"),
        (json.dumps(row("b", id=7)), r"x\.jsonl, row 2: id of the wrong kind; run `stepdistill annotate`"),
        (json.dumps(row("b", split=["a"], more=3)), r"x\.jsonl, row 2: split, more of the wrong kind"),
        ("\xff", r"x\.jsonl: not UTF-8 \(byte \d+\)"),
    ],
)
def test_what_is_malformed_is_told_when_the_file_is_opened(tmp_path: Path, line: str, said: str) -> None:
    good = json.dumps(row())
    (tmp_path / "x.jsonl").write_bytes(f"{good}\n\n{line}\n{good}\n".encode("latin-1"))
    with pytest.raises(DataError, match=said) as caught:
        read_annotations(tmp_path / "x.jsonl")
    assert "\n" not in str(caught.value)


def test_there_must_be_a_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        read_annotations(tmp_path / "x.jsonl")
    with pytest.raises(DataError, match="cannot be read"):
        read_annotations(tmp_path)


def test_a_file_that_takes_its_place_is_not_mixed_in(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    old = [row(str(i)) for i in range(50)]
    write_jsonl(path, old)
    found = read_annotations(path)["train"]
    passing = iter(found.items())
    first = next(passing)
    write_jsonl(path, [row(str(i), label="no", rationale="another") for i in range(7)])
    assert [first, *passing] == [(one["id"], meaning(one)) for one in old]
    assert found["3"] == meaning(old[3])
    path.unlink()
    assert dict(found) == {one["id"]: meaning(one) for one in old}


def test_a_file_that_is_written_over_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    write_jsonl(path, [row("a"), row("b")])
    found = read_annotations(path)["train"]
    with path.open("a") as file:
        file.write(json.dumps(row("c")) + "\n")
    for access in (lambda: found["a"], lambda: list(found), lambda: "b" in found):
        with pytest.raises(DataError, match="has changed since it was opened; run again"):
            access()


def test_memory_does_not_hold_the_rows(tmp_path: Path) -> None:
    n = 50_000
    with (tmp_path / "x.jsonl").open("w") as file:
        for i in range(n):
            file.write(json.dumps(row(f"train-{i}", completion="because " * 20)) + "\n")
    tracemalloc.start()
    try:
        found = read_annotations(tmp_path / "x.jsonl")["train"]
        held, peak = tracemalloc.get_traced_memory()
        assert sum(isinstance(read, Annotation) for read in islice(found.values(), n // 10)) == n // 10
        assert sum(f"train-{i}" in found for i in range(0, n, 500)) == n // 500
        after, later = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    fixed = 1 << 18  # the module itself, and a buffer of the file
    assert held < 24 * n + fixed
    assert max(peak, later) < 100 * n
    assert after < held + fixed


def test_the_last_open_annotations_close_their_file(tmp_path: Path) -> None:
    def is_open() -> bool:
        links = Path("/proc/self/fd").iterdir()
        return any(str(path) == str(link.readlink()) for link in links if link.is_symlink())

    path = tmp_path / "x.jsonl"
    write_jsonl(path, [row(), row(split="test")])
    found = dict(read_annotations(path))
    del found["train"]
    assert is_open()
    assert isinstance(found.pop("test"), Stored)
    assert not is_open()


def test_a_job_that_annotates_again_has_the_new_answers(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "said.jsonl", [{"id": "train-0", "completion": "So the answer is yes."}])
    write_jsonl(tmp_path / "train.jsonl", [{"text": "one", "gold": "yes"}, {"text": "two", "gold": "no"}])
    (tmp_path / "task.yaml").write_text(
        "name: own\ninstruction: Say.\ninput: '{text}'\ndata: {files: {train: train.jsonl}}\n"
        "answer: {kind: label, column: gold, labels: ['yes', 'no']}\n"
    )
    config = RunConfig(
        task=str(tmp_path / "task.yaml"),
        teacher=TeacherConfig(completions={"train": str(tmp_path / "said.jsonl")}),
        student=StudentConfig(model="scratch:"),
        annotate=AnnotateConfig(splits=["train"]),
        out=str(tmp_path / "out"),
    )
    job = Job(config, unwatched)
    job.annotate()
    assert list(job.annotations["train"]) == ["train-0"]
    with (tmp_path / "said.jsonl").open("a") as file:
        file.write(json.dumps({"id": "train-1", "completion": "So the answer is no."}) + "\n")
    job.annotate()
    assert list(job.annotations["train"]) == ["train-0", "train-1"]

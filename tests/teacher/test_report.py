"""The parse report counts every answer once, shows a few, and judges each rule by the gold labels."""

from __future__ import annotations

import json
from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from stepdistill.records import Annotation, Example, Unparsed
from stepdistill.task.schema import Split
from stepdistill.teacher.annotations import count
from stepdistill.teacher.report import SAMPLE_LENGTH, SAMPLES, ParseReport

reads = st.one_of(
    st.builds(Unparsed, st.just(""), st.sampled_from(["empty answer", "no answer marker"])),
    st.builds(
        Annotation, st.just(""), st.just("why"), st.sampled_from("yn"), st.sampled_from(["exact", "named"])
    ),
)
rows = st.lists(
    st.tuples(st.sampled_from(["y", "n", None]), reads, st.sampled_from(["train", "test"])), max_size=40
)


def same(left: str, right: str) -> bool:
    return left == right


@settings(max_examples=100, deadline=None)
@given(rows=rows)
def test_the_counts_are_those_of_the_rows(
    rows: list[tuple[str | None, Annotation | Unparsed, Split]],
) -> None:
    report = ParseReport(same)
    annotations: dict[Split, dict[str, Annotation | Unparsed]] = {}
    examples: dict[Split, list[Example]] = {}
    right, judged = Counter[tuple[str, str]](), Counter[tuple[str, str]]()
    for number, (gold, read, split) in enumerate(rows):
        example = Example(str(number), "x", gold)
        report.add(split, example, "words", read)
        annotations.setdefault(split, {})[example.id] = read
        examples.setdefault(split, []).append(example)
        if isinstance(read, Annotation) and gold is not None:
            judged[split, read.rule] += 1
            right[split, read.rule] += read.label == gold
    plain = report.plain()
    expected = count(annotations, examples)
    assert {s: {k: part[k] for k in expected[s]} for s, part in plain.items()} == expected
    for name, part in plain.items():
        assert part["accuracy"] == {
            rule: {"right": right[name, rule], "n": n} for (s, rule), n in judged.items() if s == name
        }


def test_a_few_of_each_are_shown_and_long_texts_cut() -> None:
    report = ParseReport(same)
    for number in range(10):
        example = Example(str(number), "x", "y")
        report.add("train", example, "w" * 1000, Unparsed(example.id, "not a label"))
        report.add("train", example, "short", Annotation(example.id, "", "y", "exact"))
    part = report.plain()["train"]
    assert [shown["id"] for shown in part["unread_examples"]["not a label"]] == ["0", "1", "2"]
    assert len(part["rule_examples"]["exact"]) == SAMPLES
    assert part["unread_examples"]["not a label"][0]["text"] == "w" * SAMPLE_LENGTH
    assert part["rule_examples"]["exact"][0] == {"id": "0", "text": "short", "label": "y"}
    assert (part["examples"], part["answers"], part["read"]) == (10, 20, 10)


def test_teachers_are_counted_together_and_apart() -> None:
    report = ParseReport(same)
    for number in range(4):
        example = Example(str(number), "x", "y")
        report.add("train", example, "w", Annotation(example.id, "", "y", "exact"), "large")
        if number % 2:
            report.add("train", example, "w", Annotation(example.id, "", "n", "exact"), "small")
    report.skip("train")
    part = report.plain()["train"]
    assert (part["examples"], part["answers"]) == (5, 6)
    assert part["accuracy"] == {"exact": {"right": 4, "n": 6}}
    assert part["teachers"]["large"]["accuracy"] == {"exact": {"right": 4, "n": 4}}
    assert part["teachers"]["small"]["accuracy"] == {"exact": {"right": 0, "n": 2}}
    assert (part["teachers"]["small"]["examples"], part["teachers"]["small"]["answers"]) == (2, 2)


def test_a_split_without_answers_is_reported_as_such() -> None:
    report = ParseReport(same)
    assert report.plain() == {}
    report.skip("test")
    part = report.plain()["test"]
    assert (part["examples"], part["answers"], part["read"]) == (1, 0, 0)
    assert "teachers" not in part


def test_what_a_report_shows_can_be_written_whatever_the_teacher_wrote() -> None:
    report = ParseReport(same)
    report.add("train", Example("7\ud800", "x"), "\ud800\x00\x1b[31m", Unparsed("7", "broken characters"))
    assert json.dumps(report.plain(), ensure_ascii=False).encode("utf-8")

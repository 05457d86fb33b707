"""The report as a file: what stands in it, that texts stay texts, and that it needs nothing else."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from report_folder import MadeUp, write_run, write_study
from report_page import read, shown

from stepdistill.errors import ConfigError, DataError, RunFolderError
from stepdistill.study.gather import gather
from stepdistill.study.report import evidence, write_report
from stepdistill.study.report.clean import data_uri, source_hash
from stepdistill.study.report.evidence import Picture
from stepdistill.study.report.mistakes import find_mistakes
from stepdistill.study.report.place import find_place
from stepdistill.study.report.results import chosen

SHOWN = "</script><script>window.ran=1</script><!-- <img src=x onerror=window.ran=2>"
HOSTILE = SHOWN + " \u2028\x1b[31m\x00 \ud800 &amp; {{7*7}}"
FAILED = "finetune-25-820000-s0"
TRACEBACK = 'Traceback (most recent call last):\n  File "x.py"\nMemoryError: <b>too big</b>'


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a study in which every text of others is hostile, and one trial has failed."""
    made = MadeUp(seeds=(0, 1), n=40, hostile=HOSTILE, failed={FAILED: TRACEBACK})
    picture = Picture("one", SHOWN, SHOWN, SHOWN, data_uri("image/svg+xml", b"<svg/>"), 900, 300)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evidence, "figures", lambda *_: ([picture], [("another", SHOWN)]))
        return write_report(write_study(tmp_path_factory.mktemp("hostile") / "out", made))


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """No figures: drawing them takes seconds, and other tests do it."""
    monkeypatch.setattr(evidence, "figures", lambda *_: ([], []))


def test_a_page_loads_nothing_from_anywhere(hostile: Path) -> None:
    page = read(hostile)
    links = [value for _, has in page.tags for key in ("src", "href") if (value := has.get(key)) is not None]
    assert any(link.startswith("data:image/svg+xml") for link in links)
    assert [link for link in links if not link.startswith(("data:", "#"))] == []
    assert {tag for tag, _ in page.tags}.isdisjoint({"iframe", "object", "embed", "base", "video", "audio"})
    assert not re.search(
        r"url\(|@import|fetch\(|XMLHttp", "".join(page.inside["style"] + page.inside["script"])
    )


def test_only_the_page_s_own_script_and_style_may_run(hostile: Path) -> None:
    page = read(hostile)
    policies = [has["content"] for _, has in page.tags if has.get("http-equiv") == "Content-Security-Policy"]
    data, script = page.inside["script"]
    (style,) = page.inside["style"]
    assert policies[0] is not None
    assert policies[0].startswith("default-src 'none'; ")
    assert f"script-src '{source_hash(script)}';" in policies[0]
    assert f"style-src '{source_hash(style)}';" in policies[0]
    assert "unsafe" not in policies[0]
    assert json.loads(data)[0]["names"] == ["teacher", "finetune", "step-by-step"]
    assert [has for _, has in page.tags if any(key.startswith("on") or key == "style" for key in has)] == []


def test_hostile_texts_are_shown_as_they_are(hostile: Path) -> None:
    words = shown(hostile)
    assert f"Letters{SHOWN}" in words
    assert "nothing is missing." + SHOWN in words, "the student's rationale"
    assert "the papers are there." + SHOWN in words, "the teacher's"
    assert "earlier claims." + SHOWN in words, "the input"
    assert "{{7*7}}" in words
    assert "\\x1b[31m\\x00 \\ud800 &amp;" in words
    assert "<b>too big</b>" in words
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", hostile.read_text("utf-8"))


def test_sections_stand_in_their_order_with_headings_that_skip_no_level(hostile: Path) -> None:
    page = read(hostile)
    wanted = ["verdict", "figures", "tables", "answers", "failures", "mistakes", "reproduce"]
    ids = [has["id"] for tag, has in page.tags if tag == "section" and has.get("id") in wanted]
    assert ids == wanted
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))
    assert {"header", "nav", "main", "footer"} <= {tag for tag, _ in page.tags}
    named = [has["id"] for _, has in page.tags if has.get("id")]
    assert len(named) == len(set(named))
    assert all(has.get("alt") for tag, has in page.tags if tag == "img")
    assert all(has.get("scope") for tag, has in page.tags if tag == "th")


def test_the_verdict_the_simulation_and_what_is_wrong_are_said(hostile: Path) -> None:
    words = shown(hostile)
    assert "SIMULATED claims: the letters and their teacher are a simulation." in words
    assert re.search(r"step-by-step is (ahead of|behind|not shown to differ from) finetune", words)
    assert re.search(r"step-by-step is (ahead of|behind|not shown to differ from) teacher", words)
    assert "1 of 8 trials failed" in words
    assert "can show a difference of" in words


def test_nothing_of_this_machine_is_shown(hostile: Path) -> None:
    text = hostile.read_text("utf-8")
    assert str(hostile.parent) not in text
    assert "/data/here" not in text


@pytest.mark.usefixtures("undrawn")
def test_wrong_answers_are_those_of_the_files(tmp_path: Path) -> None:
    made = MadeUp(n=90, methods=("finetune", "distill", "step-by-step"))
    folder = write_study(tmp_path / "out", made)
    rows = chosen(gather(folder))
    (group,) = find_mistakes(find_place(folder), rows, shown=12)
    assert [row.fraction for row in rows] == [None, 1.0, 1.0, 1.0]
    assert list(group.names) == ["teacher", "finetune", "distill", "step-by-step"]
    given = [made.answers(name, 1.0, 820_000, 0) for name in group.names]
    wrong = [answers != made.gold for answers in given]
    assert list(group.wrong) == [int(missed.sum()) for missed in wrong]
    assert group.pairs[3][1] == int((wrong[3] & ~wrong[1]).sum())
    for place in (1, 2, 3):
        mine = [case for case in group.cases if case.outcomes[place] != "1"]
        assert len(mine) >= min(12, group.wrong[place])
    assert len(group.cases) <= 36
    for case in group.cases:
        at = int(case.example_id.removeprefix("test-"))
        assert case.text == made.text(at)
        assert [outcome == "1" for outcome in case.outcomes] == [not missed[at] for missed in wrong]
        assert case.outcomes != "1111"
        assert f"letter {at} " in case.answers[0].rationale
        assert f"letter {at} " in case.answers[3].rationale
    kinds = {case.outcomes[3] + case.outcomes[1] for case in group.cases if case.outcomes[3] != "1"}
    assert "01" in kinds, "wrong where finetune was right"


@pytest.mark.usefixtures("undrawn")
def test_examples_without_a_gold_label_have_no_outcome_and_no_place(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "out", MadeUp(n=30), ("finetune",))
    path = folder / "predictions.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for name in ("finetune", "teacher"):
        rows.insert(
            0, {**rows[0], "name": name, "gold": None, "example_id": "unlabelled", "text": "nobody knows"}
        )
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (group,) = find_mistakes(find_place(folder), gather(folder))
    assert {case.example_id for case in group.cases}.isdisjoint({"unlabelled"})
    for case in group.cases:
        assert (case.answers[1].text == case.gold) == (case.answers[1].outcome == "1")


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize(
    ("missing", "said"),
    [
        ("metrics.jsonl", "No metrics beside accuracy (metrics.jsonl) are in this folder"),
        ("predictions.jsonl", "The answers themselves (predictions.jsonl) are not in this folder"),
        ("explanations.jsonl", "Wrong answers"),
        ("parse_report.json", "Wrong answers"),
        ("config.yaml", "Wrong answers"),
    ],
)
def test_a_file_that_is_missing_is_said_and_the_rest_is_shown(
    tmp_path: Path, missing: str, said: str
) -> None:
    folder = write_run(tmp_path / "out", MadeUp(n=20), ("finetune", "step-by-step"))
    (folder / missing).unlink()
    words = shown(write_report(folder))
    assert said in words
    assert "All results" in words


@pytest.mark.usefixtures("undrawn")
def test_a_run_says_that_its_seed_is_the_only_one_and_what_was_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from stepdistill.study.report import page

    folder = write_run(tmp_path / "out", MadeUp(n=20, teacher="recorded"), ("finetune", "step-by-step"))
    rows = [replace(row, reopened=2) if row.name == "finetune" else row for row in gather(folder)]
    monkeypatch.setattr(page, "gather", lambda _: rows)
    words = shown(write_report(folder, tmp_path / "elsewhere" / "page.html"))
    assert "All training is with one seed (0)" in words
    assert "read again 2 times for the same configuration (finetune)" in words
    assert "SIMULATED claims: the letters are a simulation." in words
    assert "Means over seeds" not in words
    assert "stepdistill run run.yaml" in words


@pytest.mark.usefixtures("undrawn")
def test_an_unfinished_study_is_shown_as_far_as_it_is(tmp_path: Path) -> None:
    folder = write_study(tmp_path / "out", MadeUp(seeds=(0, 1), n=20))
    (folder / "trials" / FAILED / "outcome.json").unlink()
    words = shown(write_report(folder))
    assert f"Not finished: 1 of 8 trials have no result yet ({FAILED})" in words
    assert "All results" in words


@pytest.mark.usefixtures("undrawn")
def test_trials_of_an_earlier_grid_are_no_part_of_the_report(tmp_path: Path) -> None:
    made = MadeUp(seeds=(0, 1), n=20, failed={FAILED: TRACEBACK})
    folder = write_study(tmp_path / "out", made)
    old = "finetune-25-820000-s1"
    (folder / "trials" / old / "outcome.json").unlink()
    (folder / "trials" / old / "metrics.jsonl").write_text("damaged")
    index = folder / "trials" / "index.json"
    names = [name for name in json.loads(index.read_text()) if name not in (old, FAILED)]
    index.write_text(json.dumps(names))
    words = shown(write_report(folder))
    assert "trials 6 " in words
    assert old not in words
    assert FAILED not in words
    assert "Failures" not in words


def test_a_damaged_study_file_is_an_error(tmp_path: Path) -> None:
    folder = write_study(tmp_path / "out", MadeUp(seeds=(0,), n=20))
    (folder / "study.yaml").write_text("method: [step-by-step\n")
    with pytest.raises(ConfigError, match=r"study.yaml"):
        write_report(folder)


@pytest.mark.usefixtures("undrawn")
def test_one_method_alone_is_no_comparison_but_a_page(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "out", MadeUp(n=20), ("label-first",))
    words = shown(write_report(folder))
    assert re.search("label-first is .* teacher", words)


@pytest.mark.usefixtures("undrawn")
def test_a_number_of_the_page_is_that_of_the_rows(tmp_path: Path) -> None:
    folder = write_study(tmp_path / "out", MadeUp(seeds=(0, 1, 2), n=50))
    words = shown(write_report(folder))
    for row in gather(folder):
        assert f"{100 * row.value:.1f} %" in words
        assert f"{100 * row.low:.1f} – {100 * row.high:.1f}" in words
        assert row.config in words


def test_mistakes_are_told_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match="no such folder"):
        write_report(tmp_path / "nowhere")
    with pytest.raises(RunFolderError, match="no results here; give the `out`"):
        write_report(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(RunFolderError, match="is a file; give its folder"):
        write_report(tmp_path / "file")
    (tmp_path / "trials" / "one").mkdir(parents=True)
    with pytest.raises(DataError, match="no trial is finished yet"):
        write_report(tmp_path)


def test_a_study_whose_trials_all_failed_says_why(tmp_path: Path) -> None:
    names = {f"finetune-{percent}-820000-s0": TRACEBACK for percent in (25, 100)}
    folder = write_study(tmp_path / "out", MadeUp(methods=("finetune",), seeds=(0,), failed=names))
    with pytest.raises(RunFolderError, match=r"2 of 2 failed, the first .* with: MemoryError"):
        write_report(folder)
    assert not (folder / "report.html").exists()


@pytest.mark.usefixtures("undrawn")
def test_the_same_folder_gives_the_same_page(tmp_path: Path) -> None:
    folder = write_study(tmp_path / "out", MadeUp(seeds=(0,), n=20))
    first = write_report(folder).read_bytes()
    shutil.copytree(folder, tmp_path / "other")
    assert write_report(tmp_path / "other").read_bytes() == first

"""`stepdistill power`: a small table, JSON, and one line for what cannot be."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from rows import row

from stepdistill.evaluate.power import needed, smallest_difference


def test_it_says_what_a_test_set_can_show(cli: Any) -> None:
    done = cli("power", "--n", 200)
    assert done.code == 0
    rows = [line.split() for line in done.out.splitlines() if line.strip().endswith("points")]
    assert [row[0] for row in rows] == ["10", "20", "30", "40"]
    assert [float(row[2]) for row in rows] == [6.4, 9.1, 11.1, 12.9]


def test_json_has_the_numbers_of_the_functions(cli: Any) -> None:
    found = json.loads(cli("power", "--n", 1221, "--difference", 3, "--disagreement", 0.25, "--json").out)
    (row,) = found["rows"]
    assert row["smallest_difference"] == pytest.approx(100 * (smallest_difference(1221, 0.25) or 0), abs=0.01)
    assert row["needed"] == needed(0.03, 0.25)


def test_seeds_help_less_than_examples(cli: Any) -> None:
    one, three, many = (
        json.loads(
            cli("power", "--n", n, "--seeds", seeds, "--disagreement", 0.2, "--difference", 5, "--json").out
        )
        for n, seeds in ((200, 1), (200, 3), (600, 1))
    )
    gaps = [found["rows"][0]["smallest_difference"] for found in (one, three, many)]
    assert gaps[0] > gaps[1] > gaps[2]
    assert three["rows"][0]["needed"] < one["rows"][0]["needed"]


def test_a_wished_difference_alone_is_enough(cli: Any) -> None:
    done = cli("power", "--difference", 3)
    assert "examples for 3 points" in done.out
    assert "1,800" in done.out


def test_what_cannot_be_shown_is_said(cli: Any) -> None:
    out = cli("power", "--n", 5, "--difference", 30).out
    assert "none" in out
    assert "not possible: above the disagreement" in out


def test_what_takes_too_many_examples_is_not_called_impossible(cli: Any) -> None:
    given = ("power", "--difference", 0.05, "--disagreement", 0.4)
    assert "more than 1,000,000" in (out := cli(*given).out)
    assert "not possible" not in out
    (row,) = json.loads(cli(*given, "--json").out)["rows"]
    assert (row["needed"], row["possible"]) == (None, True)
    (row,) = json.loads(cli("power", "--difference", 41, "--disagreement", 0.4, "--json").out)["rows"]
    assert (row["needed"], row["possible"]) == (None, False)


def test_a_difference_as_large_as_the_disagreement_is_possible(cli: Any) -> None:
    (row,) = json.loads(cli("power", "--difference", 29, "--disagreement", 0.29, "--json").out)["rows"]
    assert row["needed"] == needed(0.29, 0.29)


def test_a_finished_run_tells_n_and_disagreement(cli: Any, finished: Path) -> None:
    rows = [json.loads(line)["scorecard"]["outcomes"] for line in (finished / "results.jsonl").open()][1:]
    pairs = [(a, b) for k, a in enumerate(rows) for b in rows[k + 1 :]]
    share = (
        sum((x == "1") != (y == "1") for a, b in pairs for x, y in zip(a, b, strict=True)) / 12 / len(pairs)
    )
    done = cli("power", "--run", finished, "--json")
    if share:
        found = json.loads(done.out)
        assert found["n"] == 12
        assert found["rows"][0]["disagreement"] == pytest.approx(share)
    else:
        assert done.code == 2
        assert "no two students differ" in done.error


def test_of_several_tasks_one_is_named(cli: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = [
        row(name=name, task=task, test=task, outcomes=text)
        for task, texts in (("claims", ("1010", "1001")), ("svamp", ("1" * 50, "1" * 45 + "0" * 5)))
        for name, text in zip(("finetune", "step-by-step"), texts, strict=True)
    ]
    monkeypatch.setattr("stepdistill.study.gather.gather", lambda folder: given)
    done = cli("power", "--run", tmp_path)
    assert done.code == 2
    assert "results of several tasks (claims, svamp): name one by --task" in done.error
    for task, n, share in (("claims", 4, 0.5), ("svamp", 50, 0.1)):
        found = json.loads(cli("power", "--run", tmp_path, "--task", task, "--json").out)
        assert (found["n"], found["rows"][0]["disagreement"]) == (n, share)
    assert "did you mean 'claims'?" in cli("power", "--run", tmp_path, "--task", "claim").error


@pytest.mark.parametrize(
    ("option", "said"), [("--n", "--n 0: give"), ("--disagreement", "--disagreement 0: give")]
)
def test_a_given_0_is_not_replaced_by_what_was_measured(
    cli: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, option: str, said: str
) -> None:
    given = [row(name="finetune", outcomes="1010"), row(outcomes="1001")]
    monkeypatch.setattr("stepdistill.study.gather.gather", lambda folder: given)
    done = cli("power", "--run", tmp_path, option, 0)
    assert done.code == 2
    assert said in done.error


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ([], "give --n"),
        (["--n", 10, "--task", "claims"], "give --run DIR, too"),
        (["--n", 0], "--n 0: give a number"),
        (["--n", 10**9], "--n 1000000000: give a number"),
        (["--n", 200, "--disagreement", 25], "--disagreement 25: give a share"),
        (["--n", 200, "--power", 1], "--power 1: give a share"),
        (["--n", 200, "--alpha", 0], "--alpha 0: give a share"),
        (["--difference", -3], "--difference -3: give points"),
        (["--n", 200, "--difference", "nan"], "--difference nan: give points"),
        (["--n", 200, "--seeds", 0], "--seeds 0: give a number"),
        (["--run", "/nowhere"], "/nowhere: no such folder"),
    ],
)
def test_what_cannot_be_is_an_error_in_one_line(cli: Any, given: list[object], said: str) -> None:
    done = cli("power", *given)
    assert done.code == 2
    assert said in done.error
    assert len(done.error.splitlines()) == 1

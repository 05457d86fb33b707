"""What stands in the report's tables beside the results: means, the minimum, published numbers, failures."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest
from report_folder import MadeUp, write_run, write_study
from report_page import shown
from rows import row, teacher

from stepdistill.errors import DataError
from stepdistill.study.certificate import Certificate, ProbeRecord, StudentVerdict, TestReading
from stepdistill.study.looks import Look
from stepdistill.study.report import evidence, write_report
from stepdistill.study.report.clean import nowhere
from stepdistill.study.report.minimum import read_minimum
from stepdistill.study.report.place import Place
from stepdistill.study.report.results import means
from stepdistill.study.report.table import Table


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """No figures: drawing them takes seconds, and other tests do it."""
    monkeypatch.setattr(evidence, "figures", lambda *_: ([], []))


def texts(table: Table) -> list[dict[str, str]]:
    titles = [column.title for column in table.columns]
    return [dict(zip(titles, (cell.text for cell in line), strict=True)) for line in table.rows]


def test_seeds_of_one_cell_make_one_mean() -> None:
    rows = [row(trial=f"t{seed}", seed=seed, outcomes=made) for seed, made in enumerate(("1100", "1000"))]
    rows += [teacher(seed=seed, outcomes=made) for seed, made in enumerate(("1111", "1110"))]
    found = {one["method"]: one for one in texts(means(rows))}
    assert found["step-by-step"]["mean accuracy"] == "37.5 %"
    assert found["step-by-step"]["lowest – highest seed"] == "25.0 – 50.0"
    assert found["teacher"]["mean accuracy"] == "87.5 %", "simulated answers differ from seed to seed"
    assert "trial" not in found["teacher"]


def test_two_experiments_of_one_seed_are_not_averaged() -> None:
    rows = [row(trial=f"t{seed}", seed=seed, outcomes="1100") for seed in (0, 1)]
    rows += [row(trial=f"longer-{seed}", seed=seed, outcomes="1110") for seed in (0, 1)]
    rows += [teacher(trial="t0", seed=None, outcomes="1111"), teacher(trial="t1", seed=None, outcomes="0000")]
    table = means(rows)
    found = [(one["method"], one["mean accuracy"], one["trial"]) for one in texts(table)]
    assert sorted(found) == [
        ("step-by-step", "50.0 %", "t0"),
        ("step-by-step", "50.0 %", "t1"),
        ("step-by-step", "75.0 %", "longer-0"),
        ("step-by-step", "75.0 %", "longer-1"),
        ("teacher", "0.0 %", "t1"),
        ("teacher", "100.0 %", "t0"),
    ]
    assert "shown apart" in table.note


def certificate() -> Certificate:
    looks = (Look(1, 0.02, -0.05, 0.09), Look(2, 0.012, -0.003, 0.03))
    probe = ProbeRecord(0.25, 200, "reached", looks, ("t1", "t2"))
    test = TestReading(looks[1], 300, 0.95, 0.81, 0.8, "confirms")
    student = StudentVerdict(
        "scratch-128x2", 820_000, "reached", 0.25, 200, 0.78, 0.77, 150, (probe,), {"50 %": "reached"}, test
    )
    told = {"sentences": ("step-by-step <reaches> it with 25 %.",), "notes": ("Validation chose.",)}
    asked = {"task": "claims", "method": "step-by-step", "target": "finetune", "target_student": "big"}
    rule = {"margin": 0.01, "confidence": 0.95, "on": "validation", "look_confidence": 0.99999}
    done = {"planned_looks": 9, "looks": 2, "seeds": 2, "students": (student,), "read_before": ()}
    return Certificate(**told, **asked, **rule, **done)  # type: ignore[arg-type]


@pytest.mark.usefixtures("undrawn")
def test_a_certificate_is_shown_with_its_students_and_looks(tmp_path: Path) -> None:
    folder = write_study(tmp_path / "out", MadeUp(seeds=(0,), n=20))
    (folder / "minimum.json").write_text(json.dumps(asdict(certificate())))
    words = shown(write_report(folder))
    assert "step-by-step <reaches> it with 25 %. Validation chose." in words
    assert "2 of at most 9, each with an interval at 99.999 %" in words
    found = read_minimum(Place(folder))
    assert found is not None
    students, looks = found.tables
    (student,) = texts(students)
    assert (student["data"], student["accuracy"], student["on test"]) == ("25 %", "78.0 %", "81.0 %")
    assert (student["test says"], student["not measured"]) == ("confirms", "50 %: reached")
    first, last = texts(looks)
    assert (first["seeds"], first["difference, points"]) == ("1", "+2.0")
    assert (last["seeds"], last["difference, points"], last["interval"]) == ("2", "+1.2", "-0.3 to +3.0")


def test_a_damaged_certificate_is_named(tmp_path: Path) -> None:
    (tmp_path / "minimum.json").write_text('{"sentences": []}')
    with pytest.raises(DataError, match=r"minimum.json: damaged"):
        read_minimum(Place(tmp_path))


def test_published_numbers_stand_beside_ours_with_what_is_to_be_said() -> None:
    given = {"task": "svamp", "teacher": "recorded", "seed": 0, "trial": "t", "n_train": 640}
    rows = [row(name=name, **given) for name in ("finetune", "step-by-step")]
    table = evidence.published(rows, "figure4")
    assert table is not None
    found = texts(table)
    mine = [one for one in found if one["task"] == "svamp" and one["ours"]]
    assert {one["what"] for one in mine} >= {"finetune", "step-by-step - finetune"}
    for one in mine:
        assert one["verdict"].startswith("not judged: ") or "another student" in one["verdict"]
        assert (one["seeds"], one["n test"], one["n train"]) == ("1", "200", "640")
    other = next(one for one in found if one["task"] != "svamp")
    assert other["verdict"].startswith("not judged: ")
    assert all(one["source"] for one in found) or dict(table.same)["source"]
    assert evidence.published(rows, "nothing of the kind") is None


@pytest.mark.usefixtures("undrawn")
def test_failures_tell_nothing_of_the_machine(tmp_path: Path) -> None:
    home, name = tmp_path / "a home" / "out", "finetune-25-820000-s0"
    trace = (
        f'Traceback:\n  File "{Path.home()}/project/src/stepdistill/study/run.py", line 3\n'
        f'  File "/opt/me/lib/python3.11/site-packages/torch/nn/linear.py", line 7\n  File "/srv/me/own.py"\n'
        f"OSError: {home}/trials/{name}/a.bin and /srv/me/big/b.bin cannot be read: '/srv/me/c d/e.bin'"
    )
    folder = write_study(home, MadeUp(seeds=(0,), n=20, failed={name: trace}))
    page = write_report(folder)
    words = shown(page)
    assert 'File "stepdistill/study/run.py", line 3 File "torch/nn/linear.py", line 7 File "own.py"' in words
    assert f"OSError: …/trials/{name}/a.bin and …/b.bin cannot be read: '…/e.bin'" in words
    text = page.read_text("utf-8")
    for part in (str(Path.home()) + "/", "a home", "/srv", "/opt/me"):
        assert part not in text


@pytest.mark.usefixtures("undrawn")
def test_a_teacher_in_a_folder_is_shown_by_its_name(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "out", MadeUp(n=20), ("finetune",))
    settings = json.loads((folder / "run.json").read_text()) | {"teacher.model": "/srv/me/models/big"}
    (folder / "run.json").write_text(json.dumps(settings))
    page = write_report(folder)
    assert "…/big" in shown(page)
    assert "/srv" not in page.read_text("utf-8")


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("yes/no, N/A, 1/2/3, a/b/c", None),
        ("https://a.org/b/c", None),
        ("Qwen/Qwen2.5-7B", None),
        ("file:///srv/me/x", "file://…/x"),
        ("root=/srv/me/x.jsonl:3", "root=…/x.jsonl:3"),
        ("~/x/y (and /srv/me/z)", "…/y (and …/z)"),
    ],
)
def test_only_absolute_paths_lose_their_folders(text: str, left: str | None) -> None:
    assert nowhere(text) == (text if left is None else left)

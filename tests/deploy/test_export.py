"""An export is there when it is proven, and else nothing is."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from exports import rows, trained, write_rows
from safetensors.torch import load_file, save_file

import stepdistill
from stepdistill.config import load_run
from stepdistill.deploy.bundle import read_bundle
from stepdistill.deploy.export import huggingface, proof
from stepdistill.deploy.export.proof import UnprovenError
from stepdistill.deploy.export.tuning import Target
from stepdistill.deploy.export.work import Exported, Order, export
from stepdistill.errors import ConfigError, RunFolderError, StudentError
from stepdistill.files import lock
from stepdistill.records import unwatched
from stepdistill.study.job import Job
from stepdistill.task.stream import digest_examples

pytestmark = pytest.mark.slow  # two processes with torch for each export

ORDER = Order(Path(), "ctranslate2", Path(), "float32", "step-by-step", target=Target(share=0.5), threads=1)
COMMAND = (sys.executable, "-m", "stepdistill")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run; nothing is to be written into it."""
    return trained(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def made(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """Its student as CTranslate2's, in float32, with a threshold."""
    out = tmp_path_factory.mktemp("made") / "it"
    return export(replace(ORDER, run=run, out=out))


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_an_export_is_whole_and_says_what_was_measured(run: Path, made: Exported) -> None:
    proof = json.loads((made.out / "proof.json").read_text())
    assert (proof["n"], proof["n_validation"], proof["topped_up"]) == (200, 60, 140)
    assert proof["agreement"] == 1.0
    assert proof["agreement_low"] < 1.0 == proof["agreement_high"]
    for side in (proof["checkpoint"], proof["export"]):
        assert 0 < side["low"] < side["accuracy"] < side["high"] < 1
        assert 0 < side["latency_ms"]["p50"] <= side["latency_ms"]["p95"]
        assert side["latency_ms"]["n"] >= 20
        assert side["examples_per_second"] > 0
    assert proof["export"]["size_bytes"] == sum(
        path.stat().st_size
        for path in made.out.iterdir()
        if path.name not in ("proof.json", "README.md", "bundle.json")
    )
    assert proof["machine"]["threads"] == 1
    assert proof["accepted"] is False
    assert "# where: step-by-step" in (made.out / "README.md").read_text()
    assert left(made.out.parent) == ["it"]


def test_the_export_needs_no_memory_for_torch(made: Exported) -> None:
    sides = made.proof["checkpoint"], made.proof["export"]
    trained_, exported = (side["peak_memory_bytes"] for side in sides)
    assert 2 * exported < trained_


def test_an_export_answers_by_what_was_chosen_on_validation(made: Exported) -> None:
    settings = read_bundle(made.out).settings
    assert settings.readout == made.proof["calibration"]["readout"]
    assert settings.temperature == made.proof["calibration"]["temperature"] != 1.0
    assert settings.threshold == made.proof["threshold"]["threshold"]
    student = stepdistill.load(made.out)
    answers = student.predict([row["question"] for row in rows(60, 1000)])
    share = sum(not answer.abstained for answer in answers) / 60
    assert share == pytest.approx(made.proof["threshold"]["coverage"])
    assert 0.5 <= share < 1


def test_the_very_same_export_is_left_as_it_is(run: Path, made: Exported) -> None:
    before = {path: path.stat().st_mtime_ns for path in made.out.iterdir()}
    order = replace(ORDER, run=run, out=made.out)
    assert export(order).already
    assert {path: path.stat().st_mtime_ns for path in made.out.iterdir()} == before
    with pytest.raises(RunFolderError, match=r"holds another export \(step-by-step as ctranslate2 float32\)"):
        export(replace(order, precision="int8"))
    with pytest.raises(RunFolderError, match="holds another export"):
        export(replace(order, target=Target()))


def damaged(folder: Path, draft: Path, precision: str) -> None:
    """A conversion that loses something: the sign of every weight."""
    convert(folder, draft, precision)
    path = draft / "model.safetensors"
    save_file({name: -values for name, values in load_file(path).items()}, path, {"format": "pt"})


convert = huggingface.convert


def test_an_export_that_answers_otherwise_fails_and_leaves_nothing(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface, "convert", damaged)
    order = Order(run, "huggingface", tmp_path / "it", threads=1)
    with pytest.raises(
        StudentError, match=r"it agrees .* on \d+ of 200 examples .* 99 % are needed"
    ) as caught:
        export(order)
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)
    assert left(tmp_path) == []


def test_too_few_examples_are_no_proof(tmp_path: Path, run: Path) -> None:
    home = tmp_path / "small"
    shutil.copytree(run.parent, home)
    config = (home / "out" / "config.yaml").read_text().replace(str(run.parent), str(home))
    (home / "out" / "config.yaml").write_text(config.replace("train: null", "train: 20"))
    # As if the run had been of these from the beginning.
    mark = home / "out" / "run.json"
    streams = Job(load_run(home / "out" / "config.yaml"), unwatched).streams
    mark.write_text(json.dumps(json.loads(mark.read_text()) | {"(data)": digest_examples(streams)}))
    order = Order(home / "out", "ctranslate2", tmp_path / "it", threads=1)
    with pytest.raises(StudentError, match=r"80 examples .* are no proof, 200 are needed"):
        export(order)
    assert "it" not in left(tmp_path)
    accepted = export(replace(order, accept=True))
    proof = json.loads((accepted.out / "proof.json").read_text())
    assert (proof["accepted"], proof["lacks"]) == (True, "80 examples are no proof, 200 are needed")
    assert export(replace(order, accept=True)).already
    with pytest.raises(RunFolderError, match="another export"):
        export(replace(order, accept=False, precision="float32"))


def test_data_that_have_changed_prove_nothing(tmp_path: Path, run: Path) -> None:
    home = tmp_path / "changed"
    shutil.copytree(run.parent, home)
    path = home / "out" / "config.yaml"
    path.write_text(path.read_text().replace(str(run.parent), str(home)))
    write_rows(home / "validation.jsonl", rows(61, 1000))
    with pytest.raises(RunFolderError, match="the data of this run have changed"):
        export(Order(home / "out", "ctranslate2", tmp_path / "it"))


def card_with(run: Path, home: Path, **changes: Any) -> Path:
    shutil.copytree(run.parent, home)
    path = home / "out" / "students" / "finetune" / "student.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return path.parent


@pytest.mark.parametrize(
    ("order", "error", "says"),
    [
        ({"format": "hugingface"}, ConfigError, "did you mean 'huggingface'"),
        ({"precision": "int4"}, ConfigError, "unknown precision of ctranslate2 'int4'"),
        ({"student": "distil"}, RunFolderError, "unknown student 'distil'"),
        ({"target": Target(1.2)}, ConfigError, "--target-accuracy 1.2: give a share"),
        ({"target": Target(0.9, 0.9)}, ConfigError, "give one of"),
        ({"threads": 0}, ConfigError, "at least 1"),
        ({"run": Path("nothing")}, RunFolderError, "no trained student is there"),
    ],
)
def test_what_cannot_be_is_said_before_any_work(
    run: Path, tmp_path: Path, order: dict[str, Any], error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says) as caught:
        export(Order(**{"run": run, "format": "ctranslate2", "out": tmp_path / "it", **order}))
    assert "\n" not in str(caught.value)
    assert left(tmp_path) == []


def test_a_student_that_somebody_must_help_is_refused(run: Path, tmp_path: Path) -> None:
    folder = card_with(run, tmp_path / "run", form="rationale-input", test_rationales="teacher")
    with pytest.raises(StudentError, match="'finetune' answers with the help of a rationale"):
        export(Order(folder, "huggingface", tmp_path / "it"))


def test_a_folder_that_is_no_export_is_never_replaced(run: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years")
    with pytest.raises(RunFolderError, match="is there already, and is no export"):
        export(Order(run, "huggingface", tmp_path / "mine"))
    assert left(tmp_path / "mine") == ["thesis.txt"]


def test_an_export_is_not_exported(made: Exported, tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match="is an export already"):
        export(Order(made.out, "huggingface", tmp_path / "it"))


def test_a_disk_that_is_too_small_is_noticed_before_the_work(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1))
    with pytest.raises(RunFolderError, match=r"exporting .* needs about 64 MB"):
        export(Order(run, "ctranslate2", tmp_path / "it"))
    assert left(tmp_path) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_whoever_is_stopped_leaves_nothing_behind(
    run: Path, made: Exported, tmp_path: Path, number: signal.Signals
) -> None:
    given = ["export", str(run), "--format", "ctranslate2", "--out", str(tmp_path / "it"), "--quiet"]
    process = subprocess.Popen(
        [*COMMAND, *given],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    draft = tmp_path / ".it.export" / "draft"
    while not (draft / "bundle.json").exists():
        assert process.poll() is None
        time.sleep(0.02)
    assert not (tmp_path / "it").exists()
    process.send_signal(number)
    out, _ = process.communicate(timeout=60)
    assert out == ""
    assert process.returncode == {signal.SIGINT: 130, signal.SIGTERM: 143}.get(number, -number)
    if number == signal.SIGKILL:
        again = export(replace(ORDER, run=run, out=tmp_path / "it")).proof
        for key in ("n", "agreement", "calibration", "coverage", "threshold", "seed", "asked"):
            assert again[key] == made.proof[key]
    assert left(tmp_path) == (["it"] if number == signal.SIGKILL else [])


def test_two_exports_to_one_place_do_not_mix(run: Path, tmp_path: Path) -> None:
    with lock(tmp_path / ".it.export"), pytest.raises(RunFolderError, match="another stepdistill process"):
        export(Order(run, "ctranslate2", tmp_path / "it"))


def test_the_command_prints_the_proof_and_the_next_one(run: Path, tmp_path: Path) -> None:
    given = ["export", str(run), "--format", "huggingface", "--out", "it", "--quiet"]
    done = subprocess.run(
        [*COMMAND, *given],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=True,
    )
    assert done.stderr == ""
    for part in ("Agreement: 100.00 %", "p95", "(ECE)", "1 thread(s)", "Next: stepdistill serve it"):
        assert part in done.stdout
    loads_without_us(tmp_path / "it", stepdistill.load(run))
    wrong = [*given[:3], "pdf", *given[4:]]
    failed = subprocess.run([*COMMAND, *wrong], capture_output=True, text=True)
    assert failed.returncode == 2
    assert failed.stderr.count("\n") == 1


def loads_without_us(folder: Path, student: stepdistill.Runtime) -> None:
    """Transformers alone gives the student's answer."""
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

    model, tokenizer = AutoModelForSeq2SeqLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    text = rows(1, 1000)[0]["question"]
    ids = tokenizer("[label] " + text, return_tensors="pt").input_ids
    answer = tokenizer.decode(model.generate(ids, max_new_tokens=4)[0], skip_special_tokens=True)
    assert answer == student.predict([text])[0].label
    assert (folder / "model.safetensors").stat().st_mode & 0o777 == 0o644


def test_a_precision_that_nobody_asked_for_gives_way_to_a_finer_one(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proof, "BOUND_OF_EIGHT_BITS", 1.01)
    order = Order(run, "ctranslate2", tmp_path / "it", threads=1)
    with pytest.raises(UnprovenError, match="choose --precision bfloat16, or give --accept"):
        export(replace(order, precision="int8"))
    assert left(tmp_path) == []
    found = export(order)
    assert (found.bundle.precision, found.proof["precision"]) == ("bfloat16", "bfloat16")
    assert [one["precision"] for one in found.proof["passed_over"]] == ["int8"]
    assert read_bundle(found.out).precision == "bfloat16"
    assert export(order).already

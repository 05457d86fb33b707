"""Every mistake a user can make gets one line, exit code 2 and no traceback, and loses nothing."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

TASK = """
name: mine
instruction: Say what it is.
input: "{text}"
id: id
answer: {kind: label, column: label, labels: [good, bad]}
data: {files: {train: train.jsonl, test: test.jsonl}}
"""
GOOD = [f'{{"id": "{i}", "text": "words {i}", "label": "good"}}' for i in range(8)]
ANSWERS = [f'{{"id": "{i}", "completion": "Reasons. So the answer is good."}}' for i in range(8)]


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """Folder with a task of one's own, its data and the teacher's answers."""
    (tmp_path / "task.yaml").write_text(TASK)
    for name, lines in (("train", GOOD), ("test", GOOD), ("answers", ANSWERS)):
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
    (tmp_path / "run.yaml").write_text(
        f"""
task: {tmp_path}/task.yaml
teacher: {{completions: {{train: {tmp_path}/answers.jsonl}}}}
student: {{model: "scratch:", scratch: {{d_model: 16, d_ff: 16, heads: 2, layers: 1}}}}
methods: [finetune]
train: {{epochs: 1, batch_size: 8, threads: 1}}
out: {tmp_path}/out
"""
    )
    return tmp_path


def is_one_line(called: Any, *parts: str) -> None:
    assert called.code == 2
    assert called.out == ""
    assert called.error.startswith("Error: ")
    assert called.error.count("\n") == 1
    assert "Traceback" not in called.error
    for part in parts:
        assert part in called.error


@pytest.mark.parametrize(
    ("setting", "parts"),
    [
        ("methods=[finetun]", ["'finetun'", "did you mean 'finetune'?", "Allowed: distill, finetune"]),
        ("task=svmp", ["'svmp'", "did you mean 'svamp'?", "or a path to a .yaml file"]),
        ("student.modle=x", ["'student.modle'", "did you mean 'model'?"]),
        ("trian.epochs=2", ["'trian'", "did you mean 'train'?"]),
        ("train.epochs=0", ["train.epochs", "greater than or equal to 1"]),
        ("train.epochs=two", ["train.epochs", "valid integer", "'two'"]),
        ("teacher.backend=recordd", ["teacher.backend", "did you mean 'recorded'?"]),
        ("train.epochs", ["--set train.epochs", "key.key=value"]),
        ("methods=[finetune, finetune]", ["finetune stands there twice"]),
        ("student.model=no/such-folder/here", ["no/such-folder/here", "cannot be loaded", "hub id"]),
        ("data.root=/no/such/folder", ["/no/such/folder", "no such folder", "data.root"]),
    ],
)
def test_a_wrong_setting_is_named_with_what_is_allowed(
    cli: Any, mine: Path, setting: str, parts: list[str]
) -> None:
    is_one_line(cli("run", mine / "run.yaml", "--quiet", "--set", setting), *parts)


@pytest.mark.parametrize(
    ("lines", "parts"),
    [
        ([*GOOD, '{"id": "x", "label": "good"}'], ["train.jsonl, row 9", "no column 'text'", "id, label"]),
        ([], ["train.jsonl", "empty"]),
        ([*GOOD, GOOD[0]], ["train.jsonl", "'0'", "rows 1 and 9", "unique"]),
        ([*GOOD[:3], '{"id": "9", "text": '], ["train.jsonl:4", "malformed JSON"]),
        (
            [*GOOD, '{"id": "x", "text": "t", "label": "ugly"}'],
            ["row 9", "'ugly'", "closed set", "good, bad"],
        ),
        ([line.replace('"good"', "null") for line in GOOD], ["no training example is left of 8", "gold"]),
    ],
)
def test_bad_data_is_named_with_its_place(cli: Any, mine: Path, lines: list[str], parts: list[str]) -> None:
    (mine / "train.jsonl").write_text("".join(line + "\n" for line in lines))
    is_one_line(cli("run", mine / "run.yaml", "--quiet"), *parts)


def test_a_file_that_is_not_utf8_is_named_with_the_way_out(cli: Any, mine: Path) -> None:
    (mine / "train.jsonl").write_bytes('{"id": "1", "text": "caf\xe9", "label": "good"}'.encode("latin1"))
    is_one_line(cli("run", mine / "run.yaml", "--quiet"), "train.jsonl", "not UTF-8", "iconv")


def test_no_readable_answer_leaves_nothing_to_distill(cli: Any, mine: Path) -> None:
    (mine / "answers.jsonl").write_text(
        "\n".join(line.replace("So the answer is", "It seems") for line in ANSWERS)
    )
    called = cli("run", mine / "run.yaml", "--quiet", "--set", "methods=[distill]")
    is_one_line(called, "distill: no training example is left of 8", "8 answers could be read")


def test_a_folder_with_another_configuration_is_not_touched(cli: Any, mine: Path) -> None:
    assert cli("run", mine / "run.yaml", "--quiet").code == 0
    before = {path: path.read_bytes() for path in (mine / "out").rglob("*") if path.is_file()}
    called = cli("run", mine / "run.yaml", "--quiet", "--set", "train.epochs=2")
    is_one_line(called, "another configuration", "train.epochs is 1 there and 2 here", "another `out`")
    assert before == {path: path.read_bytes() for path in (mine / "out").rglob("*") if path.is_file()}


def test_a_folder_with_other_data_is_not_touched(cli: Any, mine: Path) -> None:
    assert cli("run", mine / "run.yaml", "--quiet").code == 0
    (mine / "train.jsonl").write_text("\n".join(GOOD[:7]))
    is_one_line(cli("run", mine / "run.yaml", "--quiet"), "another configuration", "(data)")


def test_a_folder_with_somebodys_files_is_not_touched(cli: Any, mine: Path) -> None:
    (mine / "out").mkdir()
    (mine / "out" / "thesis.txt").write_text("years of work")
    is_one_line(cli("run", mine / "run.yaml", "--quiet"), "holds files and no run")
    assert [path.name for path in (mine / "out").iterdir() if path.name != ".lock"] == ["thesis.txt"]


def test_a_folder_in_use_is_refused(cli: Any, mine: Path) -> None:
    from stepdistill.files import lock

    with lock(mine / "out"):
        is_one_line(cli("run", mine / "run.yaml", "--quiet"), "another stepdistill process")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 300 kB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(folder)]
    if os.geteuid() or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small file system needs root")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_too_little_room_for_the_students_is_said_before_training(
    cli: Any, run_file: Path, small_disk: Path
) -> None:
    called = cli("run", run_file, "--quiet", "--set", f"out={small_disk}/out")
    is_one_line(called, "disk", "MB are free", "another `out`")
    assert (small_disk / "out" / "annotations.jsonl").exists()


def test_a_disk_that_fills_up_is_said_in_one_line(cli: Any, run_file: Path, small_disk: Path) -> None:
    room = os.statvfs(small_disk)
    (small_disk / "ballast").write_bytes(b"x" * (room.f_bavail * room.f_frsize - 12_000))
    called = cli("run", run_file, "--quiet", "--set", f"out={small_disk}/out")
    is_one_line(called, "no space is left", "run the same command again")
    assert not (small_disk / "out" / "annotations.jsonl").exists()
    (small_disk / "ballast").unlink()
    assert cli("annotate", run_file, "--quiet", "--set", f"out={small_disk}/out").code == 0


def test_a_student_that_cannot_write_is_refused(cli: Any, mine: Path) -> None:
    from transformers import BertConfig, BertForMaskedLM

    config = BertConfig(
        vocab_size=50, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8
    )
    BertForMaskedLM(config).save_pretrained(mine / "bert")
    called = cli("run", mine / "run.yaml", "--quiet", "--set", f"student.model={mine}/bert")
    is_one_line(called, "bert model", "neither encoder-decoder", "nor causal")


@pytest.mark.parametrize("verb", ["run", "annotate", "train", "evaluate"])
def test_a_run_file_that_is_not_there_is_named(cli: Any, verb: str, tmp_path: Path) -> None:
    is_one_line(cli(verb, tmp_path / "no.yaml"), "no.yaml: no such file")


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("task: [unclosed", ["line 1"]),
        ("task: a\ntask: b", ["line 2", "the key 'task' stands twice"]),
        ("just words", ["a mapping with keys is expected"]),
        ("task: svamp", ["missing"]),
        ("", ["a mapping with keys is expected"]),
    ],
)
def test_a_malformed_run_file_is_named_with_its_line(
    cli: Any, tmp_path: Path, text: str, parts: list[str]
) -> None:
    (tmp_path / "run.yaml").write_text(text)
    is_one_line(cli("run", tmp_path / "run.yaml"), "run.yaml", *parts)


def test_stages_out_of_order_say_which_comes_first(cli: Any, run_file: Path) -> None:
    is_one_line(cli("train", run_file, "--quiet"), "annotations.jsonl", "stepdistill annotate")
    assert cli("annotate", run_file, "--quiet").code == 0
    is_one_line(cli("evaluate", run_file, "--quiet"), "finetune", "stepdistill train")

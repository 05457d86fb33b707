"""Restart: a training that was killed and started again ends with the bytes of one that was not."""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from stepdistill.config.run import LoraConfig
from stepdistill.records import unwatched
from stepdistill.student import checkpoint
from stepdistill.student.checkpoint import newest
from stepdistill.student.model import Student
from stepdistill.student.train import train

pytestmark = pytest.mark.slow  # whole trainings, each twice

Teach = Callable[..., Any]
Killer = Callable[..., None]

# 12 examples in batches of 4: 3 steps an epoch, 9 in all. Dropout draws random numbers at every step.
RUN: dict[str, Any] = {"dropout": 0.1, "n": 12, "batch_size": 4, "epochs": 3}


def kill_at(step: int) -> Killer:
    """A watcher that ends the process, as far as `train` can tell, behind an optimizer step."""

    def watch(what: str, done: int, total: int, note: str = "") -> None:
        if what.startswith("train") and done == step * 4:
            raise KeyboardInterrupt

    return watch


def kill_at_call(number: int) -> Callable[..., Any]:
    """A function that ends the process at its n-th call and before that calls the first argument."""
    calls: list[Any] = []

    def wrap(function: Callable[..., Any]) -> Callable[..., Any]:
        def inner(*args: Any, **kwargs: Any) -> Any:
            calls.append(args)
            if len(calls) == number:
                raise KeyboardInterrupt
            return function(*args, **kwargs)

        return inner

    return wrap


@contextlib.contextmanager
def killed() -> Iterator[None]:
    with pytest.raises(KeyboardInterrupt):
        yield


def card(trained: Any) -> dict[str, Any]:
    return json.loads((trained.folder / "student.json").read_text())


@pytest.fixture(scope="module")
def undisturbed(
    make_student: Callable[..., Student],
    lesson: Callable[..., Any],
    fingerprint: Any,
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, dict[str, bytes]]:
    """Bytes of weights and card after a training in one go, with and without validation."""
    settings = {key: value for key, value in RUN.items() if key != "dropout"}
    found = {}
    for name, validate in (("validated", fingerprint), ("plain", None)):
        folder = tmp_path_factory.mktemp("undisturbed") / "s"
        train(make_student(dropout=0.1), lesson(validate=validate, **settings), folder, unwatched)
        found[name] = {file: (folder / file).read_bytes() for file in ("model.safetensors", "student.json")}
    return found


@pytest.mark.parametrize("step", [1, 3, 4, 9])
def test_killed_behind_any_step_the_weights_are_those_of_an_undisturbed_run(
    teach: Teach, fingerprint: Any, undisturbed: Any, step: int
) -> None:
    with killed():
        teach(validate=fingerprint, watch=kill_at(step), **RUN)
    again = teach(validate=fingerprint, **RUN)
    assert again.bytes == undisturbed["validated"]["model.safetensors"]
    assert (again.folder / "student.json").read_bytes() == undisturbed["validated"]["student.json"]


@pytest.mark.parametrize("step", [2, 7])
def test_without_validation_the_weights_are_those_of_an_undisturbed_run_too(
    teach: Teach, undisturbed: Any, step: int
) -> None:
    with killed():
        teach(watch=kill_at(step), **RUN)
    assert teach(**RUN).bytes == undisturbed["plain"]["model.safetensors"]


def test_killed_twice_the_weights_are_those_of_an_undisturbed_run(
    teach: Teach, fingerprint: Any, undisturbed: Any
) -> None:
    for step in (2, 8):
        with killed():
            teach(validate=fingerprint, watch=kill_at(step), **RUN)
    assert teach(validate=fingerprint, **RUN).bytes == undisturbed["validated"]["model.safetensors"]


@pytest.mark.parametrize("epoch", [1, 3])
def test_killed_while_validating_the_weights_are_those_of_an_undisturbed_run(
    teach: Teach, fingerprint: Any, undisturbed: Any, epoch: int
) -> None:
    with killed():
        teach(validate=kill_at_call(epoch)(fingerprint), **RUN)
    assert teach(validate=fingerprint, **RUN).bytes == undisturbed["validated"]["model.safetensors"]


@pytest.mark.parametrize(
    ("place", "epoch"), [("publish", 1), ("publish", 2), ("publish", 3), ("sync_folder", 2), ("prune", 2)]
)
def test_killed_while_saving_the_weights_are_those_of_an_undisturbed_run(
    teach: Teach,
    fingerprint: Any,
    undisturbed: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    place: str,
    epoch: int,
) -> None:
    with monkeypatch.context() as patch, killed():
        patch.setattr(checkpoint, place, kill_at_call(epoch)(getattr(checkpoint, place)))
        teach(validate=fingerprint, **RUN)
    last, damaged = newest(tmp_path / ".s.work")
    assert damaged == []
    whole = epoch if place == "prune" else epoch - 1
    assert (last.name if last else None) == (f"checkpoint-{3 * whole}" if whole else None)
    again = teach(validate=fingerprint, **RUN)
    assert again.bytes == undisturbed["validated"]["model.safetensors"]
    assert [path.name for path in tmp_path.iterdir()] == ["s"]


@pytest.mark.parametrize("name", ["validated", "plain"])
def test_killed_before_the_student_is_published_nothing_is_trained_again(
    teach: Teach,
    fingerprint: Any,
    scripted: Any,
    undisturbed: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
) -> None:
    chosen = name == "validated"
    with monkeypatch.context() as patch, killed():
        patch.setattr("stepdistill.student.train.publish", kill_at_call(1)(None))
        teach(validate=fingerprint if chosen else None, **RUN)
    assert not (tmp_path / "s").exists()
    trained: list[int] = []

    def watch(what: str, done: int, total: int, note: str = "") -> None:
        trained.extend([done] if what.startswith("train") and 0 < done < total else [])

    again = teach(validate=scripted([]) if chosen else None, watch=watch, **RUN)
    assert trained == []
    assert again.bytes == undisturbed[name]["model.safetensors"]
    assert (again.folder / "student.json").read_bytes() == undisturbed[name]["student.json"]


# 13 examples in batches of 4, two at a time: 4 steps an epoch, the last with one example and a muted one.
VARIED: dict[str, Any] = {"dropout": 0.1, "n": 13, "batch_size": 4, "micro_batch_size": 2, "epochs": 3}
VARIANTS: dict[str, dict[str, Any]] = {
    "mid-epoch": {"save_every": 2},
    "causal": {"family": "causal", "save_every": 3},
    "lora": {"lora": LoraConfig(rank=2), "save_every": 2},
    "causal lora": {"family": "causal", "lora": LoraConfig(rank=2), "save_every": 2},
    "auto lambda": {"lambda": "auto", "save_every": 3},
    "by steps": {"steps": 10, "evaluate_every": 3, "save_every": 2, "warmup_steps": 4},
    "often": {"steps": 10, "evaluate_every": 1, "save_every": 7},
    "impatient": {"epochs": 9, "patience": 2, "evaluate_every": 2, "save_every": 3},
    "checkpointed": {"gradient_checkpointing": True, "save_every": 2},
    "workers": {"workers": 1, "save_every": 2},
    "ungrouped": {"group_by_length": False, "save_every": 2},
    "mean of examples": {"loss_mean": "examples", "save_every": 2},
}
RARELY = ("often", "ungrouped", "mean of examples")
"""Variants that differ from others in nothing that a checkpoint keeps."""
FILES = ("model.safetensors", "student.json", "log.json")


@pytest.mark.parametrize(
    "variant",
    [pytest.param(name, marks=[pytest.mark.slow] if name in RARELY else []) for name in VARIANTS],
)
def test_in_every_setting_weights_card_and_log_are_those_of_an_undisturbed_run(
    teach: Teach, fingerprint: Any, variant: str
) -> None:
    settings = {**VARIED, **VARIANTS[variant], "validate": fingerprint}
    whole = teach("whole", **settings)
    for step in (3, 6):
        with killed():
            teach(watch=kill_at(step), **settings)
    told: list[int] = []

    def watch(what: str, done: int, total: int, note: str = "") -> None:
        told.extend([done // 4] if what.startswith("train") else [])

    again = teach(watch=watch, **settings)
    assert told[0] > 1
    for name in FILES:
        assert (again.folder / name).read_bytes() == (whole.folder / name).read_bytes(), name


def test_a_torn_draft_is_ignored(teach: Teach, fingerprint: Any, undisturbed: Any, tmp_path: Path) -> None:
    with killed():
        teach(validate=fingerprint, watch=kill_at(5), **RUN)
    torn = tmp_path / ".s.work" / ".draft" / "checkpoint-6"
    torn.mkdir(parents=True)
    (torn / "model.safetensors").write_bytes(b"half a fi")
    (torn / "stray").write_bytes(b"half a fi")
    with killed():
        teach(validate=fingerprint, watch=kill_at(7), **RUN)
    assert not list((tmp_path / ".s.work").rglob("stray"))
    assert teach(validate=fingerprint, **RUN).bytes == undisturbed["validated"]["model.safetensors"]


def test_a_torn_student_is_replaced(teach: Teach, undisturbed: Any, tmp_path: Path) -> None:
    torn = tmp_path / ".s.draft"
    torn.mkdir()
    (torn / "pytorch_model.bin").write_bytes(b"half a fi")
    trained = teach(**RUN)
    assert trained.bytes == undisturbed["plain"]["model.safetensors"]
    assert not (trained.folder / "pytorch_model.bin").exists()


def test_two_checkpoints_are_kept_the_best_and_the_newest(
    teach: Teach, scripted: Any, tmp_path: Path
) -> None:
    with killed():
        teach(validate=scripted([0.9, 0.2, 0.1, 0.3]), watch=kill_at(11), **{**RUN, "epochs": 4})
    kept = sorted(path.name for path in (tmp_path / ".s.work").glob("checkpoint-*"))
    assert kept == ["checkpoint-3", "checkpoint-9"]


def rewrite(file: Path, content: bytes) -> None:
    """Change a file of a checkpoint and its digest, so that the checkpoint stays whole."""
    file.write_bytes(content)
    manifest = json.loads((file.parent / "manifest.json").read_text())
    manifest["files"][file.name] = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}
    (file.parent / "manifest.json").write_text(json.dumps(manifest))


def move(tmp_path: Path) -> None:
    """Let the run folder have another name, as after `mv`."""
    (tmp_path / "there").mkdir()
    shutil.move(tmp_path / "here" / ".s.work", tmp_path / "there" / ".s.work")
    shutil.rmtree(tmp_path / "here")


def test_after_a_move_the_weights_are_those_of_an_undisturbed_run(
    teach: Teach, fingerprint: Any, undisturbed: Any, tmp_path: Path
) -> None:
    (tmp_path / "here").mkdir()
    with killed():
        teach("here/s", validate=fingerprint, watch=kill_at(7), **RUN)
    move(tmp_path)
    again = teach("there/s", validate=fingerprint, **RUN)
    assert again.bytes == undisturbed["validated"]["model.safetensors"]


def test_after_a_move_behind_the_last_step_the_best_checkpoint_is_kept(
    teach: Teach, scripted: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    validate = scripted([0.9, 0.2, 0.1])
    with monkeypatch.context() as patch, killed():
        patch.setattr("stepdistill.student.train.publish", kill_at_call(1)(None))
        teach("here/s", validate=validate, **RUN)
    move(tmp_path)
    again = teach("there/s", validate=scripted([]), **RUN)
    best = validate.weights[0]
    assert all(value.equal(best[name]) for name, value in again.weights.items())


def test_patience_is_counted_on_over_a_restart(teach: Teach, scripted: Any) -> None:
    settings = {**RUN, "epochs": 6, "patience": 2}
    with killed():
        teach(validate=scripted([0.9, 0.1]), watch=kill_at(7), **settings)
    again = teach(validate=scripted([0.1, 0.8, 0.8, 0.8]), **settings)
    assert (card(again)["steps"], card(again)["chosen_step"], card(again)["validation"]) == (9, 3, 0.9)


def test_a_training_that_patience_ended_is_not_gone_on_with(
    teach: Teach, scripted: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {**RUN, "epochs": 6, "patience": 1}
    with monkeypatch.context() as patch, killed():
        patch.setattr("stepdistill.student.train.publish", kill_at_call(1)(None))
        teach(validate=scripted([0.5, 0.1]), **settings)
    again = teach(validate=scripted([0.9, 0.9, 0.9, 0.9]), **settings)
    assert (card(again)["steps"], card(again)["chosen_step"], card(again)["validation"]) == (6, 3, 0.5)


def test_seconds_are_counted_over_all_sessions(teach: Teach, tmp_path: Path) -> None:
    with killed():
        teach(watch=kill_at(4), **RUN)
    rewrite(tmp_path / ".s.work/checkpoint-3/seconds.json", b"1000.0")
    assert 1000 < json.loads((teach(**RUN).folder / "seconds.json").read_text()) < 1100

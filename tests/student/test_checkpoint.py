"""Checkpoints: exact, whole or passed over, and without anything that could run."""

from __future__ import annotations

import errno
import json
import os
import pickle
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import get_linear_schedule_with_warmup

from stepdistill.errors import RunFolderError
from stepdistill.student import checkpoint
from stepdistill.student.checkpoint import Training, is_whole, newest, prune

Teach = Callable[..., Any]

# 12 examples in batches of 4: 3 steps an epoch, 9 in all; killed behind step 7, there are 4 and 6.
RUN: dict[str, Any] = {"dropout": 0.1, "n": 12, "batch_size": 4, "epochs": 3, "save_every": 2}
FILES = (
    "weights.safetensors",
    "optimizer.safetensors",
    "optimizer.json",
    "scheduler.json",
    "noise.json",
    "trainer_state.json",
    "seconds.json",
    "manifest.json",
)


@contextmanager
def interrupted(step: int) -> Iterator[Callable[..., None]]:
    """A watcher that ends the process, as far as `train` can tell, behind a step."""

    def watch(what: str, done: int, total: int, note: str = "") -> None:
        if what.startswith("train") and done == step * 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        yield watch


def whole(folder: Path, step: int) -> Path:
    """A small checkpoint, saved."""
    model = torch.nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(model.parameters())
    training = Training(model, optimizer, get_linear_schedule_with_warmup(optimizer, 1, 9))
    notes = {"trainer_state.json": {}, "seconds.json": 1.0}
    return checkpoint.save(folder, step, training, [checkpoint.noise()], notes)


@pytest.fixture(scope="module")
def undisturbed(make_student: Any, lesson: Any, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    from stepdistill.student.train import train

    folder = tmp_path_factory.mktemp("undisturbed") / "s"
    settings = {key: value for key, value in RUN.items() if key != "dropout"}
    train(make_student(dropout=0.1), lesson(**settings), folder)
    return (folder / "model.safetensors").read_bytes()


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


def delete(path: Path) -> None:
    path.unlink()


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", [cut, flip, delete])
def test_a_checkpoint_with_any_damaged_file_is_not_whole(
    tmp_path: Path, name: str, damage: Callable[[Path], None]
) -> None:
    older, newer = whole(tmp_path, 2), whole(tmp_path, 10)
    assert newest(tmp_path) == (newer, [])
    damage(newer / name)
    # A manifest with another digit in it may say another step, or be no JSON; either way it lies.
    assert newest(tmp_path) == (older, [newer])


def test_a_damaged_checkpoint_is_passed_over_said_and_changes_nothing(
    teach: Teach, undisturbed: bytes, tmp_path: Path
) -> None:
    with interrupted(7) as watch:
        teach(watch=watch, **RUN)
    work = tmp_path / ".s.work"
    assert [path.name for path in checkpoint.checkpoints(work)] == ["checkpoint-4", "checkpoint-6"]
    flip(work / "checkpoint-6/weights.safetensors")
    notes: list[tuple[int, str]] = []

    def listen(what: str, done: int, total: int, note: str = "") -> None:
        notes.extend([(done, note)] if what.startswith("train") else [])

    assert teach(watch=listen, **RUN).bytes == undisturbed
    assert notes[0][0] == 4 * 4
    assert "checkpoint-6 damaged, going on from checkpoint-4" in notes[0][1]


def test_where_every_checkpoint_is_damaged_training_begins_anew(
    teach: Teach, undisturbed: bytes, tmp_path: Path
) -> None:
    with interrupted(7) as watch:
        teach(watch=watch, **RUN)
    for folder in checkpoint.checkpoints(tmp_path / ".s.work"):
        delete(folder / "manifest.json")
    assert teach(**RUN).bytes == undisturbed


def test_a_checkpoint_whose_best_is_damaged_is_not_used(teach: Teach, scripted: Any, tmp_path: Path) -> None:
    scores = {"validate": scripted([0.9, 0.2, 0.1])}
    with interrupted(7) as watch:
        teach(watch=watch, **RUN, **scores)
    work = tmp_path / ".s.work"
    assert [path.name for path in checkpoint.checkpoints(work)] == ["checkpoint-3", "checkpoint-6"]
    cut(work / "checkpoint-3/weights.safetensors")
    assert newest(work) == (None, [work / "checkpoint-6", work / "checkpoint-3"])


class Trap:
    """Writes a file when it is unpickled."""

    def __init__(self, sprung: Path) -> None:
        self.sprung = sprung

    def __reduce__(self) -> Any:
        return Path.touch, (self.sprung,)


def test_no_pickle_is_written_or_read(
    teach: Teach, undisturbed: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a pickle")

    for module, name in ((torch, "load"), (torch, "save"), (pickle, "load"), (pickle, "loads")):
        monkeypatch.setattr(module, name, refuse)
    with interrupted(7) as watch:
        teach(watch=watch, **RUN)
    work, sprung = tmp_path / ".s.work", tmp_path / "sprung"
    suffixes = {path.suffix for path in work.rglob("*") if path.is_file()}
    assert suffixes == {".safetensors", ".json", ".arrow"}
    names = ("optimizer.pt", "scheduler.pt", "rng_state.pth", "training_args.bin", "pytorch_model.bin")
    trap = pickle.dumps(Trap(sprung))
    for folder in (work, *checkpoint.checkpoints(work)):
        for name in names:
            (folder / name).write_bytes(trap)
    assert teach(**RUN).bytes == undisturbed
    assert not sprung.exists()


def test_a_manifest_names_only_files_of_its_own_folder(tmp_path: Path) -> None:
    folder = whole(tmp_path, 2)
    (tmp_path / "outside").write_text("x")
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"]["../outside"] = checkpoint._facts(tmp_path / "outside")
    (folder / "manifest.json").write_text(json.dumps(manifest))
    assert not is_whole(folder)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(st.one_of(values, st.fixed_dictionaries({"step": st.just(2), "files": values}), st.binary()))
def test_any_other_manifest_makes_no_checkpoint(tmp_path_factory: Any, content: Any) -> None:
    folder = tmp_path_factory.mktemp("m") / "checkpoint-2"
    folder.mkdir()
    raw = content if isinstance(content, bytes) else json.dumps(content).encode()
    (folder / "manifest.json").write_bytes(raw)
    # One that lists nothing is whole as far as it goes; `save` never writes such a one.
    assert not is_whole(folder) or content == {"step": 2, "files": {}}


def test_only_numbered_folders_are_checkpoints_and_the_newest_is_that_of_the_largest_number(
    tmp_path: Path,
) -> None:
    for step in (9, 100, 20):
        whole(tmp_path, step)
    for name in ("checkpoint-tmp", "checkpoint-", ".draft", ".old-7"):
        (tmp_path / name).mkdir()
    assert [path.name for path in checkpoint.checkpoints(tmp_path)] == [
        "checkpoint-9",
        "checkpoint-20",
        "checkpoint-100",
    ]
    assert newest(tmp_path)[0] == tmp_path / "checkpoint-100"
    assert newest(tmp_path / "nothing") == (None, [])


@pytest.mark.parametrize(
    ("step", "best", "kept"),
    [(9, None, [7, 9]), (9, 9, [7, 9]), (9, 5, [5, 9]), (5, None, [3, 5]), (3, 3, [3])],
)
def test_the_newest_is_kept_and_with_it_the_best_or_the_one_before(
    tmp_path: Path, step: int, best: int | None, kept: list[int]
) -> None:
    for each in (3, 5, 7, 9):
        whole(tmp_path, each)
    (tmp_path / ".old-1").mkdir()
    prune(tmp_path, step, best)
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"checkpoint-{each}" for each in kept]


def test_the_one_before_needs_no_third(tmp_path: Path) -> None:
    # The best is the newest; the one before it names a best that is about to go, and could not be used.
    for step, best in ((3, 3), (6, 3), (9, 9)):
        whole(tmp_path, step)
        state = tmp_path / f"checkpoint-{step}" / checkpoint.STATE
        state.write_text(json.dumps({"best_global_step": best}))
    prune(tmp_path, 9, 9)
    assert [path.name for path in checkpoint.checkpoints(tmp_path)] == ["checkpoint-3", "checkpoint-9"]


def test_a_full_disk_is_told_in_one_line_and_leaves_no_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    whole(tmp_path, 1)
    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(RunFolderError, match="no space is left"):
        whole(tmp_path, 2)
    assert newest(tmp_path) == (tmp_path / "checkpoint-1", [])


def test_all_of_a_checkpoint_is_on_the_disk_before_it_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[tuple[str, Any]] = []
    fsync, rename = os.fsync, os.rename

    def synced(descriptor: int) -> None:
        path = Path(f"/proc/self/fd/{descriptor}").resolve()
        content = sorted(os.listdir(path)) if path.is_dir() else path.read_bytes()
        done.append((str(path.relative_to(tmp_path)), content))
        fsync(descriptor)

    def renamed(source: Path, target: Path) -> None:
        done.append(("rename", (source.name, target.name)))
        rename(source, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "rename", renamed)
    folder = whole(tmp_path, 2)
    named = done.index(("rename", (".draft", "checkpoint-2")))
    before, after = dict(done[:named]), dict(done[named + 1 :])
    assert before[".draft"] == sorted(FILES)
    assert {name: before.get(f".draft/{name}") for name in FILES} == {
        name: (folder / name).read_bytes() for name in FILES
    }
    assert after["."] == ["checkpoint-2"]


def trained(seed: int, steps: int) -> Training:
    """A small model after some steps; one weight is frozen, one is tied, one has no gradient."""
    torch.manual_seed(seed)
    model = torch.nn.ModuleDict({"a": torch.nn.Linear(3, 3), "b": torch.nn.Linear(3, 3)})
    model["idle"], model["norm"] = torch.nn.Linear(3, 3), torch.nn.BatchNorm1d(3)
    model["b"].weight = model["a"].weight
    model["b"].bias.requires_grad_(False)
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(
        [{"params": weights[:1], "weight_decay": 0.1}, {"params": weights[1:]}], lr=1e-2, fused=True
    )
    made = Training(model, optimizer, get_linear_schedule_with_warmup(optimizer, 2, 9))
    step(made, steps)
    return made


def step(training: Training, times: int) -> None:
    model = training.model
    for _ in range(times):
        model["norm"](model["b"](model["a"](torch.randn(5, 3)))).square().sum().backward()
        training.optimizer.step()
        training.scheduler.step()
        training.optimizer.zero_grad()


def test_weights_moments_and_random_numbers_come_back_exactly(tmp_path: Path) -> None:
    one, other = trained(0, 4), trained(1, 1)
    other.model["b"].bias.data.copy_(one.model["b"].bias)
    other.model["idle"].load_state_dict(one.model["idle"].state_dict())
    folder = checkpoint.save(tmp_path, 4, one, [checkpoint.noise()], {})
    step(one, 3)
    drawn = random.random(), float(np.random.normal()), float(torch.rand(()))
    torch.rand(7), random.gauss(0, 1), np.random.normal(size=3)
    checkpoint.load_weights(folder, other.model)
    checkpoint.load_optimizer(folder, other)
    assert checkpoint.load_noise(folder, 0, 1)
    step(other, 3)
    state, found = one.model.state_dict(), other.model.state_dict()
    assert all(value.equal(found[name]) for name, value in state.items())
    assert one.scheduler.state_dict() == other.scheduler.state_dict()
    assert one.optimizer.param_groups[0]["betas"] == other.optimizer.param_groups[0]["betas"]
    assert drawn == (random.random(), float(np.random.normal()), float(torch.rand(())))


def test_random_numbers_of_another_number_of_processes_are_not_taken(tmp_path: Path) -> None:
    folder = checkpoint.save(tmp_path, 1, trained(0, 1), [checkpoint.noise()] * 2, {})
    assert checkpoint.load_noise(folder, 1, 2)
    assert not checkpoint.load_noise(folder, 0, 1)


def test_weights_of_another_model_are_refused(tmp_path: Path) -> None:
    folder = whole(tmp_path, 1)
    with pytest.raises(ValueError, match="weights of another model"):
        checkpoint.load_weights(folder, trained(0, 0).model)


def test_a_checkpoint_of_lora_holds_what_is_trained_alone(teach: Teach, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    from stepdistill.config.run import LoraConfig

    with interrupted(3) as watch:
        teach(watch=watch, lora=LoraConfig(rank=2), **RUN)
    names = load_file(tmp_path / ".s.work/checkpoint-2/weights.safetensors").keys()
    assert names
    assert all("lora_" in name for name in names)

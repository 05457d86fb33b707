"""Guard rails: what has gone wrong stops, at the step, with the examples, and nothing is spoilt."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed
from safetensors.torch import load_file
from torch.nn.parallel import DistributedDataParallel

from stepdistill.config import TrainConfig
from stepdistill.errors import MissingExtraError, StudentError
from stepdistill.student import settings
from stepdistill.student.checkpoint import checkpoints, is_whole, newest
from stepdistill.student.corpus import Corpus
from stepdistill.student.guards import Guard, out_of_memory, unused_weights
from stepdistill.student.model import Student
from stepdistill.student.order import StepSampler

Teach = Callable[..., Any]
WORKER = Path(__file__).with_name("team_worker.py")


def poison(student: Student, step: int, value: float) -> Callable[..., None]:
    """A watcher that spoils the weights behind a step."""

    def watch(what: str, done: int, total: int, note: str = "") -> None:
        if what.startswith("train") and done == step * 4:
            next(student.model.parameters()).data.fill_(value)

    return watch


@pytest.mark.parametrize(("value", "words"), [(math.nan, "loss is nan"), (math.inf, "loss is nan")])
def test_a_loss_that_is_no_number_stops_with_step_and_examples_and_keeps_the_last_checkpoint(
    teach: Teach, make_student: Callable[..., Student], tmp_path: Path, value: float, words: str
) -> None:
    student = make_student()
    with pytest.raises(StudentError) as caught:
        teach(student=student, watch=poison(student, 5, value), save_every=2, micro_batch_size=2)
    corpus = Corpus(tmp_path / ".s.work/corpus.arrow")
    sampler = StepSampler(corpus.lengths, batch_size=4, micro=2, seed=0)
    sampler.set_epoch(1)
    # Step 6 is the last of the three of the second epoch, and two micro-batches.
    failing = [corpus.id(i) for batch in list(sampler)[4:6] for i in batch]
    shown = ", ".join(f"'{name}'" for name in failing[:3])
    assert f"{words} at step 6 (examples {shown}, …)" in str(caught.value)
    assert "lower train.learning_rate" in str(caught.value)
    assert "\n" not in str(caught.value)
    last, damaged = newest(tmp_path / ".s.work")
    assert (last and last.name, damaged) == ("checkpoint-4", [])
    assert not (tmp_path / "s").exists()


def test_where_it_validates_the_best_checkpoint_is_kept_beside_the_last(
    teach: Teach, make_student: Callable[..., Student], scripted: Any, tmp_path: Path
) -> None:
    student, validate = make_student(), scripted([0.9, 0.1])
    with pytest.raises(StudentError, match="at step 8"):
        teach(
            student=student,
            watch=poison(student, 7, math.nan),
            evaluate_every=3,
            save_every=2,
            validate=validate,
        )
    best, last = checkpoints(tmp_path / ".s.work")
    assert [best.name, last.name] == ["checkpoint-3", "checkpoint-6"]
    assert is_whole(best)
    assert newest(tmp_path / ".s.work") == (last, [])
    kept = load_file(best / "weights.safetensors")
    assert all(value.equal(validate.weights[0][name]) for name, value in kept.items())


def test_after_the_cause_is_mended_training_goes_on_from_the_checkpoint(
    teach: Teach, make_student: Callable[..., Student]
) -> None:
    student = make_student()
    with pytest.raises(StudentError):
        teach(student=student, watch=poison(student, 5, math.nan), save_every=2)
    assert teach(save_every=2).bytes == teach("whole", save_every=2).bytes


def test_a_loss_that_explodes_stops(teach: Teach) -> None:
    with pytest.raises(StudentError, match=r"loss is \d+\.\d after \d+\.\d in the first step at step \d"):
        teach(family="causal", learning_rate=30.0, epochs=30)


def ids() -> list[str]:
    return ["a", "b", "c", "d"]


@pytest.mark.parametrize(
    ("first", "then", "stops"),
    [
        ((2.0, 3.0), (math.nan, 1.0), True),
        ((2.0, 3.0), (1.0, math.inf), True),
        ((2.0, 3.0), (19.0, 3.0), False),  # nearly 10 times the first
        ((2.0, 3.0), (21.0, 3.0), True),
        ((2.0, 3.0), (2.0, 31.0), True),
        ((0.1, 3.0), (13.0, 3.0), False),  # under three times that of guessing
        ((2.0, 0.0), (2.0, 40.0), False),  # a task that comes later has its first step later
    ],
)
def test_a_loss_has_exploded_where_it_is_far_over_its_first_and_over_that_of_guessing(
    first: tuple[float, float], then: tuple[float, float], stops: bool
) -> None:
    guard = Guard(vocabulary=100)  # three times ln(100) is 13.8
    guard.check(1, first, 1.0, ids)
    if not stops:
        guard.check(2, then, 1.0, ids)
        return
    with pytest.raises(StudentError, match=r"at step 2 \(examples 'a', 'b', 'c', …\)"):
        guard.check(2, then, 1.0, ids)


@pytest.mark.parametrize("norm", [math.nan, math.inf])
def test_a_gradient_that_is_not_finite_stops(norm: float) -> None:
    with pytest.raises(StudentError, match="the norm of the gradient is"):
        Guard(100).check(1, (1.0, 1.0), norm, ids)


def test_the_first_losses_are_part_of_a_checkpoint() -> None:
    guard, again = Guard(100), Guard(100)
    guard.check(1, (2.0, 3.0), 1.0, ids)
    for name, value in json.loads(json.dumps(guard.state()))["attributes"].items():
        setattr(again, name, value)
    with pytest.raises(StudentError, match=r"after 2\.0 in the first step"):
        again.check(2, (50.0, 3.0), 1.0, ids)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory"),
        MemoryError(),
    ],
)
def test_where_memory_runs_out_batch_length_and_settings_are_said(error: BaseException) -> None:
    config = TrainConfig(batch_size=64, micro_batch_size=16)
    told = str(out_of_memory(error, config, 16, [30, 700]))
    assert "16 examples at once (train.batch_size 64)" in told
    assert "700 tokens" in told
    assert "lower train.micro_batch_size" in told
    assert "train.gradient_checkpointing: true" in told
    assert "\n" not in told


def test_what_is_set_already_is_not_advised() -> None:
    config = TrainConfig(gradient_checkpointing=True)
    assert "gradient_checkpointing" not in str(out_of_memory(MemoryError(), config, 16, []))


def test_other_errors_are_no_want_of_memory() -> None:
    assert out_of_memory(RuntimeError("shapes do not match"), TrainConfig(), 1, []) is None


@pytest.mark.slow
def test_a_process_without_memory_ends_with_one_line(tmp_path: Path) -> None:
    wide = {"d_model": 64, "d_ff": 256, "heads": 2, "layers": 2, "vocabulary": 200}
    asked = {"sizes": wide, "n": 2048, "memory": 200 << 20, "train": {"batch_size": 2048, "epochs": 1}}
    command = [sys.executable, str(WORKER), str(tmp_path), json.dumps(asked)]
    # Arenas and threads of their own would take of the room what the batch is to want.
    env = {**os.environ, "MALLOC_ARENA_MAX": "1", "TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("not enough memory for 2048 examples at once (train.batch_size 2048)")
    lengths = Corpus(tmp_path / ".s.work/corpus.arrow").lengths
    assert f"the longest example of the batch has {max(lengths)} tokens" in done.stderr
    assert "lower train.micro_batch_size" in done.stderr
    assert done.stderr.count("\n") == 1


def test_weights_that_no_target_uses_are_named_where_processes_wait_for_their_gradient(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    try:
        layers = torch.nn.ModuleDict({"used": torch.nn.Linear(2, 2), "idle": torch.nn.Linear(2, 2)})
        layers.forward = lambda x: layers["used"](x)
        team = DistributedDataParallel(layers)
        team(torch.ones(1, 2)).sum().backward()
        with pytest.raises(RuntimeError) as caught:
            team(torch.ones(1, 2))
    finally:
        torch.distributed.destroy_process_group()
    told = str(unused_weights(caught.value))
    assert "train in one process, or set student.lora" in told
    assert "\n" not in told


@pytest.mark.parametrize(
    "error", [RuntimeError("shapes do not match"), ValueError("find_unused_parameters"), MemoryError()]
)
def test_other_errors_are_none_of_unused_weights(error: BaseException) -> None:
    assert unused_weights(error) is None


def test_a_gpu_that_is_not_there_is_not_replaced(teach: Teach, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(StudentError, match=r"train\.device: cuda, but torch sees no GPU"):
        teach(device="cuda")


@pytest.mark.parametrize("name", ["tensorboard", "wandb", "mlflow", "trackio"])
def test_a_tracker_that_is_not_installed_is_named_with_its_extra(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    # `find_spec` is everybody's: nothing else may be looked for while it finds nothing.
    with monkeypatch.context() as patch:
        patch.setattr(settings.importlib.util, "find_spec", lambda _: None)
        with pytest.raises(MissingExtraError, match=rf"pip install 'stepdistill\[{name}\]'"):
            settings.check_trackers(TrainConfig(report_to=[name]))


def test_labels_that_are_the_same_tokens_are_refused_before_training(teach: Teach, tmp_path: Path) -> None:
    with pytest.raises(StudentError, match="the same tokens"):
        teach(labels=("zebra", "zzz"))
    assert list(tmp_path.iterdir()) == []

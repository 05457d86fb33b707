"""Training: the contract's gradients, the chosen checkpoint, and what is left in the folder."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy
from transformers import GPT2Config, GPT2LMHeadModel

from stepdistill.errors import StudentError
from stepdistill.student.encode import TASKS, Branch, Row
from stepdistill.student.loss import contract
from stepdistill.student.model import Student, load_student
from stepdistill.student.scratch import train_tokenizer
from stepdistill.student.train import Lesson

Teach = Callable[..., Any]
FORMS = [("encoder-decoder", "encoder"), ("encoder-decoder", "decoder"), ("causal", "encoder")]
MEANS = ("tokens", "examples")


@pytest.fixture(params=FORMS, ids="-".join)
def fresh(request: pytest.FixtureRequest, make_student: Callable[..., Student]) -> Callable[[], Student]:
    """A student of each family, and of each place where it can be told the task."""
    family, prefix = request.param
    return lambda: replace(make_student(family), prefix=prefix)


def target_loss(student: Student, row: Row, branch: Branch) -> torch.Tensor:
    """The losses of one target's tokens, from the model's own forward without padding."""
    count = len(branch.target)
    if student.family == "causal":
        ids = torch.tensor([[*row.source, *branch.opening, *branch.target]])
        logits = student.model(input_ids=ids).logits[0, -count - 1 : -1]
    else:
        read = [student.model.config.decoder_start_token_id, *branch.opening, *branch.target[:-1]]
        source = torch.tensor([row.source])
        logits = student.model(input_ids=source, decoder_input_ids=torch.tensor([read])).logits[0, -count:]
    return cross_entropy(logits, torch.tensor(branch.target), reduction="none")


def written_out(student: Student, lesson: Lesson, mean: str, weight: float) -> dict[str, float]:
    """What the log would say of one step on all examples, by Eq. 3 and both means as they are defined."""
    losses: dict[str, list[torch.Tensor]] = {task: [] for task in TASKS}
    for targets in lesson.targets:
        for row in student.encoder.item(targets):
            for branch in row.branches:
                losses[branch.task].append(target_loss(student, row, branch))
    of_task = {
        task: torch.cat(found).mean()
        if mean == "tokens"
        else torch.stack([each.mean() for each in found]).mean()
        for task, found in losses.items()
    }
    loss = of_task["label"] + weight * of_task["rationale"]
    loss.backward()
    gradient = torch.cat([p.grad.flatten() for p in student.model.parameters() if p.grad is not None])
    named = {f"loss_{task}": value.item() for task, value in of_task.items()}
    return {"loss": loss.item(), **named, "grad_norm": gradient.norm().item()}


@pytest.mark.parametrize("mean", MEANS)
def test_a_step_descends_the_loss_of_eq_3_in_the_mean_that_was_asked_for(
    teach: Teach, fresh: Callable[[], Student], lesson: Callable[..., Lesson], mean: str
) -> None:
    # Twelve examples are one step, in three micro-batches.
    settings = {"loss_mean": mean, "lambda": 0.5, "batch_size": 12, "micro_batch_size": 4, "epochs": 1}
    trained = teach(student=fresh(), **settings)
    (row,) = json.loads((trained.folder / "log.json").read_text())
    student = fresh()
    student.model.train()
    expected = written_out(student, lesson(), mean, 0.5)
    assert {name: row[name] for name in expected} == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("mean", MEANS)
def test_micro_batches_train_the_weights_of_the_whole_batch(
    teach: Teach, fresh: Callable[[], Student], mean: str
) -> None:
    # 21 examples: the last step of an epoch has 5, and its last micro-batch 1.
    settings = {"n": 21, "epochs": 1, "batch_size": 8, "loss_mean": mean, "learning_rate": 1e-3}
    whole, parts = (teach(f"{size}", student=fresh(), micro_batch_size=size, **settings) for size in (8, 2))
    assert whole.distance(parts.weights) < 1e-5


def test_the_mean_over_examples_trains_other_weights(teach: Teach, fresh: Callable[[], Student]) -> None:
    tokens, examples = (teach(mean, student=fresh(), epochs=1, loss_mean=mean) for mean in MEANS)
    assert tokens.distance(examples.weights) > 1e-3


def test_with_lambda_zero_step_by_step_is_finetuning_and_otherwise_not(teach: Teach) -> None:
    # Grouped by length, the batches would differ: rationales are part of an example's length.
    settings = {"group_by_length": False, "learning_rate": 1e-3, "epochs": 1}
    label = teach("label", method="finetune", **settings)
    assert label.distance(teach("without", **{"lambda": 0.0}, **settings).weights) < 1e-5
    assert label.distance(teach("with", **settings).weights) > 1e-4


@pytest.mark.parametrize(
    ("scores", "best"),
    [([0.2, 0.9, 0.1], 1), ([0.9, 0.2, 0.1], 0), ([0.1, 0.2, 0.9], 2), ([0.5, 0.5, 0.5], 0), ([0, 0, 0], 0)],
)
def test_the_checkpoint_with_the_best_validation_is_kept_the_first_of_equals(
    teach: Teach,
    scripted: Any,
    scores: list[float],
    best: int,
) -> None:
    validate = scripted(scores)
    trained = teach(validate=validate)
    assert len(validate.weights) == 3
    assert trained.distance(validate.weights[best]) == 0
    assert trained.distance(validate.weights[best - 1]) > 0
    assert trained.distance(trained.student.model.state_dict()) == 0


def test_training_stops_when_patience_is_at_its_end(teach: Teach, scripted: Any) -> None:
    validate = scripted([0.5, 0.9, 0.1, 0.9])
    trained = teach(validate=validate, epochs=9, patience=2)
    assert len(validate.weights) == 4
    assert trained.distance(validate.weights[1]) == 0


def test_without_validation_the_last_step_is_kept(teach: Teach, make_student: Callable[..., Student]) -> None:
    student = make_student()
    last: dict[str, torch.Tensor] = {}

    def watch(what: str, done: int, total: int, note: str = "") -> None:
        last.update({name: value.clone() for name, value in student.model.state_dict().items()})

    trained = teach(student=student, watch=watch)
    assert trained.distance(last) == 0


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(teach: Teach) -> None:
    first, again, other = (
        teach(name, dropout=0.1, seed=seed).bytes for name, seed in (("a", 1), ("b", 1), ("c", 2))
    )
    assert first == again
    assert first != other


def test_the_seed_decides_also_after_other_random_numbers_were_drawn(
    teach: Teach, make_student: Callable[..., Student]
) -> None:
    first = teach("a", dropout=0.1).bytes
    student = make_student(dropout=0.1)
    torch.rand(17)
    assert teach("b", student=student).bytes == first


def test_the_folder_appears_only_when_training_has_ended(teach: Teach, tmp_path: Path) -> None:
    folder, calls = tmp_path / "s", []

    def watch(what: str, done: int, total: int, note: str = "") -> None:
        if what.startswith("train"):
            calls.append((what, done, total, folder.exists()))

    teach(watch=watch)
    assert [path.name for path in tmp_path.iterdir()] == ["s"]
    assert not any(there for *_, there in calls)
    assert {(what, total) for what, _, total, _ in calls} == {("train step-by-step", 36)}
    assert [done for _, done, _, _ in calls] == [*range(0, 37, 4), 36]


def test_progress_reaches_its_end_also_when_training_stops_early(teach: Teach, scripted: Any) -> None:
    calls: list[tuple[int, int]] = []
    validate = scripted([0.9, 0.1])

    def watch(what: str, done: int, total: int, note: str = "") -> None:
        calls.append((done, total))

    teach(validate=validate, epochs=9, patience=1, watch=watch)
    assert calls[-1] == (108, 108)
    assert calls[-2] == (24, 108)


def test_the_folder_is_a_student_without_pickles(teach: Teach) -> None:
    trained = teach()
    names = {path.name for path in trained.folder.rglob("*")}
    assert {"model.safetensors", "config.json", "tokenizer.json", "student.json"} <= names
    assert {Path(name).suffix for name in names} <= {".safetensors", ".json"}
    loaded = load_student(str(trained.folder))
    assert trained.distance(loaded.model.state_dict()) == 0
    assert loaded.family == "encoder-decoder"


def test_the_card_says_what_was_trained_on_what(
    teach: Teach, make_student: Callable[..., Student], lesson: Callable[..., Lesson], scripted: Any
) -> None:
    student, given = make_student(), lesson()
    validate = scripted([0.2, 0.9, 0.1])
    trained = teach(student=student, validate=validate, facts={"task": "sums"}, loss_mean="examples")
    card = json.loads((trained.folder / "student.json").read_text())
    limits = card.pop("new_tokens")
    parameters = sum(weight.numel() for weight in student.model.parameters())
    assert set(card.pop("versions")) >= {"python", "torch", "transformers", "stepdistill"}
    assert card == {
        "task": "sums",
        "name": "step-by-step",
        "family": "encoder-decoder",
        "prefix": "encoder",
        "lora": None,
        "parameters": parameters,
        "trained": parameters,
        "learning_rate": 0.01,
        "limits": {"seen": 12, "left_out": 0, "over": {}},
        "machine": {"device": "cpu", "why": "float32 on cpu, as asked", "processes": 1},
        "n_train": 12,
        "loss": contract(1.0, "examples"),
        "precision": "float32",
        "chosen_step": 6,
        "steps": 9,
        "validation": 0.9,
    }
    for task, limit in limits.items():
        longest = max(
            len(student.tokenizer(t.target)["input_ids"])
            for ts in given.targets
            for t in ts
            if t.task == task
        )
        assert longest < limit <= longest * 5 // 4 + 4
    assert list(limits) == ["label", "rationale"]


def test_the_card_without_validation_has_no_score(teach: Teach) -> None:
    trained = teach(method="finetune", alpha=0.2)
    card = json.loads((trained.folder / "student.json").read_text())
    assert (card["validation"], card["chosen_step"], card["steps"]) == (None, 9, 9)
    assert list(card["new_tokens"]) == ["label"]
    assert card["loss"].startswith("L_label + 4 * L_rationale")


def test_a_text_longer_than_the_models_positions_is_refused(
    teach: Teach, words: list[str], tmp_path: Path
) -> None:
    tokenizer = train_tokenizer(words, 200)
    sizes = {"vocab_size": len(tokenizer), "n_embd": 8, "n_layer": 1, "n_head": 1}
    GPT2LMHeadModel(GPT2Config(n_positions=13, **sizes)).save_pretrained(tmp_path / "gpt2")
    tokenizer.save_pretrained(tmp_path / "gpt2")
    with pytest.raises(StudentError, match=r"\b13\b"):
        teach(student=load_student(str(tmp_path / "gpt2")))


def test_an_input_that_will_be_asked_is_checked_before_training(teach: Teach, tmp_path: Path) -> None:
    with pytest.raises(StudentError, match="1 of 2 inputs to be answered have more than 40 tokens"):
        teach(asked=["Anna has 3 apples.", "apples " * 50], max_input_tokens=40)
    assert list(tmp_path.iterdir()) == []


# Fails on a machine without GPU: transformers wants `use_cpu` said before it trains in bfloat16.
def test_the_checkpoint_is_chosen_in_the_precision_that_students_are_used_in(
    teach: Teach, make_student: Callable[..., Student]
) -> None:
    seen: list[torch.Tensor] = []

    def validate(student: Student, new_tokens: Any) -> float:
        ids = torch.arange(3, 9)[None]
        student.model.eval()
        fresh = make_student()
        fresh.model.load_state_dict(student.model.state_dict())
        fresh.model.eval()
        with torch.no_grad():
            seen.extend(s.model(input_ids=ids, decoder_input_ids=ids).logits for s in (student, fresh))
        return 0.5

    trained = teach(validate=validate, precision="bfloat16", epochs=1)
    assert seen[0].equal(seen[1])
    assert {value.dtype for value in trained.weights.values()} == {torch.float32}
    assert json.loads((trained.folder / "student.json").read_text())["precision"] == "bfloat16"
    assert trained.distance(teach("float", validate=validate, epochs=1).weights) > 0

"""Training: the contract's gradients, the chosen checkpoint, and what is left in the folder."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from stepdistill.errors import StudentError
from stepdistill.student.encode import Encoder, Item
from stepdistill.student.loss import contract
from stepdistill.student.model import Student, load_student
from stepdistill.student.scratch import train_tokenizer
from stepdistill.student.train import Lesson
from stepdistill.student.trainer import StepByStepTrainer

FAMILIES = ("encoder-decoder", "causal")
MEANS = ("tokens", "examples")
Teach = Callable[..., Any]


def largest_difference(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> float:
    shared = left.keys() & right.keys()
    assert shared
    return max((left[name] - right[name]).abs().max().item() for name in shared)


@pytest.mark.parametrize("mean", MEANS)
@pytest.mark.parametrize("family", FAMILIES)
def test_micro_batches_train_the_weights_of_the_whole_batch(teach: Teach, family: str, mean: str) -> None:
    # 21 examples: the last step of an epoch has 5, and its last micro-batch 1.
    settings = {"family": family, "n": 21, "epochs": 2, "batch_size": 8, "loss_mean": mean}
    whole, parts = (teach(f"{size}", micro_batch_size=size, **settings).weights for size in (8, 2))
    assert largest_difference(whole, parts) < 1e-5


def task_loss(model: Any, family: str, item: Item, task: str) -> torch.Tensor:
    """Mean cross-entropy of one example alone: unpadded, by the model's own loss."""
    source, target = item[task].source, item[task].target
    if family == "causal":
        return model(
            input_ids=torch.tensor([source + target]),
            labels=torch.tensor([[-100] * len(source) + target]),
        ).loss
    return model(input_ids=torch.tensor([source]), labels=torch.tensor([target])).loss


def plain_loop(model: Any, family: str, steps: list[list[Item]], settings: dict[str, Any]) -> list[float]:
    """The method without a trainer: AdamW, warm-up and linear descent, gradients clipped at 1."""
    rate, warm, weight = settings["learning_rate"], settings["warmup_steps"], settings["lambda"]
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.0)
    model.train()
    losses = []
    for number, items in enumerate(steps):
        down = (len(steps) - number) / max(1, len(steps) - warm)
        optimizer.param_groups[0]["lr"] = rate * (number / warm if number < warm else down)
        loss = torch.zeros(())
        for task, factor in (("label", 1.0), ("rationale", weight)):
            rows = [item for item in items if task in item]
            sizes = [len(r[task].target) if settings["loss_mean"] == "tokens" else 1 for r in rows]
            sums = [task_loss(model, family, r, task) * n for r, n in zip(rows, sizes, strict=True)]
            loss = loss + factor * torch.stack(sums).sum() / sum(sizes)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("mean", MEANS)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_plain_loop_follows_the_same_losses_to_the_same_weights(
    teach: Teach,
    make_student: Callable[..., Student],
    monkeypatch: pytest.MonkeyPatch,
    family: str,
    mean: str,
) -> None:
    settings = {"learning_rate": 3e-3, "warmup_steps": 2, "lambda": 0.5, "loss_mean": mean}
    batches: list[list[Item]] = []
    shares: list[float] = []
    collate, compute = Encoder.collate, StepByStepTrainer.compute_loss

    def seen(self: Encoder, items: list[Item]) -> Any:
        batches.append(items)
        return collate(self, items)

    def noted(self: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
        loss = compute(self, *args, **kwargs)
        shares.append(loss.item())
        return loss

    monkeypatch.setattr(Encoder, "collate", seen)
    monkeypatch.setattr(StepByStepTrainer, "compute_loss", noted)
    trained = teach(family=family, n=12, epochs=2, batch_size=4, micro_batch_size=2, **settings)
    steps = [batches[i] + batches[i + 1] for i in range(0, len(batches), 2)]
    model = make_student(family).model
    expected = plain_loop(model, family, steps, settings)
    found = [shares[i] + shares[i + 1] for i in range(0, len(shares), 2)]
    assert found == pytest.approx(expected, rel=1e-4)
    assert expected[0] - expected[-1] > 0.1
    assert largest_difference(trained.weights, dict(model.state_dict())) < 1e-4


def test_with_lambda_zero_step_by_step_is_finetuning(teach: Teach) -> None:
    both = teach("both", **{"lambda": 0.0})
    label = teach("label", method="finetune")
    assert both.bytes == label.bytes


def test_with_lambda_one_it_is_not(teach: Teach) -> None:
    both = teach("both")
    label = teach("label", method="finetune")
    assert largest_difference(both.weights, label.weights) > 1e-3


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
    assert largest_difference(trained.weights, validate.weights[best]) == 0
    assert largest_difference(trained.weights, validate.weights[best - 1]) > 0
    assert largest_difference(trained.student.model.state_dict(), validate.weights[best]) == 0


def test_training_stops_when_patience_is_at_its_end(teach: Teach, scripted: Any) -> None:
    validate = scripted([0.5, 0.9, 0.1, 0.9])
    trained = teach(validate=validate, epochs=9, patience=2)
    assert len(validate.weights) == 4
    assert largest_difference(trained.weights, validate.weights[1]) == 0


def test_without_validation_the_last_step_is_kept(teach: Teach, make_student: Callable[..., Student]) -> None:
    student = make_student()
    last: dict[str, torch.Tensor] = {}

    def watch(what: str, done: int, total: int) -> None:
        last.update({name: value.clone() for name, value in student.model.state_dict().items()})

    trained = teach(student=student, watch=watch)
    assert largest_difference(trained.weights, last) == 0


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

    def watch(what: str, done: int, total: int) -> None:
        calls.append((what, done, total, folder.exists()))

    teach(watch=watch)
    assert [path.name for path in tmp_path.iterdir()] == ["s"]
    assert not any(there for *_, there in calls)
    assert {(what, total) for what, _, total, _ in calls} == {("train step-by-step", 36)}
    assert [done for _, done, _, _ in calls] == [*range(4, 37, 4), 36]


def test_progress_reaches_its_end_also_when_training_stops_early(teach: Teach, scripted: Any) -> None:
    calls: list[tuple[int, int]] = []
    validate = scripted([0.9, 0.1])
    teach(validate=validate, epochs=9, patience=1, watch=lambda _, done, total: calls.append((done, total)))
    assert calls[-1] == (108, 108)
    assert calls[-2] == (24, 108)


def test_the_folder_is_a_student_without_pickles(teach: Teach) -> None:
    trained = teach()
    names = {path.name for path in trained.folder.rglob("*")}
    assert {"model.safetensors", "config.json", "tokenizer.json", "student.json"} <= names
    assert {Path(name).suffix for name in names} <= {".safetensors", ".json"}
    loaded = load_student(str(trained.folder))
    assert largest_difference(loaded.model.state_dict(), trained.student.model.state_dict()) == 0
    assert loaded.family == "encoder-decoder"


def test_the_card_says_what_was_trained_on_what(
    teach: Teach, make_student: Callable[..., Student], lesson: Callable[..., Lesson], scripted: Any
) -> None:
    student, given = make_student(), lesson()
    validate = scripted([0.2, 0.9, 0.1])
    trained = teach(student=student, validate=validate, facts={"task": "sums"}, loss_mean="examples")
    card = json.loads((trained.folder / "student.json").read_text())
    limits = card.pop("new_tokens")
    assert set(card.pop("versions")) >= {"python", "torch", "transformers", "stepdistill"}
    assert card == {
        "task": "sums",
        "name": "step-by-step",
        "family": "encoder-decoder",
        "parameters": sum(weight.numel() for weight in student.model.parameters()),
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


def test_a_loss_that_is_not_finite_stops_training_with_step_and_setting(
    teach: Teach, make_student: Callable[..., Student], tmp_path: Path
) -> None:
    student = make_student()

    def poison(what: str, done: int, total: int) -> None:
        if done == 8:
            next(student.model.parameters()).data.fill_(float("inf"))

    with pytest.raises(StudentError, match=r"the loss is nan at step 3; lower train.learning_rate"):
        teach(student=student, watch=poison)
    assert not (tmp_path / "s").exists()


def test_a_text_longer_than_the_models_positions_is_refused(
    teach: Teach, words: list[str], tmp_path: Path
) -> None:
    tokenizer = train_tokenizer(words, 200)
    sizes = {"vocab_size": len(tokenizer), "n_embd": 8, "n_layer": 1, "n_head": 1}
    GPT2LMHeadModel(GPT2Config(n_positions=13, **sizes)).save_pretrained(tmp_path / "gpt2")
    tokenizer.save_pretrained(tmp_path / "gpt2")
    with pytest.raises(StudentError, match=r"\b13\b"):
        teach(student=load_student(str(tmp_path / "gpt2")))

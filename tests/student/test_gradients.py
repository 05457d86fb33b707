"""One optimizer step: micro-batches, both means and lambda, against a loop that is written out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from stepdistill.student.encode import Encoder, Item
from stepdistill.student.model import Student
from stepdistill.student.trainer import StepByStepTrainer

FAMILIES = ("encoder-decoder", "causal")
MEANS = ("tokens", "examples")
Teach = Callable[..., Any]


@pytest.mark.parametrize("mean", MEANS)
@pytest.mark.parametrize("family", FAMILIES)
def test_micro_batches_train_the_weights_of_the_whole_batch(teach: Teach, family: str, mean: str) -> None:
    # 21 examples: the last step of an epoch has 5, and its last micro-batch 1.
    settings = {"family": family, "n": 21, "epochs": 2, "batch_size": 8, "loss_mean": mean}
    whole, parts = (teach(f"{size}", micro_batch_size=size, **settings) for size in (8, 2))
    assert whole.distance(parts.weights) < 1e-5


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
    assert trained.distance(dict(model.state_dict())) < 1e-4


def test_with_lambda_zero_step_by_step_is_finetuning(teach: Teach) -> None:
    both = teach("both", **{"lambda": 0.0})
    label = teach("label", method="finetune")
    assert both.bytes == label.bytes


def test_with_lambda_one_it_is_not(teach: Teach) -> None:
    both = teach("both")
    label = teach("label", method="finetune")
    assert both.distance(label.weights) > 1e-3

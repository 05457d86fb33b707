"""The ways to train that benchmarks/train.py compares, and how each is timed and checked."""

from __future__ import annotations

import dataclasses
import gc
import statistics
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
import train_cases as cases
import train_reference as reference
from transformers import TrainerCallback

from stepdistill.config import TrainConfig
from stepdistill.records import Target
from stepdistill.student.balance import MEASURED_EVERY
from stepdistill.student.batch import Collator
from stepdistill.student.encode import Encoder, Prefix, tokens
from stepdistill.student.forward import multitask
from stepdistill.student.loss import multitask_loss
from stepdistill.student.model import Student
from stepdistill.student.order import StepSampler
from stepdistill.student.train import Lesson, train
from stepdistill.weights import Family

BATCH = 16
FAMILIES: tuple[Family, ...] = ("encoder-decoder", "causal")


@dataclass(frozen=True)
class Scheme:
    """One way to train."""

    name: str
    family: Family
    ours: bool = True
    grouped: bool = True
    rationales: bool = True
    prefix: Prefix = "encoder"
    bfloat16: bool = False

    @property
    def title(self) -> str:
        """Its name in the table."""
        return self.name + (", bfloat16" if self.bfloat16 else "")


SCHEMES = (
    Scheme("authors' loop", "encoder-decoder", ours=False, grouped=False),
    Scheme("authors' loop + length groups", "encoder-decoder", ours=False),
    Scheme("ours", "encoder-decoder"),
    Scheme("ours, `prefix: decoder`", "encoder-decoder", prefix="decoder"),
    Scheme("ours, `finetune`", "encoder-decoder", rationales=False),
    Scheme("two padded passes", "causal", ours=False, grouped=False),
    Scheme("ours", "causal"),
    Scheme("ours, `finetune`", "causal", rationales=False),
)


class EnoughError(Exception):
    """All steps are done; what comes behind them, checkpoints and files, is not measured."""


@dataclass
class Clock(TrainerCallback):  # type: ignore[misc]
    """Notes the begin of the first step and the end of each."""

    steps: int
    marks: list[float] = field(default_factory=list)

    def begin(self, *_: Any) -> None:
        """A forward pass begins."""
        if not self.marks:
            self.marks.append(time.process_time())

    def end(self) -> None:
        """A step has ended."""
        self.marks.append(time.process_time())
        if len(self.marks) > self.steps:
            raise EnoughError

    def on_step_end(self, *_: Any, **__: Any) -> None:
        """transformers' word for it."""
        self.end()

    def watch(self, what: str, done: int, total: int, note: str = "", /) -> None:
        """Ours."""
        if what.startswith("train"):
            self.end()

    @property
    def seconds(self) -> float:
        """Seconds of a step.

        The first warms up, and in ours it measures the tasks' shares of the gradient, as one step in fifty
        does; what it takes beyond the others counts for a fiftieth.
        """
        first, *others = (b - a for a, b in zip(self.marks, self.marks[1:], strict=False))
        mean = statistics.fmean(others)
        return mean + max(first - mean, 0.0) / MEASURED_EVERY


def measure(scheme: Scheme, student: Student, lengths: cases.Lengths, steps: int, seed: int) -> float:
    """Seconds a step of one scheme in one round."""
    clock = Clock(steps + 1)
    student = dataclasses.replace(student, prefix=scheme.prefix)
    examples = chosen(scheme, student.encoder, lengths, clock.steps, seed)
    pair = student.family == "encoder-decoder"
    reader = student.model.get_encoder() if pair else student.model.base_model
    handle = reader.register_forward_pre_hook(clock.begin)
    gc.collect()
    try:
        with tempfile.TemporaryDirectory() as folder:
            run = train_ours if scheme.ours else train_reference
            run(scheme, student, examples, clock, Path(folder) / "student")
    except EnoughError:
        return clock.seconds
    finally:
        handle.remove()
        student.model.zero_grad(set_to_none=True)
    raise SystemExit(f"{scheme.name}: {len(clock.marks) - 1} steps were made and {clock.steps} expected")


def chosen(
    scheme: Scheme, encoder: Encoder, lengths: cases.Lengths, steps: int, seed: int
) -> list[list[Target]]:
    """The examples of a scheme in one round: all schemes draw them from the same window."""
    examples = cases.window(lengths, BATCH, seed)
    if not scheme.rationales:
        examples = [[target for target in example if target.task == "label"] for example in examples]
    if scheme.grouped:
        return cases.grouped(examples, encoder, BATCH, steps, seed)
    return Random(seed).sample(examples, steps * BATCH)


def train_ours(
    scheme: Scheme, student: Student, examples: list[list[Target]], clock: Clock, folder: Path
) -> None:
    """The package's own training."""
    config = TrainConfig(
        epochs=1,
        batch_size=BATCH,
        learning_rate=5e-5,
        prefix=scheme.prefix,
        precision="bfloat16" if scheme.bfloat16 else "float32",
        threads=torch.get_num_threads(),
    )
    train(student, Lesson("benchmark", examples, len(examples), None, config, 0, {}), folder, clock.watch)


def train_reference(
    scheme: Scheme, student: Student, examples: list[list[Target]], clock: Clock, folder: Path
) -> None:
    """The authors' loop."""
    items = [student.encoder.item(example) for example in examples]
    trainer = reference.Reference(
        model=student.model,
        args=reference.arguments(folder, BATCH, 0, scheme.bfloat16),
        train_dataset=reference.features(items, student.family),
        data_collator=reference.collator(student.tokenizer, student.model, student.family),
        callbacks=[clock],
    )
    if scheme.grouped:
        lengths = np.array([tokens(item) for item in items], dtype="int32")
        sampler = StepSampler(lengths, BATCH, BATCH)
        trainer.order = [example for batch in sampler for example in batch]
    trainer.train()


def deviation(student: Student, lengths: cases.Lengths) -> float:
    """How far our loss and the authors' are apart, as a share of theirs: the worst of four batches.

    Without dropout, whose draws differ.
    """
    encoder, model, pad = student.encoder, student.model.eval(), student.tokenizer.pad_token_id
    pads = reference.collator(student.tokenizer, model, student.family)
    ours = Collator(pad, student.family, start=getattr(model.config, "decoder_start_token_id", None))
    examples, worst = cases.window(lengths, BATCH, 0), 0.0
    with torch.no_grad():
        for number in range(4):
            items = [encoder.item(example) for example in examples[number * BATCH :][:BATCH]]
            theirs = reference.two_passes(model, pads(reference.features(items, student.family)))
            batch = ours(list(enumerate(items)))
            with multitask(model, student.family):
                loss = multitask_loss(model(batch=batch), batch["totals"], 1.0)
            # Theirs is half of L_label + L_rationale, since alpha is 0.5.
            worst = max(worst, abs(loss.item() / (2 * theirs.item()) - 1))
    return worst


def peak() -> float:
    """Peak memory of this process, MB; of this program alone, whatever started it."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))

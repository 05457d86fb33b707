"""Toy examples and tiny students that all tests of the training stage share."""

from __future__ import annotations

import gc
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import LlamaConfig, LlamaForCausalLM

from stepdistill.config import ScratchConfig, StudentConfig, TrainConfig
from stepdistill.config.run import LoraConfig
from stepdistill.records import Annotation, Example, Target, TaskName, Watcher, unwatched
from stepdistill.student.model import Student, load_student, new_student
from stepdistill.student.scratch import train_tokenizer
from stepdistill.student.train import Lesson, train

NAMES = ("Anna", "Ben", "Cleo")


def toy(n: int) -> tuple[list[Example], dict[str, Annotation]]:
    """`n` sums in words; every third has no rationale, and the lengths of the texts differ."""
    examples, annotations = [], {}
    for i in range(n):
        a, b = i % 7 + 1, i % 5 + 2
        more = " today" * (i % 4)
        text = f"{NAMES[i % 3]} has {a} apples and gets {b} more{more}. How many?"
        reason = "" if i % 3 == 2 else f"{a} and {b} more{more} make {a + b}."
        examples.append(Example(str(i), text, str(a + b)))
        annotations[str(i)] = Annotation(str(i), reason, str(a + b), "number")
    return examples, annotations


def corpus() -> list[str]:
    """The words of the toy examples, for tokenizers."""
    examples, annotations = toy(24)
    reasons = [annotation.rationale for annotation in annotations.values()]
    return [f"[label] [rationale] {e.text}\n{e.label}" for e in examples] + reasons


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> Iterator[None]:
    """Sums are taken in one order, and the machine's other work is not disturbed."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    # Every training collects garbage; what was imported needs no looking through each time.
    gc.freeze()
    yield
    gc.unfreeze()
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def make_toy() -> Callable[[int], tuple[list[Example], dict[str, Annotation]]]:
    """The toy examples, n at a time."""
    return toy


@pytest.fixture(scope="session")
def words() -> list[str]:
    """Texts that hold all words of the toy examples."""
    return corpus()


@pytest.fixture(scope="session")
def llama_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A causal model of two layers with random weights, and its tokenizer."""
    folder = tmp_path_factory.mktemp("llama")
    tokenizer = train_tokenizer(corpus(), 200)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=128,
        initializer_range=0.2,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    torch.manual_seed(0)
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def make_student(llama_folder: Path) -> Callable[..., Student]:
    """A fresh student of either family, the same weights every time."""

    def make(family: str = "encoder-decoder", dropout: float = 0.0, seed: int = 0) -> Student:
        if family == "causal":
            student = load_student(str(llama_folder))
            for module in student.model.modules():
                if hasattr(module, "attention_dropout"):
                    module.attention_dropout = dropout
            return student
        sizes = ScratchConfig(d_model=16, d_ff=32, heads=2, layers=1, vocabulary=200, dropout=dropout)
        return new_student(StudentConfig(model="scratch:", scratch=sizes), seed, corpus())

    return make


@dataclass
class Trained:
    """What a training has left."""

    folder: Path
    student: Student

    @property
    def bytes(self) -> bytes:
        return (self.folder / "model.safetensors").read_bytes()

    @property
    def weights(self) -> dict[str, torch.Tensor]:
        return load_file(self.folder / "model.safetensors")

    def distance(self, other: dict[str, torch.Tensor]) -> float:
        """The largest difference of any weight."""
        shared = self.weights.keys() & other.keys()
        assert shared
        return max((self.weights[name] - other[name]).abs().max().item() for name in shared)


@dataclass
class Script:
    """A validation that gives scores in a fixed order and keeps the weights of each moment."""

    scores: list[float]
    weights: list[dict[str, torch.Tensor]] = field(default_factory=list)

    def __call__(self, student: Student, new_tokens: Mapping[TaskName, int]) -> float:
        state = student.model.state_dict()
        self.weights.append({name: value.clone() for name, value in state.items()})
        return self.scores[len(self.weights) - 1]


@pytest.fixture(scope="session")
def scripted() -> type[Script]:
    """A validation with given scores."""
    return Script


@pytest.fixture(scope="session")
def fingerprint() -> Callable[[Student, Mapping[TaskName, int]], float]:
    """A validation whose score changes with any bit of the weights, and with nothing else."""

    def score(student: Student, new_tokens: Mapping[TaskName, int]) -> float:
        total = hashlib.sha256()
        for value in student.model.state_dict().values():
            total.update(value.numpy().tobytes())
        return int.from_bytes(total.digest()[:4]) / 2**32

    return score


def toy_targets(method: str = "step-by-step", n: int = 12) -> list[list[Target]]:
    """Training pairs of the toy examples, gold labels."""
    examples, annotations = toy(n)
    pairs = [[Target(e.id, e.text, str(e.label), "label")] for e in examples]
    for targets, example in zip(pairs, examples, strict=True):
        if method != "finetune" and (reason := annotations[example.id].rationale):
            targets.append(Target(example.id, example.text, reason, "rationale"))
    return pairs


@pytest.fixture(scope="session")
def lesson() -> Callable[..., Lesson]:
    """A lesson on the toy examples; settings of `train` go in by keyword."""

    def make(
        method: str = "step-by-step",
        n: int = 12,
        validate: Any = None,
        seed: int = 0,
        facts: dict[str, Any] | None = None,
        asked: Sequence[str] = (),
        labels: tuple[str, ...] = (),
        lora: LoraConfig | None = None,
        **settings: Any,
    ) -> Lesson:
        plain = {"epochs": 3, "batch_size": 4, "learning_rate": 1e-2, "precision": "float32"}
        config = TrainConfig(**{**plain, **settings})
        targets = toy_targets(method, n)
        return Lesson(method, targets, n, validate, config, seed, facts or {}, asked, labels, lora)

    return make


@pytest.fixture
def teach(
    make_student: Callable[..., Student], lesson: Callable[..., Lesson], tmp_path: Path
) -> Callable[..., Trained]:
    """Train a student on the toy examples into `tmp_path / name`; settings go in by keyword."""

    def run(
        name: str = "s",
        *,
        student: Student | None = None,
        family: str = "encoder-decoder",
        dropout: float = 0.0,
        watch: Watcher = unwatched,
        **settings: Any,
    ) -> Trained:
        student = student or make_student(family, dropout)
        train(student, lesson(**settings), tmp_path / name, watch)
        return Trained(tmp_path / name, student)

    return run

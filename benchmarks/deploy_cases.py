"""What benchmarks/deploy.py asks: a student of T5-base's shape with random weights, and its exports."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import torch
from transformers import T5Config, T5ForConditionalGeneration

from stepdistill.deploy.bundle import of_student
from stepdistill.deploy.engines import Engine, Prompt, Question, open_engine
from stepdistill.deploy.export import ctranslate2
from stepdistill.deploy.readout import scores
from stepdistill.student.scratch import train_tokenizer
from stepdistill.weights import read_tokenizer

VOCABULARY = 32128
SPECIAL = 3
"""Ids below are padding, end of sequence and unknown."""
TINY = {"d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 2, "num_decoder_layers": 2, "num_heads": 2}
BASE = {"d_model": 768, "d_kv": 64, "num_layers": 12, "num_decoder_layers": 12, "num_heads": 12}
GATED = {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False, "scale_decoder_outputs": False}
SHAPES: dict[str, dict[str, Any]] = {
    "t5-v1.1-base": {**BASE, **GATED, "d_ff": 2048},
    "t5-base": {**BASE, "d_ff": 3072},
    "tiny": TINY,
}


@dataclass(frozen=True)
class Case:
    """One way of asking, of a number of questions at once."""

    name: str
    ask: Callable[[Engine, Sequence[Question]], Any]


def ways(tokens: Sequence[int]) -> list[Case]:
    """The two readouts of a closed set, and answers of so many tokens written greedily."""

    def writes(most: int) -> Callable[[Engine, Sequence[Question]], Any]:
        return lambda engine, questions: engine.write([question.prompt for question in questions], most)

    return [
        Case("first step", lambda engine, questions: scores(engine, questions, "first")),
        Case("all tokens", lambda engine, questions: scores(engine, questions, "sum")),
        *(Case(f"{most} tokens written", writes(most)) for most in tokens),
    ]


def make_student(shape: str, folder: Path, trained: Path | None = None) -> Path:
    """A student's folder with random weights, as a run would have left it.

    Its tokenizer is that of the student `trained`, else one that knows nothing; the embedding is larger.
    """
    torch.manual_seed(0)
    if trained:
        tokenizer, _ = read_tokenizer(str(trained), "student.model")
    else:
        tokenizer = train_tokenizer(["[label] a small text"], 32)
    config = T5Config(
        vocab_size=VOCABULARY,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        decoder_start_token_id=tokenizer.pad_token_id,
        **SHAPES[shape],
    )
    student = folder / shape
    T5ForConditionalGeneration(config).save_pretrained(student)
    tokenizer.save_pretrained(student)
    return student


def card(family: str = "encoder-decoder") -> dict[str, Any]:
    """What an engine reads of a student's card."""
    return {"family": family, "prefix": "encoder", "machine": {"device": "cpu"}}


def engines(student: Path, precisions: Sequence[str], scratch: Path) -> dict[str, Engine]:
    """The student in torch, and its exports to CTranslate2, each with one thread."""
    written = student / "student.json"
    about = of_student(student, json.loads(written.read_text()) if written.exists() else card())
    found = {"transformers float32": open_engine(student, about, threads=1)}
    for precision in precisions:
        folder = scratch / f"{student.name}-{precision}"
        folder.mkdir()
        ctranslate2.convert(student, folder, precision)
        bundle = about.model_copy(update={"format": "ctranslate2", "precision": precision})
        engine = open_engine(folder, bundle, threads=1)
        found[f"CTranslate2 {precision}"] = engine
    return found


def questions(n: int, middle: int, seed: int) -> list[Question]:
    """Questions, each with four answers of one to four tokens that all begin differently.

    Their lengths are normal: `middle`, a quarter of it either side, and half of it to twice as many at most.
    """
    draw = Random(seed)
    found = []
    for _ in range(n):
        length = round(min(2 * middle, max(middle / 2, draw.gauss(middle, middle / 4))))
        source = (*draw.choices(range(SPECIAL, VOCABULARY), k=length - 1), 1)
        begins = draw.sample(range(SPECIAL, VOCABULARY), 4)
        rests = [tuple(draw.choices(range(SPECIAL, VOCABULARY), k=k)) for k in range(4)]
        targets = tuple((begin, *rest, 1) for begin, rest in zip(begins, rests, strict=True))
        found.append(Question(Prompt(source), targets))
    return found

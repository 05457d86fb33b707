"""The engines that run a student: ids in, log-probabilities and ids out, each for one format of weights."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from stepdistill.deploy.bundle import Bundle


@dataclass(frozen=True, slots=True)
class Prompt:
    """What a student reads: `source` (an encoder-decoder's encoder, a causal model's input), then `opening`.

    Both are ids as in training: an encoder's source ends as its tokenizer ends it; the opening is the
    marker that stands before the target, empty where it stands in the source.
    """

    source: tuple[int, ...]
    opening: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Question:
    """A prompt and the closed set of its answers; each target ends with the id of end of sequence."""

    prompt: Prompt
    targets: tuple[tuple[int, ...], ...]


class Engine(Protocol):
    """A loaded model. Safe to be used by one thread at a time; one batch is one call."""

    @property
    def computes(self) -> str:
        """The type of number that it multiplies in, such as float32 or int8."""
        ...

    def first(self, questions: Sequence[Question]) -> list[list[float]]:
        """log p(first token of each target | prompt) in nats, over the whole vocabulary: one step."""
        ...

    def spell(self, questions: Sequence[Question]) -> list[list[list[float]]]:
        """log p of every token of every target, teacher-forced, in nats: (questions, targets, tokens)."""
        ...

    def write(self, prompts: Sequence[Prompt], new_tokens: int, stop: str | None = None) -> list[list[int]]:
        """Greedy ids behind each prompt, without end of sequence; may end once `stop` is written."""
        ...


ENGINES = {
    "huggingface": "stepdistill.deploy.engines.torch",
    "ctranslate2": "stepdistill.deploy.engines.ctranslate2",
    "onnx": "stepdistill.deploy.engines.onnx",
    "gguf": "stepdistill.deploy.engines.llama",
}
"""The module of each format. Each has `open_engine(folder, bundle, threads=None) -> Engine`."""


def open_engine(folder: Path, bundle: Bundle, threads: int | None = None) -> Engine:
    """The engine for a bundle's format, loaded; `threads` None: as the library chooses.

    A student's own folder is opened too, with the manifest that `bundle.of_student` makes of it.

    Raises:
        MissingExtraError: the format's library is not installed.
        StudentError: the files cannot be loaded.
    """
    module = importlib.import_module(ENGINES[bundle.format])
    engine: Engine = module.open_engine(folder, bundle, threads)
    return engine

"""A student run by CTranslate2, without torch: encoder-decoders as `Translator`, others as `Generator`."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stepdistill.deploy.bundle import Bundle
from stepdistill.deploy.engines import Engine, Prompt, Question
from stepdistill.deploy.engines.rows import rows_at_once
from stepdistill.deploy.engines.words import Words, read_words
from stepdistill.errors import MissingExtraError, StudentError, unknown

OLDEST = (4, 8, 5)
"""The first version whose loader of model files withstands damaged ones."""
_COMPUTES = {"float32": "float32", "bfloat16": "bfloat16", "int8": "int8"}
"""What an export of each precision is to be computed in."""
_ROWS = 16
"""Rows of one call where a question has many; more of them need memory and save no time."""


def open_engine(folder: Path, bundle: Bundle, threads: int | None = None) -> Engine:
    """The student of a bundle in CTranslate2's format, on the CPU.

    It computes in the precision of the export, but a bfloat16 export in float32 where the CPU does not
    multiply bfloat16 itself; `Engine.computes` says in what.

    Raises:
        MissingExtraError: the library is not installed.
        StudentError: the library is too old, or the files cannot be loaded.
    """
    library = _library()
    if bundle.precision not in _COMPUTES:
        raise StudentError(f"{folder}: " + unknown("precision", bundle.precision, _COMPUTES))
    computes = _COMPUTES[bundle.precision]
    if computes == "bfloat16" and computes not in library.get_supported_compute_types("cpu"):
        computes = "float32"
    words = read_words(folder, bundle.tokens)
    paired = bundle.card["family"] == "encoder-decoder"
    kind = library.Translator if paired else library.Generator
    with _told(f"{folder}: cannot be loaded by CTranslate2", "export again"):
        model = kind(
            str(folder),
            device="cpu",
            compute_type=computes,
            inter_threads=1,
            intra_threads=threads or 0,
        )
    return PairEngine(model, words) if paired else CausalEngine(model, words)


@dataclass(frozen=True)
class _Loaded:
    """A model of the library, and its vocabulary."""

    model: Any
    words: Words

    @property
    def computes(self) -> str:
        """As `Engine.computes`."""
        return str(self.model.compute_type)


@dataclass(frozen=True)
class PairEngine(_Loaded):
    """An `Engine` for encoder-decoders."""

    def first(self, questions: Sequence[Question]) -> list[list[float]]:
        """As `Engine.first`: one reading by the encoder, and a step of the decoder behind the opening."""
        found: dict[int, list[float]] = {}
        for places in _groups(questions, lambda question: len(question.prompt.opening)):
            chosen = [questions[place] for place in places]
            prompts = [question.prompt for question in chosen]
            for place, question, result in zip(places, chosen, self._translate(prompts, 1), strict=True):
                spread = _log_softmax(result.logits[0][len(question.prompt.opening)])
                found[place] = [float(spread[target[0]]) for target in question.targets]
        return [found[place] for place in range(len(questions))]

    def spell(self, questions: Sequence[Question]) -> list[list[list[float]]]:
        """As `Engine.spell`; the library reads a prompt once for each of its targets."""
        pairs = [(question.prompt, target) for question in questions for target in question.targets]
        if not pairs:
            return [[] for _ in questions]
        # The library adds the end of sequence itself.
        with _asked():
            results = self.model.score_batch(
                [self.words.of(prompt.source) for prompt, _ in pairs],
                [self.words.of([*prompt.opening, *target[:-1]]) for prompt, target in pairs],
                max_batch_size=rows_at_once(max(len(prompt.source) for prompt, _ in pairs), _ROWS),
                max_input_length=0,
            )
        tokens = iter(results)
        return [
            [list(next(tokens).log_probs[len(question.prompt.opening) :]) for _ in question.targets]
            for question in questions
        ]

    def write(self, prompts: Sequence[Prompt], new_tokens: int, stop: str | None = None) -> list[list[int]]:
        """As `Engine.write`."""
        found: dict[int, list[int]] = {}
        for places in _groups(prompts, lambda prompt: len(prompt.opening)):
            chosen = [prompts[place] for place in places]
            for place, result in zip(places, self._translate(chosen, new_tokens, stop), strict=True):
                ids = [self.words.ids[word] for word in result.hypotheses[0]]
                found[place] = ids[len(prompts[place].opening) :]
        return [found[place] for place in range(len(prompts))]

    def _translate(self, prompts: Sequence[Prompt], new_tokens: int, stop: str | None = None) -> Any:
        """The library's results for prompts whose openings have one length; logits for a single token."""
        opening = len(prompts[0].opening)
        with _asked():
            return self.model.translate_batch(
                [self.words.of(prompt.source) for prompt in prompts],
                target_prefix=[self.words.of(prompt.opening) for prompt in prompts] if opening else None,
                beam_size=1,
                max_decoding_length=opening + new_tokens,
                # By default an answer cannot be empty, and inputs are cut.
                min_decoding_length=0,
                max_input_length=0,
                end_token=[self.words.tokens.eos],
                return_logits_vocab=new_tokens == 1 and stop is None,
                callback=self.words.watch(stop),
            )


@dataclass(frozen=True)
class CausalEngine(_Loaded):
    """An `Engine` for models that read and write in one."""

    def first(self, questions: Sequence[Question]) -> list[list[float]]:
        """As `Engine.first`."""
        found: dict[int, list[float]] = {}
        # Of prompts of several lengths the library's first step is that behind the shortest.
        for places in _groups(questions, lambda question: len(_prompt(question.prompt))):
            starts = [_prompt(questions[place].prompt) for place in places]
            results = self._generate(starts, max_length=1, return_logits_vocab=True)
            for place, result in zip(places, results, strict=True):
                spread = _log_softmax(result.logits[0][0])
                found[place] = [float(spread[target[0]]) for target in questions[place].targets]
        return [found[place] for place in range(len(questions))]

    def spell(self, questions: Sequence[Question]) -> list[list[list[float]]]:
        """As `Engine.spell`; a prompt is read once, and behind it all its targets in one batch."""
        return [self._spell(question) for question in questions]

    def _spell(self, question: Question) -> list[list[float]]:
        # The library gives no numbers for what follows the shared part itself: its last id is repeated.
        *shared, last = _prompt(question.prompt)
        spelled: list[list[float]] = []
        for begin in range(0, len(question.targets), _ROWS):
            targets = question.targets[begin : begin + _ROWS]
            results = self._generate(
                [[last, *target[:-1]] for target in targets],
                static_prompt=self.words.of(shared) or None,
                include_prompt_in_result=True,
                max_length=max(map(len, targets)),
                return_logits_vocab=True,
            )
            for target, result in zip(targets, results, strict=True):
                steps = zip(target, result.logits[0], strict=False)
                spelled.append([float(_log_softmax(logits)[id_]) for id_, logits in steps])
        return spelled

    def write(self, prompts: Sequence[Prompt], new_tokens: int, stop: str | None = None) -> list[list[int]]:
        """As `Engine.write`."""
        starts = [_prompt(prompt) for prompt in prompts]
        found: dict[int, list[int]] = {}
        # What is longer than the shortest of a batch would be read token by token: in int8, and where two
        # answers are close, one would depend on who else asks.
        for places in _groups(starts, len):
            results = self._generate(
                [starts[place] for place in places],
                max_length=new_tokens,
                callback=self.words.watch(stop),
            )
            found.update((place, r.sequences_ids[0]) for place, r in zip(places, results, strict=True))
        return [found[place] for place in range(len(prompts))]

    def _generate(self, starts: Sequence[Sequence[int]], **options: Any) -> Any:
        with _asked():
            return self.model.generate_batch(
                [self.words.of(start) for start in starts],
                beam_size=1,
                end_token=[self.words.tokens.eos],
                # States of prompts that never come again would fill the memory.
                cache_static_prompt=False,
                **{"include_prompt_in_result": False, **options},
            )


def _prompt(prompt: Prompt) -> tuple[int, ...]:
    return (*prompt.source, *prompt.opening)


def _groups(given: Sequence[Any], length: Callable[[Any], int]) -> Iterator[list[int]]:
    """Places of what has the same length, the shortest first."""
    lengths = [length(one) for one in given]
    return ([i for i, n in enumerate(lengths) if n == here] for here in sorted(set(lengths)))


def _log_softmax(logits: Any) -> np.ndarray[Any, Any]:
    row = np.asarray(logits, dtype=np.float64).ravel()
    shifted = row - row.max()
    return np.asarray(shifted - np.log(np.exp(shifted).sum()))


def _library() -> Any:
    try:
        import ctranslate2
    except ImportError:
        raise MissingExtraError("a ctranslate2 bundle", "ctranslate2") from None
    version = str(ctranslate2.__version__)
    if tuple(map(int, re.findall(r"\d+", version)[:3])) < OLDEST:
        raise StudentError(
            f"ctranslate2 {version} is installed, whose loader is crashed by damaged files; install "
            f"{'.'.join(map(str, OLDEST))} or later: pip install --upgrade ctranslate2"
        )
    return ctranslate2


@contextlib.contextmanager
def _told(what: str, remedy: str) -> Iterator[None]:
    """Errors of the library in one line of ours."""
    try:
        yield
    except MemoryError:
        raise StudentError(f"{what}: not enough memory; free memory, or take a smaller student") from None
    except (RuntimeError, ValueError) as error:
        line = " ".join(str(error).split())
        raise StudentError(f"{what} ({line}); {remedy}") from None


def _asked() -> contextlib.AbstractContextManager[None]:
    return _told("CTranslate2 cannot answer this", "shorten the text, or export again")

"""Runs an ONNX student by onnxruntime, without torch; nothing is kept from one step to the next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stepdistill.deploy.bundle import Bundle
from stepdistill.deploy.engines import Prompt, Question
from stepdistill.errors import MissingExtraError, StudentError

ENCODER, DECODER, CAUSAL = "encoder.onnx", "decoder.onnx", "model.onnx"
"""The files of a bundle: the first two of an encoder-decoder, the last of a causal student."""

TOKENIZER = "tokenizer.json"
_ROWS = 32
"""Rows of one call; more of them need memory and save no time."""

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class Row:
    """What is read in one row: the prompt at `place`, behind it `given`; numbers for the `last` positions."""

    place: int
    given: tuple[int, ...] = ()
    last: int = 1


def open_engine(folder: Path, bundle: Bundle, threads: int | None = None) -> Onnx:
    """The engine of an `onnx` bundle, on the CPU; `threads` None: as onnxruntime chooses.

    Raises:
        MissingExtraError: onnxruntime is not installed.
        StudentError: the files cannot be loaded.
    """
    return Onnx(folder, bundle, threads)


class Onnx:
    """A loaded student; safe to be used by one thread at a time.

    The decoder, or the causal model, reads all that stands before a token anew for that token: an answer of a
    few tokens is quick, a rationale of a hundred is slow.
    """

    def __init__(self, folder: Path, bundle: Bundle, threads: int | None) -> None:
        """Load the files of `folder`."""
        try:
            import onnxruntime
        except ImportError:
            raise MissingExtraError("an onnx bundle", "onnx") from None
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = threads or 0, 3
        # One is kept for every shape, and texts have many.
        options.enable_mem_pattern = False
        self._folder, self._tokens = folder, bundle.tokens

        def load(name: str) -> Any:
            try:
                return onnxruntime.InferenceSession(
                    str(folder / name), options, providers=["CPUExecutionProvider"]
                )
            except Exception as error:  # noqa: BLE001 - the library raises plain exceptions of many kinds
                line = " ".join(str(error).split())
                raise StudentError(
                    f"{folder / name}: onnxruntime cannot load the file ({line}); export again"
                ) from None

        paired = bundle.card["family"] == "encoder-decoder"
        self._encoder = load(ENCODER) if paired else None
        self._decoder = load(DECODER if paired else CAUSAL)

    @property
    def computes(self) -> str:
        """As `Engine.computes`."""
        return "float32"

    def first(self, questions: Sequence[Question]) -> list[list[float]]:
        """As `Engine.first`: one step behind each prompt."""
        read = self._read([question.prompt for question in questions])
        found = self._log_probabilities(read, [Row(place) for place in range(len(questions))])
        return [
            [float(spread[0, target[0]]) for target in question.targets]
            for question, spread in zip(questions, found, strict=True)
        ]

    def spell(self, questions: Sequence[Question]) -> list[list[list[float]]]:
        """As `Engine.spell`: an encoder reads a prompt once for its targets, a causal model for each."""
        read = self._read([question.prompt for question in questions])
        asked = [(place, target) for place, q in enumerate(questions) for target in q.targets]
        rows = [Row(place, target[:-1], len(target)) for place, target in asked]
        spelled: list[list[list[float]]] = [[] for _ in questions]
        for (place, target), spread in zip(asked, self._log_probabilities(read, rows), strict=True):
            spelled[place].append([float(spread[i, token]) for i, token in enumerate(target)])
        return spelled

    def write(self, prompts: Sequence[Prompt], new_tokens: int, stop: str | None = None) -> list[list[int]]:
        """As `Engine.write`."""
        read, ended = self._read(prompts), self._watch(stop)
        written: list[list[int]] = [[] for _ in prompts]
        left = list(range(len(prompts)))
        for _ in range(new_tokens):
            rows = [Row(place, tuple(written[place])) for place in left]
            best = [int(logits[0].argmax()) for logits in self._logits(read, rows)]
            going = [place for place, token in zip(left, best, strict=True) if token != self._tokens.eos]
            for place, token in zip(left, best, strict=True):
                if token != self._tokens.eos:
                    written[place].append(token)
            left = [place for place in going if not ended(written[place])]
        return written

    def _watch(self, stop: str | None) -> Any:
        """Says whether ids have written `stop`."""
        if stop is None:
            return lambda ids: False
        from tokenizers import Tokenizer

        # A token has at least one byte.
        tokenizer, tail = Tokenizer.from_file(str(self._folder / TOKENIZER)), len(stop.encode()) + 1
        return lambda ids: stop in tokenizer.decode(ids[-tail:], skip_special_tokens=False)

    def _read(self, prompts: Sequence[Prompt]) -> _Read:
        """What the decoder needs of prompts; an encoder reads them here, once."""
        begins = [self._begin(prompt) for prompt in prompts]
        if self._encoder is None or not prompts:
            return _Read(begins)
        ids, mask = _padded([list(prompt.source) for prompt in prompts], self._tokens.pad)
        [states] = self._encoder.run(None, {"input_ids": ids, "attention_mask": mask})
        return _Read(begins, states, mask)

    def _begin(self, prompt: Prompt) -> list[int]:
        if self._encoder is None:
            return [*prompt.source, *prompt.opening]
        start = self._tokens.pad if self._tokens.start is None else self._tokens.start
        return [start, *prompt.opening]

    def _log_probabilities(self, read: _Read, rows: Sequence[Row]) -> list[Array]:
        return [_log_softmax(logits) for logits in self._logits(read, rows)]

    def _logits(self, read: _Read, rows: Sequence[Row]) -> list[Array]:
        """Of the last positions of each row: (last, vocabulary)."""
        order = sorted(range(len(rows)), key=lambda i: len(read.begins[rows[i].place]) + len(rows[i].given))
        found: dict[int, Array] = {}
        for begin in range(0, len(order), _ROWS):
            chosen = order[begin : begin + _ROWS]
            made = self._call(read, [rows[i] for i in chosen])
            found.update((i, made[k, : rows[i].last]) for k, i in enumerate(chosen))
        return [found[i] for i in range(len(rows))]

    def _call(self, read: _Read, rows: Sequence[Row]) -> Array:
        given = [[*read.begins[row.place], *row.given] for row in rows]
        ids, _ = _padded(given, self._tokens.pad)
        wide = max(row.last for row in rows)
        # A row with fewer repeats its last position.
        places = [
            [min(len(row) - asked.last + i, len(row) - 1) for i in range(wide)]
            for row, asked in zip(given, rows, strict=True)
        ]
        fed: dict[str, Array] = {"places": np.array(places, dtype=np.int64)}
        if self._encoder is None:
            fed["input_ids"] = ids
        else:
            which = [row.place for row in rows]
            fed |= {"decoder_input_ids": ids, "encoder_hidden_states": read.states[which]}
            fed["encoder_attention_mask"] = read.mask[which]
        [logits] = self._decoder.run(["logits"], fed)
        return np.asarray(logits)


@dataclass(frozen=True, slots=True)
class _Read:
    """Prompts: the ids that the decoder begins with, and an encoder's states, right-padded."""

    begins: list[list[int]]
    states: Any = None
    mask: Any = None


def _padded(rows: Sequence[Sequence[int]], pad: int) -> tuple[Array, Array]:
    """Ids filled up behind, where neither a decoder nor a causal model looks, and the mask."""
    wide = max(map(len, rows))
    ids = [[*row, *[pad] * (wide - len(row))] for row in rows]
    mask = [[1] * len(row) + [0] * (wide - len(row)) for row in rows]
    return np.array(ids, dtype=np.int64), np.array(mask, dtype=np.int64)


def _log_softmax(logits: Array) -> Array:
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True)))

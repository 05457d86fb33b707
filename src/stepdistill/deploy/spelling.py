"""Text to ids and back with the `tokenizers` library alone: what training's encoder gives, to the id."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stepdistill.deploy.bundle import Tokens
from stepdistill.errors import StudentError
from stepdistill.records import TaskName
from stepdistill.student.encode import Encoder, Prefix
from stepdistill.weights import Family

TOKENIZER = "tokenizer.json"


@dataclass(frozen=True)
class Spelling:
    """How a student reads and writes. Safe to be used by several threads.

    `tokenizer` is called and decodes as those of transformers do: it is one, or stands in for one.
    """

    tokenizer: Any
    family: Family
    prefix: Prefix

    @property
    def encoder(self) -> Encoder:
        """Training's own encoder: what stands where is said in one place."""
        return Encoder(self.tokenizer, self.family, self.prefix)

    def source(self, text: str, task: TaskName = "label") -> tuple[int, ...]:
        """Ids of an input, as in training."""
        return tuple(self.encoder.source(text, task))

    def opening(self, task: TaskName = "label") -> tuple[int, ...]:
        """Ids of the marker between input and target; none where it stands in the input."""
        return tuple(self.encoder.opening(task))

    def target(self, text: str) -> tuple[int, ...]:
        """Ids of an answer, ending with end of sequence."""
        return tuple(self.encoder.target(text))

    def text(self, ids: Sequence[int]) -> str:
        """The words that ids stand for, without special tokens and without white space around them."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True)).strip()


def read_spelling(folder: Path, family: Family, prefix: Prefix, tokens: Tokens) -> Spelling:
    """The spelling of a folder that has a `tokenizer.json`.

    Raises:
        StudentError: the file cannot be read.
    """
    return Spelling(_Tokenizer(folder / TOKENIZER, tokens), family, prefix)


class _Tokenizer:
    """The part of transformers' interface that `Encoder` and `Spelling` use."""

    def __init__(self, path: Path, tokens: Tokens) -> None:
        from tokenizers import Tokenizer

        try:
            self._inner = Tokenizer.from_file(str(path))
        except Exception as error:  # noqa: BLE001 - the library raises plain exceptions
            line = " ".join(str(error).split())
            raise StudentError(f"{path}: cannot be read as a tokenizer ({line}); export again") from None
        # Transformers puts both aside in each call; a file may bring a limit that would cut texts.
        self._inner.no_truncation()
        self._inner.no_padding()
        self.eos_token_id, self._tidy = tokens.eos, tokens.tidy

    def __call__(self, text: str, add_special_tokens: bool = True) -> dict[str, list[int]]:
        return {"input_ids": self._inner.encode(text, add_special_tokens=add_special_tokens).ids}

    def decode(self, ids: list[int], skip_special_tokens: bool = False) -> str:
        text = self._inner.decode(ids, skip_special_tokens=skip_special_tokens)
        return _tidied(text) if self._tidy else text


def _tidied(text: str) -> str:
    """As `clean_up_tokenization` of transformers."""
    for sign in (" .", " ?", " !", " ,"):
        text = text.replace(sign, sign[1])
    text = text.replace(" ' ", "'")
    for ending in (" n't", " 'm", " 's", " 've", " 're"):
        text = text.replace(ending, ending[1:])
    return text

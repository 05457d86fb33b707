"""The vocabulary of CTranslate2, which takes tokens by their strings."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stepdistill.deploy.bundle import Tokens
from stepdistill.deploy.spelling import TOKENIZER
from stepdistill.errors import StudentError
from stepdistill.files import read_object, read_text

_VOCABULARIES = ("shared_vocabulary.json", "vocabulary.json")


@dataclass(frozen=True)
class Words:
    """Ids as the strings that the library takes, and back: by its own vocabulary file, which is in order.

    A tokenizer's strings are not asked: it may name an added token otherwise.
    """

    strings: tuple[str, ...]
    ids: dict[str, int]
    tokens: Tokens
    tokenizer: Path

    def of(self, ids: Sequence[int]) -> list[str]:
        """The strings of ids."""
        return [self.strings[id_] for id_ in ids]

    def watch(self, stop: str | None) -> Callable[[Any], bool] | None:
        """Told of every token that is written; says which rows have written `stop`."""
        if stop is None:
            return None
        from tokenizers import Tokenizer

        # A token has at least one byte.
        tokenizer, tail = Tokenizer.from_file(str(self.tokenizer)), len(stop.encode()) + 1
        rows: dict[int, list[int]] = {}

        def ended(step: Any) -> bool:
            written = rows.setdefault(step.batch_id, [])
            written.append(step.token_id)
            return stop in tokenizer.decode(written[-tail:], skip_special_tokens=False)

        return ended


def read_words(folder: Path, tokens: Tokens) -> Words:
    """The vocabulary of a converted model.

    Raises:
        StudentError: a token is missing that the library needs, or the vocabulary is none.
    """
    settings = read_object(folder / "config.json")
    # The library itself dies of these, as of a missing start token, with words about JSON types.
    for name in ("bos_token", "eos_token", "unk_token", "decoder_start_token"):
        if not isinstance(settings.get(name, ""), str):
            raise StudentError(
                f"{folder / 'config.json'}: `{name}` is no token, which CTranslate2 needs; export again"
            )
    path = next((folder / name for name in _VOCABULARIES if (folder / name).is_file()), None)
    if path is None:
        raise StudentError(f"{folder}: has no {' or '.join(_VOCABULARIES)}; export again")
    try:
        strings = json.loads(read_text(path))
    except ValueError:
        strings = None
    if not isinstance(strings, list) or not all(isinstance(word, str) for word in strings):
        raise StudentError(f"{path}: a list of tokens is expected; export again")
    ids = {word: id_ for id_, word in enumerate(strings)}
    if len(ids) < len(strings):
        raise StudentError(f"{path}: two tokens have one name, and could not be told apart; export again")
    return Words(tuple(strings), ids, tokens, folder / TOKENIZER)

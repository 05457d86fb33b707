"""A student in CTranslate2's format, which answers on a CPU several times as fast, and without torch."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stepdistill import weights
from stepdistill.deploy.spelling import TOKENIZER
from stepdistill.errors import ConfigError, MissingExtraError, StudentError, unknown
from stepdistill.files import read_object, writing

PRECISIONS = ("int8", "bfloat16", "float32")
"""The default first: eight bits are what one exports to this format for."""
TAKES = ("t5", "mt5", "umt5", "llama", "mistral", "qwen2", "qwen3", "gemma", "gpt2")
"""Types of models whose numbers were seen to be the same before and after; the library's table has more, of
which some end in errors with the transformers of today, and some give other numbers."""
_HALVES = ("llama",)
"""Types for which the converter takes the width of a head to be the width of the model by the heads."""


def check(student_folder: Path, precision: str) -> None:
    """Say, before anything is converted, what cannot be.

    Raises:
        MissingExtraError: the library is not installed.
        ConfigError: no such precision.
        StudentError: a model that the library's converter does not take, or would get wrong.
    """
    if importlib.util.find_spec("ctranslate2") is None:
        raise MissingExtraError("export as ctranslate2", "ctranslate2")
    if precision not in PRECISIONS:
        raise ConfigError(unknown("precision of ctranslate2", precision, PRECISIONS))
    config = read_object(student_folder / "config.json")
    if wrong := _wrong(config):
        raise StudentError(
            f"{student_folder}: as ctranslate2 this student cannot be exported: it {wrong}; choose "
            "huggingface"
        )


def convert(student_folder: Path, draft: Path, precision: str) -> None:
    """Write the model, its vocabulary and the tokenizer into the folder `draft`.

    Raises:
        StudentError: the library cannot convert it.
        RunFolderError: it cannot be written.
    """
    weights.be_quiet()
    found = _converted(student_folder)
    found.validate()
    found.optimize(quantization=precision)
    with writing(draft):
        found.save(str(draft))
        shutil.copyfile(student_folder / TOKENIZER, draft / TOKENIZER)


def _wrong(config: Mapping[str, Any]) -> str:
    """What the converter cannot take of a model; nothing where it takes all."""
    from ctranslate2.converters import transformers as library

    kind, rope = str(config["model_type"]), config.get("rope_parameters") or {}
    if kind not in TAKES:
        return f"is of type {kind}, and these are converted: {', '.join(TAKES)}"
    known = ("default", *library._SUPPORTED_ROPE_SCALING)
    if (scaling := rope.get("rope_type", "default")) not in known:
        return f"scales its positions by '{scaling}', and these ways are known: {', '.join(known)}"
    heads = config.get("num_attention_heads", 1)
    width = config.get("head_dim") or config.get("hidden_size", 0) // heads
    if kind in _HALVES and width * heads != config.get("hidden_size"):
        return f"has heads of {width} that do not add up to its width of {config['hidden_size']}"
    if kind in _HALVES and config.get("hidden_act", "silu") != "silu":
        return f"has the activation {config['hidden_act']}, and silu is computed for its type"
    return ""


def _converted(folder: Path) -> Any:
    """The library's specification of a student's model, weights included."""
    from ctranslate2.converters import TransformersConverter
    from ctranslate2.specs.model_spec import OPTIONAL
    from transformers import AutoConfig

    tokenizer, _ = weights.read_tokenizer(str(folder), "student.model")
    config = AutoConfig.from_pretrained(str(folder))

    class Named(TransformersConverter):  # type: ignore[misc]
        """The library's converter, given a vocabulary that fits the model's embedding."""

        def load_tokenizer(self, *_: Any, **__: Any) -> Any:
            return _Vocabulary(tokenizer, config.vocab_size)

    try:
        found = Named(str(folder))._load()
    except (AttributeError, KeyError, RuntimeError, ValueError) as error:
        line = " ".join(str(error).split())
        raise StudentError(
            f"{folder}: CTranslate2's converter does not take this model ({type(error).__name__}: {line}); "
            "choose huggingface"
        ) from None
    if config.model_type in ("t5", "mt5"):
        # The library asks whether embeddings are tied, which today's transformers always says; T5 1.1 and mT5
        # would be sure of the wrong things.
        scales = getattr(config, "scale_decoder_outputs", False)
        found.decoder.scale_outputs = config.d_model**-0.5 if scales else OPTIONAL
    return found


class _Vocabulary:
    """A tokenizer as the converter is to see it: one name for each row of the embedding, none twice.

    An embedding is often larger than its tokenizer, and sometimes smaller. Tokens without which the library
    does not start, and which not every tokenizer has, are the end of sequence; none of them is ever written
    or read for it.
    """

    def __init__(self, tokenizer: Any, size: int) -> None:
        self._tokenizer, self._size = tokenizer, size
        known = self.get_vocab()
        self.eos_token = self.pad_token = str(tokenizer.eos_token)
        self.bos_token = tokenizer.bos_token if tokenizer.bos_token in known else self.eos_token
        self.unk_token = tokenizer.unk_token if tokenizer.unk_token in known else self.eos_token
        if tokenizer.pad_token in known:
            self.pad_token = tokenizer.pad_token

    def get_vocab(self) -> dict[str, int]:
        """All names, by their ids from 0 on."""
        names = {place: name for name, place in self._tokenizer.get_vocab().items()}
        taken = set(names.values())
        found = {}
        for place in range(self._size):
            name = names.get(place, f"<unused_{place}>")
            while place not in names and name in taken:
                name = f"<{name}>"
            found[name] = place
        return found

    def convert_ids_to_tokens(self, place: int) -> str:
        """The name of an id."""
        return str(self._tokenizer.convert_ids_to_tokens(place))

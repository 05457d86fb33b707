"""The formats that a student is exported to, and what each of them has to be able to do."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Protocol

from stepdistill.deploy.bundle import Format
from stepdistill.deploy.spelling import TOKENIZER
from stepdistill.errors import ConfigError, StudentError, unknown
from stepdistill.files import read_object

FORMATS: dict[Format, str] = {
    "huggingface": "stepdistill.deploy.export.huggingface",
    "ctranslate2": "stepdistill.deploy.export.ctranslate2",
    "onnx": "stepdistill.deploy.export.onnx",
    "gguf": "stepdistill.deploy.export.gguf",
}
_ADAPTER = "adapter_model.safetensors"


class Converter(Protocol):
    """A module of `FORMATS`."""

    PRECISIONS: tuple[str, ...]
    """What the weights can be written in; the first is the default."""

    def check(self, student_folder: Path, precision: str) -> None:
        """Say, before anything is converted, what cannot be.

        Raises:
            MissingExtraError, ConfigError, StudentError: in one line.
        """
        ...

    def convert(self, student_folder: Path, draft: Path, precision: str) -> None:
        """Write the format's own files to the top of the folder `draft`, which is there.

        Raises:
            StudentError, RunFolderError: in one line.
        """
        ...


def find_format(name: str) -> tuple[Format, Converter]:
    """The format of this name, and its module.

    Raises:
        ConfigError: there is none.
    """
    for known, module in FORMATS.items():
        if name == known:
            found: Converter = importlib.import_module(module)
            return known, found
    raise ConfigError(f"--format: {unknown('format', name, FORMATS)}")


def check_student(folder: Path) -> None:
    """Refuse a student whose folder lacks what every bundle has.

    Raises:
        StudentError: no whole model, or no tokenizer that can be asked without transformers.
    """
    if (folder / _ADAPTER).exists():
        raise StudentError(f"{folder}: holds an adapter that is not merged into its model; train again")
    if not any(folder.glob("*.safetensors")):
        raise StudentError(
            f"{folder}: no weights are there (a study may have dropped them: --keep-students); train again"
        )
    if not (folder / TOKENIZER).exists():
        kind = read_object(folder / "tokenizer_config.json").get("tokenizer_class", "unknown")
        raise StudentError(
            f"{folder}: its tokenizer ({kind}) is written in Python and has no {TOKENIZER}, by which an "
            "export is asked; take a student with a fast tokenizer"
        )


def size_of(folder: Path) -> int:
    """Bytes of what of a student's folder is needed to ask it: weights, configuration, tokenizer."""
    notes = ("log.json", "seconds.json")
    kinds = (".safetensors", ".json")
    found = (path for path in folder.iterdir() if path.suffix in kinds and path.name not in notes)
    return sum(path.stat().st_size for path in found)

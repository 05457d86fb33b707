"""A bundle: an exported student's folder, and the manifest with what it is and the digests of its files."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import Field

import stepdistill
from stepdistill.config.strict import Model, check
from stepdistill.errors import RunFolderError, brief
from stepdistill.files import parse_object, read_object, read_text, reading, write_json

MANIFEST = "bundle.json"
CARD = "README.md"
"""The model card; the only file that may be edited after the export."""
VERSION: Final = 1
_LARGEST = 1 << 24
"""Bytes of a manifest; what is larger is no manifest, and is not read into memory."""
_REMEDY = "copy the bundle anew, or export again"

Format = Literal["huggingface", "ctranslate2", "onnx", "gguf"]
Readout = Literal["first", "sum", "mean"]
"""How a closed set is scored: by the first token (what follows counts only among labels that share it), by
the sum of the log-probabilities of all tokens, or by their mean."""


class Tokens(Model):
    """What a tokenizer file does not say: ids that an engine needs, and how words are tidied.

    `start` begins a decoder's output. `tidy`: spaces before punctuation go, as transformers has it for
    tokenizers that say `clean_up_tokenization_spaces`.
    """

    eos: int = Field(ge=0)
    pad: int = Field(ge=0)
    start: int | None = Field(default=None, ge=0)
    tidy: bool = False


class File(Model):
    """What a file of the bundle was when it was proven; `size` in bytes."""

    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    size: int = Field(ge=0)


class Settings(Model):
    """How answers are made of the model's numbers; chosen on validation, never on test."""

    readout: Readout | None = None
    temperature: float = Field(default=1.0, gt=0)
    threshold: float | None = Field(default=None, ge=0, le=1)


class Bundle(Model):
    """The manifest `bundle.json`. `card` is the student's own card (`student.json`), as training wrote it.

    `positions` is how many tokens the model can place, None where it has no such limit (T5).
    """

    version: Literal[1] = VERSION
    format: Format
    precision: str
    card: Mapping[str, Any]
    tokens: Tokens
    positions: int | None = Field(default=None, ge=1)
    settings: Settings = Settings()
    teacher: Mapping[str, Any] | None = None
    stepdistill: str
    files: Mapping[str, File] = {}


def is_bundle(folder: Path) -> bool:
    """Whether the folder is an export."""
    return (folder / MANIFEST).is_file()


def read_bundle(folder: Path) -> Bundle:
    """The manifest of a bundle whose files are all there and are the ones that were proven.

    Nothing of a file is parsed before its digest was compared: loaders of weights have crashed on, and
    worse, obeyed hostile files.

    Raises:
        DataError: the manifest is not JSON.
        ConfigError: the manifest says something that is not allowed.
        RunFolderError: the manifest is a newer version's; a file is missing, was changed or cut, is not named
            in the manifest, or is a link.
    """
    bundle = _manifest(folder / MANIFEST)
    there = {name for name in _names(folder) if name not in (MANIFEST, CARD)}
    if missing := sorted(set(bundle.files) - there):
        raise RunFolderError(f"{folder / missing[0]}: the file is missing; {_REMEDY}")
    if strange := sorted(there - set(bundle.files)):
        raise RunFolderError(
            f"{folder / strange[0]}: the file is not of this bundle; remove it, or {_REMEDY}"
        )
    for name, was in bundle.files.items():
        if not _is(folder / name, was):
            raise RunFolderError(
                f"{folder / name}: is not the file that was exported (its SHA-256 or size differs); {_REMEDY}"
            )
    return bundle


def _manifest(path: Path) -> Bundle:
    if path.is_symlink() or (size := path.stat().st_size) > _LARGEST:
        what = "is a link" if path.is_symlink() else f"has {size} bytes"
        raise RunFolderError(f"{path}: {what} and so is no manifest; {_REMEDY}")
    values = parse_object(read_text(path), f"{path} ({_REMEDY})")
    version = values.get("version", VERSION)
    if type(version) is int and version > VERSION:
        raise RunFolderError(
            f"{path}: made by stepdistill {brief(values.get('stepdistill'))} as version {version}, and this "
            f"one reads version {VERSION}; upgrade: pip install --upgrade stepdistill"
        )
    return check(Bundle, values, str(path))


def _is(path: Path, was: File) -> bool:
    """Whether a file is the one that was exported; a link never is, and a device is not read."""
    plain = path.is_file() and not path.is_symlink()
    return plain and path.stat().st_size == was.size and digest_of(path) == was.sha256


def seal(folder: Path, bundle: Bundle) -> Bundle:
    """Write the manifest with the digests of all files that lie in the folder, and give it back.

    Raises:
        RunFolderError: a link or another thing that is no plain file lies there.
    """
    files = {}
    for name in (name for name in _names(folder) if name not in (MANIFEST, CARD)):
        path = folder / name
        if path.is_symlink() or not path.is_file():
            raise RunFolderError(f"{path}: a bundle has plain files only; copy what the link leads to")
        files[name] = File(sha256=digest_of(path), size=path.stat().st_size)
    sealed = bundle.model_copy(update={"files": files})
    write_json(folder / MANIFEST, sealed.model_dump(mode="json"))
    return sealed


def of_student(folder: Path, card: Mapping[str, Any]) -> Bundle:
    """What the manifest of a trained student's own folder would be; an export takes it over and adds to it.

    Raises:
        StudentError: the tokenizer cannot be loaded.
    """
    # Here, since an exported student is read without transformers.
    from transformers import AutoConfig

    from stepdistill.weights import read_tokenizer

    tokenizer, family = read_tokenizer(str(folder), "student.model")
    config = AutoConfig.from_pretrained(str(folder))
    start = None
    if family == "encoder-decoder":
        written = folder / "generation_config.json"
        start = read_object(written).get("decoder_start_token_id") if written.exists() else None
        start = getattr(config, "decoder_start_token_id", None) if start is None else start
    # Transformers itself passes over the setting for byte-pair tokenizers, whose words it would damage.
    inner = getattr(tokenizer, "backend_tokenizer", None)
    tidy = bool(getattr(tokenizer, "clean_up_tokenization_spaces", False)) and (
        type(getattr(inner, "model", None)).__name__ != "BPE"
    )
    return Bundle(
        format="huggingface",
        precision="float32",
        card=card,
        tokens=Tokens(eos=tokenizer.eos_token_id, pad=tokenizer.pad_token_id, start=start, tidy=tidy),
        positions=getattr(config, "max_position_embeddings", None),
        stepdistill=stepdistill.__version__,
    )


def digest_of(path: Path) -> str:
    """SHA-256 of a file, in hex, read in pieces."""
    with reading(path), path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _names(folder: Path) -> list[str]:
    """Every file and link below a folder; a link to a folder is one name, and is not followed."""
    found = []
    for place, folders, names in os.walk(folder, followlinks=False):
        links = [name for name in folders if (Path(place) / name).is_symlink()]
        found += [(Path(place) / name).relative_to(folder).as_posix() for name in [*names, *links]]
    return sorted(found)

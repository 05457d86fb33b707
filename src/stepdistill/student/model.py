"""A student: model, tokenizer and family, from scratch, a folder, the hub or a `.gguf` file."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedTokenizerBase,
    set_seed,
)
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_MASKED_LM_MAPPING_NAMES,
    MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,
)
from transformers.utils import logging as transformers_logging

from stepdistill.config import StudentConfig
from stepdistill.errors import ConfigError, StudentError
from stepdistill.files import digest_file
from stepdistill.student.encode import Family
from stepdistill.student.gguf import convert, in_package
from stepdistill.student.scratch import build

# Its bars and remarks would break our own progress display; warnings of ours are errors or counts.
transformers_logging.disable_progress_bar()
transformers_logging.set_verbosity_error()

SCRATCH = "scratch:"
PACKAGE = "package:"


@dataclass(frozen=True)
class Student:
    """A loaded model with what is needed to use it."""

    model: Any
    tokenizer: PreTrainedTokenizerBase
    family: Family

    @property
    def parameters(self) -> int:
        """Number of weights, tied ones counted once."""
        return sum(weight.numel() for weight in self.model.parameters())


def new_student(config: StudentConfig, seed: int, texts: Iterable[str]) -> Student:
    """The student before training; the same seed gives the same weights.

    Args:
        config: `student.model` is `scratch:`, a hub id, a local folder, a `.gguf` file, or
            `package:NAME/FILE.gguf` for a file of an installed package.
        seed: for weights that are drawn.
        texts: the task's training text, from which `scratch:` makes its tokenizer.

    Raises:
        StudentError: cannot be loaded, or neither encoder-decoder nor causal.
    """
    set_seed(seed)
    if config.model == SCRATCH:
        model, tokenizer = build(config.scratch, texts)
        return _greedy(Student(model, tokenizer, "encoder-decoder"))
    if config.model.startswith(SCRATCH):
        raise ConfigError(
            f"student.model: '{config.model}'; write 'scratch:' and give the sizes under student.scratch"
        )
    where, path = config.model, Path(config.model).expanduser()
    if where.startswith(PACKAGE):
        where = str(convert(in_package(where)))
    elif where.endswith(".gguf"):
        where = str(convert(path))
    elif path.is_dir():
        where = str(path)
    return load_student(where, config.trust_remote_code)


def weights_digests(config: StudentConfig) -> dict[str, str]:
    """Hashes of the files that a student starts from, by name; empty where they are not local files."""
    where = config.model
    if where.startswith(PACKAGE):
        return {"weights": digest_file(in_package(where))}
    path = Path(where).expanduser()
    files = sorted(path.glob("*.safetensors")) if path.is_dir() else [path] if path.is_file() else []
    return {f"weights {file.name}": digest_file(file) for file in files}


def load_student(where: str, trust_remote_code: bool = False) -> Student:
    """A student from a local folder or the hub; safetensors only, in float32.

    Raises:
        StudentError: cannot be loaded, or neither encoder-decoder nor causal.
    """
    options = {"trust_remote_code": trust_remote_code}
    try:
        family = _family(AutoConfig.from_pretrained(where, **options), where)
        tokenizer = AutoTokenizer.from_pretrained(where, **options)
        auto = AutoModelForCausalLM if family == "causal" else AutoModelForSeq2SeqLM
        # float32 even where the file has less: the optimizer loses small steps in bfloat16.
        model, loaded = auto.from_pretrained(
            where, dtype=torch.float32, use_safetensors=True, output_loading_info=True, **options
        )
    except StudentError:
        raise
    except Exception as error:  # noqa: BLE001 - damaged files provoke errors of every kind
        line = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise StudentError(
            f"student.model: '{where}' cannot be loaded ({line}); give `scratch:`, a hub id, a local "
            "folder with safetensors, or a .gguf file"
        ) from None
    if missing := sorted(loaded["missing_keys"]):
        raise StudentError(
            f"student.model: '{where}' cannot be loaded: {len(missing)} weights are missing, such as "
            f"{missing[0]}; they would be drawn at random. Get the whole model"
        )
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    if family == "encoder-decoder" and not hasattr(model, "prepare_decoder_input_ids_from_labels"):
        raise StudentError(
            f"student.model: '{where}' is an encoder-decoder ({model.config.model_type}) that does not say "
            "how its decoder's inputs are made of labels, so it cannot be trained here; choose T5, BART ..."
        )
    if tokenizer.eos_token_id is None:
        raise StudentError(f"student.model: '{where}' has a tokenizer without an end-of-text token")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return _greedy(Student(model, tokenizer, family))


def _greedy(student: Student) -> Student:
    """Replace the decoding settings that a model brings (sampling, penalties) by greedy decoding.

    Settings given to `generate` alone would be completed from the model's own.
    """
    student.model.generation_config = GenerationConfig(
        do_sample=False,
        num_beams=1,
        pad_token_id=student.tokenizer.pad_token_id,
        eos_token_id=student.tokenizer.eos_token_id,
        decoder_start_token_id=_decoder_start(student.model),
    )
    return student


def _decoder_start(model: Any) -> int | None:
    given: int | None = getattr(model.generation_config, "decoder_start_token_id", None)
    return given if given is not None else getattr(model.config, "decoder_start_token_id", None)


def _family(config: Any, where: str) -> Family:
    kind = config.model_type
    if kind in MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES and config.is_encoder_decoder:
        return "encoder-decoder"
    # Encoders such as BERT stand in the causal table too, since they can be run as decoders; trained
    # as encoders, they see the future and cannot write.
    encoder = kind in MODEL_FOR_MASKED_LM_MAPPING_NAMES and not getattr(config, "is_decoder", False)
    if kind in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES and not encoder:
        return "causal"
    raise StudentError(
        f"student.model: '{where}' is a {kind} model, neither encoder-decoder (T5, BART ...) nor causal "
        "(Llama, Qwen, SmolLM ...), so it cannot write rationales; choose one of those"
    )

"""A student: model, tokenizer and family, from scratch, a folder, the hub or a `.gguf` file."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from transformers import GenerationConfig, PreTrainedTokenizerBase, set_seed

from stepdistill import weights
from stepdistill.config import StudentConfig
from stepdistill.errors import ConfigError, StudentError
from stepdistill.student.encode import Encoder, Prefix
from stepdistill.student.scratch import build
from stepdistill.weights import Device, Family

weights.be_quiet()

SCRATCH = "scratch:"


@dataclass(frozen=True)
class Student:
    """A loaded model with what is needed to use it."""

    model: Any
    tokenizer: PreTrainedTokenizerBase
    family: Family
    prefix: Prefix = "encoder"

    @property
    def encoder(self) -> Encoder:
        """Text to ids, as this student reads it."""
        return Encoder(self.tokenizer, self.family, self.prefix)

    @property
    def parameters(self) -> int:
        """Number of weights, tied ones counted once."""
        return sum(weight.numel() for weight in self.model.parameters())


def new_student(config: StudentConfig, seed: int, texts: Iterable[str], device: Device = "auto") -> Student:
    """The student before training; the same seed gives the same weights.

    Args:
        config: `student.model` is `scratch:`, a hub id, a local folder, a `.gguf` file, or
            `package:NAME/FILE.gguf` for a file of an installed package.
        seed: for weights that are drawn.
        texts: the task's training text, from which `scratch:` makes its tokenizer.
        device: where stored weights are put.

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
    found = weights.find(config.model, "student.model")
    return load_student(found, config.trust_remote_code, device=device)


def weights_digests(config: StudentConfig) -> dict[str, str]:
    """Hashes of the files that a student starts from, by name; empty where they are not local files."""
    return weights.digests(config.model, "student.model")


def load_student(
    where: str, trust_remote_code: bool = False, prefix: Prefix = "encoder", device: Device = "auto"
) -> Student:
    """A student from a local folder or the hub; safetensors only, in float32.

    `prefix` says where it is told the task, as it was when it was trained; `device` where it is put.

    Raises:
        StudentError: cannot be loaded, does not fit into memory, or neither encoder-decoder nor causal.
    """
    try:
        # float32 even where the file has less: the optimizer loses small steps in bfloat16.
        found = weights.load(where, "student.model", torch.float32, trust_remote_code, device)
    except torch.OutOfMemoryError:
        raise StudentError(
            f"student.model: '{where}' does not fit into the GPU's memory; give train.device: cpu, or take a "
            "smaller one"
        ) from None
    if found.family == "encoder-decoder" and not hasattr(
        found.model, "prepare_decoder_input_ids_from_labels"
    ):
        kind = found.model.config.model_type
        raise StudentError(
            f"student.model: '{where}' is an encoder-decoder ({kind}) that does not say how its decoder's "
            "inputs are made of labels, so it cannot be trained here; choose T5, BART ..."
        )
    return _greedy(Student(found.model, found.tokenizer, found.family, prefix))


def _greedy(student: Student) -> Student:
    """Replace the decoding settings that a model brings (sampling, penalties) by greedy decoding.

    Settings given to `generate` alone would be completed from the model's own.
    """
    student.model.generation_config = GenerationConfig(
        do_sample=False,
        num_beams=1,
        pad_token_id=student.tokenizer.pad_token_id,
        eos_token_id=student.tokenizer.eos_token_id,
        decoder_start_token_id=weights.decoder_start(student.model),
    )
    return student

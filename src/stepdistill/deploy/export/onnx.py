"""A student as ONNX files, for onnxruntime and what else reads them: T5 and Llama types, in float32."""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from stepdistill.deploy.engines.onnx import CAUSAL, DECODER, ENCODER
from stepdistill.deploy.spelling import TOKENIZER
from stepdistill.errors import ConfigError, MissingExtraError, StudentError, unknown
from stepdistill.files import read_object, writing

PRECISIONS = ("float32",)

_NEED = ("onnx", "onnxruntime", "onnxscript")
_KINDS = {"t5": "encoder-decoder", "llama": "causal"}
"""Model types whose export was compared with the model itself."""
_LARGEST = 2_000_000_000
"""Bytes of a file; the format itself ends at two GiB."""


def check(student_folder: Path, precision: str) -> None:
    """Say, before anything is converted, what cannot be.

    Raises:
        MissingExtraError: a library is not installed.
        ConfigError: a precision other than float32.
        StudentError: neither of T5's nor of Llama's type, or too large for the format.
    """
    if not all(importlib.util.find_spec(name) for name in _NEED):
        raise MissingExtraError("export as onnx", "onnx")
    if precision == "int8":
        raise ConfigError(
            "onnx is float32 only, since its eight-bit T5 is slower than that; for int8 choose ctranslate2"
        )
    if precision not in PRECISIONS:
        raise ConfigError(unknown("precision of onnx", precision, PRECISIONS))
    kind = read_object(student_folder / "config.json")["model_type"]
    if kind not in _KINDS:
        raise StudentError(
            f"{student_folder}: as onnx this student cannot be exported: it is a {kind} model, and only "
            f"those of the types {', '.join(_KINDS)} are converted; choose huggingface"
        )
    size = sum(path.stat().st_size for path in student_folder.glob("*.safetensors"))
    if size > _LARGEST:
        raise StudentError(
            f"{student_folder}: as onnx this student cannot be exported: its weights have {size / 1e9:.1f} "
            "GB, and an ONNX file has 2 GB at most; choose ctranslate2"
        )


def convert(student_folder: Path, draft: Path, precision: str) -> None:
    """Write `encoder.onnx` and `decoder.onnx`, or for a causal student `model.onnx`, and the tokenizer.

    Any number of rows of any length may be asked. `places` says for which positions of a row logits are made,
    (rows, positions): those of all would fill the memory. There is no cache.

    Raises:
        StudentError: torch's exporter gives up.
        RunFolderError: a file cannot be written.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

    from stepdistill.weights import be_quiet

    be_quiet()
    kind = read_object(student_folder / "config.json")["model_type"]
    paired = _KINDS[kind] == "encoder-decoder"
    auto = AutoModelForSeq2SeqLM if paired else AutoModelForCausalLM
    # Eager attention: what the faster one does to T5's positions is more than the exporter can follow.
    model = auto.from_pretrained(
        student_folder, dtype=torch.float32, use_safetensors=True, attn_implementation="eager"
    ).eval()
    with torch.no_grad(), _silence():
        for name, part, given, output in _pair(model) if paired else _causal(model):
            _write(draft / name, part, given, output)
    with writing(draft):
        shutil.copyfile(student_folder / TOKENIZER, draft / TOKENIZER)


def _pair(model: Any) -> Iterator[tuple[str, Any, dict[str, Any], str]]:
    """Name of the file, the part of the model, examples of its inputs, and the name of its output."""
    import torch
    from transformers.modeling_outputs import BaseModelOutput

    class Encoder(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = model.get_encoder()

        def forward(self, input_ids: Any, attention_mask: Any) -> Any:
            return self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state

    class Decoder(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(
            self,
            decoder_input_ids: Any,
            encoder_hidden_states: Any,
            encoder_attention_mask: Any,
            places: Any,
        ) -> Any:
            with _only(self.model, places):
                return self.model(
                    decoder_input_ids=decoder_input_ids,
                    encoder_outputs=BaseModelOutput(last_hidden_state=encoder_hidden_states),
                    attention_mask=encoder_attention_mask,
                    use_cache=False,
                ).logits

    # Sizes that are 0 or 1, or equal by chance, would be taken for laws.
    ids, mask = torch.full((2, 7), 3), torch.ones(2, 7, dtype=torch.long)
    yield ENCODER, Encoder(), {"input_ids": ids, "attention_mask": mask}, "encoder_hidden_states"
    given = {"decoder_input_ids": torch.full((2, 5), 3)}
    given["encoder_hidden_states"] = torch.zeros(2, 7, model.config.d_model)
    given |= {"encoder_attention_mask": mask, "places": torch.tensor([[0, 1, 2], [2, 3, 4]])}
    yield DECODER, Decoder(), given, "logits"


def _causal(model: Any) -> Iterator[tuple[str, Any, dict[str, Any], str]]:
    """As `_pair`; rows are filled up behind, where no earlier position looks, and so need no mask."""
    import torch

    class Causal(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, input_ids: Any, places: Any) -> Any:
            with _only(self.model, places):
                return self.model(input_ids=input_ids, use_cache=False).logits

    given = {"input_ids": torch.full((2, 7), 3), "places": torch.tensor([[0, 1, 2], [2, 3, 4]])}
    yield CAUSAL, Causal(), given, "logits"


@contextlib.contextmanager
def _only(model: Any, places: Any) -> Iterator[None]:
    """Inside, logits are made of these positions only; what a model does around its head stays as it is."""

    def pick(head: Any, given: tuple[Any, ...]) -> tuple[Any, ...]:
        width = given[0].shape[-1]
        return (given[0].gather(1, places[:, :, None].expand(-1, -1, width)),)

    hook = model.get_output_embeddings().register_forward_pre_hook(pick)
    try:
        yield
    finally:
        hook.remove()


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """No remarks of torch about itself, which nobody could mend; thousands are made where all are kept."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _write(path: Path, part: Any, given: dict[str, Any], output: str) -> None:
    import torch

    # Every input has rows, and then a length; the width of states stays.
    sizes = {name: {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC} for name in given}
    with writing(path):
        try:
            made = torch.onnx.export(
                part,
                kwargs=given,
                input_names=list(given),
                output_names=[output],
                dynamic_shapes=sizes,
                dynamo=True,
                verbose=False,
                external_data=False,
            )
        except torch.onnx.OnnxExporterError as error:
            line = next(iter(str(error).strip().splitlines()), "no reason given")
            raise StudentError(
                f"{path.name}: torch's exporter gives up ({line}); choose ctranslate2"
            ) from None
        assert made is not None
        made.save(path)

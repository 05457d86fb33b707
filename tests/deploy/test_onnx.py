"""A student as ONNX files: onnxruntime scores and writes as the trained model does, or it is refused."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    LlamaConfig,
    LlamaForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
)

from stepdistill.deploy.bundle import Bundle, Tokens
from stepdistill.deploy.engines import Prompt, Question, open_engine
from stepdistill.deploy.engines.onnx import CAUSAL, ENCODER, Onnx
from stepdistill.deploy.export import onnx
from stepdistill.errors import ConfigError, MissingExtraError, StudentError
from stepdistill.student.scratch import train_tokenizer

pytestmark = pytest.mark.skipif(
    not all(importlib.util.find_spec(name) for name in ("onnx", "onnxruntime", "onnxscript")),
    reason="the extra 'onnx' is not installed",
)
SIZES = {"vocab_size": 90, "num_heads": 4, "num_attention_heads": 4}
TARGETS = ((3, 4, 5, 1), (3, 1), (80, 9, 9, 9, 9, 1), (1,))
PROMPTS = [
    Prompt((5, 6, 7, 1)),
    Prompt((9, 1), opening=(11, 12)),
    Prompt(tuple(3 + i % 80 for i in range(300)), opening=(8,)),
]


def make_student(folder: Path, kind: str) -> Path:
    torch.manual_seed(0)
    if kind == "t5":
        ids = {"pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0}
        config = T5Config(
            d_model=32,
            d_kv=8,
            d_ff=48,
            num_layers=1,
            num_decoder_layers=2,
            initializer_factor=3.0,
            **SIZES,
            **ids,
        )
        T5ForConditionalGeneration(config).save_pretrained(folder)
    else:
        ids = {"pad_token_id": 0, "eos_token_id": 1}
        more = {
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_key_value_heads": 2,
            "num_hidden_layers": 1,
            "initializer_range": 0.3,
        }
        LlamaForCausalLM(LlamaConfig(**SIZES, **more, **ids)).save_pretrained(folder)
    train_tokenizer([f"word{i}" for i in range(90)], 90).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module", params=["t5", "llama"])
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Onnx, Any]:
    """The exported student, and the trained model itself."""
    folder = make_student(tmp_path_factory.mktemp("student"), request.param)
    onnx.check(folder, "float32")
    draft = tmp_path_factory.mktemp("draft")
    onnx.convert(folder, draft, "float32")
    auto = AutoModelForSeq2SeqLM if request.param == "t5" else AutoModelForCausalLM
    engine: Any = open_engine(draft, bundle(request.param), threads=1)
    return engine, auto.from_pretrained(folder).eval()


def bundle(kind: str) -> Bundle:
    family = "encoder-decoder" if kind == "t5" else "causal"
    tokens = Tokens(eos=1, pad=0, start=0 if kind == "t5" else None)
    return Bundle(format="onnx", precision="float32", card={"family": family}, tokens=tokens, stepdistill="0")


def spread(model: Any, prompt: Prompt, given: tuple[int, ...]) -> torch.Tensor:
    """The trained model's log-probabilities behind the prompt and behind each given token."""
    begin = [0, *prompt.opening] if model.config.is_encoder_decoder else [*prompt.source, *prompt.opening]
    asked = {"input_ids": torch.tensor([[*begin, *given]])}
    if model.config.is_encoder_decoder:
        asked = {"input_ids": torch.tensor([prompt.source]), "decoder_input_ids": asked["input_ids"]}
    with torch.inference_mode():
        logits: torch.Tensor = model(**asked).logits[0, len(begin) - 1 :]
    return logits.log_softmax(-1)


def greedy(model: Any, prompt: Prompt, new_tokens: int) -> list[int]:
    ids: list[int] = []
    while len(ids) < new_tokens and (best := int(spread(model, prompt, tuple(ids))[-1].argmax())) != 1:
        ids.append(best)
    return ids


@pytest.mark.slow
def test_every_token_of_every_target_is_scored_as_by_the_trained_model(pair: tuple[Onnx, Any]) -> None:
    engine, model = pair
    asked = [Question(prompt, TARGETS[: 2 + place]) for place, prompt in enumerate(PROMPTS)]
    first, spelled = engine.first(asked), engine.spell(asked)
    for question, begins, tokens in zip(asked, first, spelled, strict=True):
        for target, row in zip(question.targets, tokens, strict=True):
            trained = spread(model, question.prompt, target[:-1])
            assert row == pytest.approx([float(trained[i, id_]) for i, id_ in enumerate(target)], abs=1e-3)
        assert begins == pytest.approx(
            [float(trained[0, target[0]]) for target in question.targets], abs=1e-3
        )
    # More rows than one call takes keep their order.
    many = engine.spell([asked[i % 3] for i in range(20)])
    for i, tokens in enumerate(many):
        for row, alone in zip(tokens, spelled[i % 3], strict=True):
            assert row == pytest.approx(alone, abs=1e-3)
    assert not engine.first([])
    assert not engine.spell([])


@pytest.mark.slow
def test_words_are_those_of_the_trained_model(pair: tuple[Onnx, Any]) -> None:
    engine, model = pair
    trained = [greedy(model, prompt, 6) for prompt in PROMPTS]
    assert any(trained)
    assert engine.write(PROMPTS, 6) == trained
    assert engine.write(PROMPTS[::-1], 3) == [ids[:3] for ids in trained[::-1]]
    assert engine.write([], 6) == []


@pytest.mark.slow
def test_writing_may_end_behind_a_stop_string(pair: tuple[Onnx, Any]) -> None:
    engine, _ = pair
    [whole] = engine.write(PROMPTS[:1], 12)
    assert len(whole) > 4
    tokenizer = Tokenizer.from_file(str(engine._folder / "tokenizer.json"))
    word = tokenizer.decode(whole[2:3], skip_special_tokens=False)
    [short] = engine.write(PROMPTS[:1], 12, stop=word)
    assert short == whole[: len(short)]
    assert len(short) <= 3


REFUSED: list[tuple[str, dict[str, Any], type[Exception], str]] = [
    ("int8", {}, ConfigError, "float32 only, since its eight-bit T5 is slower"),
    ("float23", {}, ConfigError, "did you mean 'float32'"),
    ("float32", {"model_type": "bart"}, StudentError, "a bart model, and only those of the types t5, llama"),
]


@pytest.mark.parametrize(("precision", "changes", "error", "words"), REFUSED)
def test_what_cannot_be_taken_is_told_beforehand(
    tmp_path: Path, precision: str, changes: dict[str, Any], error: type[Exception], words: str
) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "t5", **changes}))
    with pytest.raises(error, match=words) as refusal:
        onnx.check(tmp_path, precision)
    assert "\n" not in str(refusal.value)


def test_what_is_too_large_for_the_format_or_misses_its_library_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "t5"}))
    with (tmp_path / "model.safetensors").open("wb") as file:
        file.truncate(2_100_000_000)
    with pytest.raises(StudentError, match=r"weights have 2\.1 GB"):
        onnx.check(tmp_path, "float32")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"pip install 'stepdistill\[onnx\]'"):
        onnx.check(tmp_path, "float32")


@pytest.mark.parametrize("write", [lambda path: path.write_bytes(b"\x08\x0bnonsense"), lambda path: None])
def test_a_damaged_or_missing_file_is_refused_in_one_line(
    tmp_path: Path, write: Callable[[Path], object]
) -> None:
    for name in (ENCODER, CAUSAL):
        write(tmp_path / name)
    for kind in ("t5", "llama"):
        with pytest.raises(StudentError, match="onnxruntime cannot load the file") as refusal:
            open_engine(tmp_path, bundle(kind))
        assert "\n" not in str(refusal.value)

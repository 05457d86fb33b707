"""Loading a student: what can be taught is loaded whole, anything else is refused in one line."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    BartConfig,
    BertConfig,
    BertModel,
    GPT2Config,
    LlamaForCausalLM,
    M2M100Config,
    M2M100ForConditionalGeneration,
    RobertaConfig,
    T5Config,
)

from stepdistill.config import StudentConfig
from stepdistill.errors import StudentError
from stepdistill.student.generate import generate
from stepdistill.student.model import Student, load_student, new_student, weights_digests
from stepdistill.student.scratch import train_tokenizer
from stepdistill.weights import family_of


@pytest.fixture
def folder(llama_folder: Path, tmp_path: Path) -> Path:
    """A copy of the causal student's folder, to be changed."""
    return Path(shutil.copytree(llama_folder, tmp_path / "copy"))


def refusal(where: Path | str) -> str:
    with pytest.raises(StudentError) as caught:
        load_student(str(where))
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith("student.model: ")
    assert str(where) in message
    return message


def edit(path: Path, **values: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def test_a_local_folder_is_loaded_with_its_own_weights(folder: Path) -> None:
    student = new_student(StudentConfig(model=str(folder)), 0, [])
    assert student.family == "causal"
    stored = load_file(folder / "model.safetensors")
    state = student.model.state_dict()
    assert all(state[name].equal(value) for name, value in stored.items())
    assert student.parameters == sum(weight.numel() for weight in stored.values())


def test_an_encoder_decoder_is_loaded_as_one(make_student: Callable[..., Student], tmp_path: Path) -> None:
    student = make_student()
    student.model.save_pretrained(tmp_path)
    student.tokenizer.save_pretrained(tmp_path)
    loaded = load_student(str(tmp_path))
    assert loaded.family == "encoder-decoder"
    assert loaded.parameters == student.parameters


def test_a_folder_below_the_home_is_found(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(folder.parent))
    config = StudentConfig(model=f"~/{folder.name}")
    assert list(weights_digests(config)) == ["weights model.safetensors"]
    assert new_student(config, 0, []).family == "causal"


def test_the_hashes_of_a_student_are_those_of_its_weights(folder: Path) -> None:
    config = StudentConfig(model=str(folder))
    before = weights_digests(config)
    (folder / "README.md").write_text("changed")
    assert weights_digests(config) == before
    (folder / "model.safetensors").write_bytes(b"changed")
    assert weights_digests(config) != before


@pytest.mark.parametrize("model", ["scratch:", "google/t5-v1_1-small"])
def test_a_student_that_is_no_local_file_has_no_hashes(model: str) -> None:
    assert weights_digests(StudentConfig(model=model)) == {}


def test_weights_of_half_precision_become_float32(folder: Path) -> None:
    LlamaForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).save_pretrained(folder)
    student = load_student(str(folder))
    assert {weight.dtype for weight in student.model.parameters()} == {torch.float32}


@pytest.mark.parametrize(
    ("config", "family"),
    [(T5Config, "encoder-decoder"), (BartConfig, "encoder-decoder"), (GPT2Config, "causal")],
)
def test_the_family_is_that_of_the_architecture(config: Any, family: str) -> None:
    assert family_of(config(), "x", "student.model") == family


@pytest.mark.parametrize("config", [BertConfig, RobertaConfig])
def test_an_encoder_has_no_family(config: Any) -> None:
    with pytest.raises(StudentError, match="neither encoder-decoder"):
        family_of(config(), "x", "student.model")


def test_a_bert_is_neither_and_the_message_says_so(folder: Path, tmp_path: Path) -> None:
    config = BertConfig(vocab_size=40, hidden_size=8, num_hidden_layers=1, num_attention_heads=1)
    BertModel(config).save_pretrained(folder)
    message = refusal(folder)
    assert "is a bert model, neither encoder-decoder (T5, BART ...) nor causal" in message


def test_an_encoder_decoder_that_does_not_say_how_it_is_trained_is_refused(folder: Path) -> None:
    sizes = {f"{side}_{name}": 1 for side in ("encoder", "decoder") for name in ("layers", "attention_heads")}
    config = M2M100Config(vocab_size=40, d_model=8, encoder_ffn_dim=8, decoder_ffn_dim=8, **sizes)
    M2M100ForConditionalGeneration(config).save_pretrained(folder)
    assert "cannot be trained here" in refusal(folder)


def test_weights_in_a_pickle_are_refused(folder: Path) -> None:
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    assert "safetensors" in refusal(folder)


def test_code_in_the_folder_is_not_run(folder: Path, tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    (folder / "own.py").write_text(f"open({str(ran)!r}, 'w')\nclass Config: ...\nclass Model: ...\n")
    names = {"AutoConfig": "own.Config", "AutoModelForCausalLM": "own.Model"}
    edit(folder / "config.json", auto_map=names, model_type="own")
    refusal(folder)
    assert not ran.exists()


@pytest.mark.parametrize("where", ["/nowhere/at/all", "nowhere", "google/no-such-model", ""])
def test_a_model_that_is_not_there_is_refused_in_one_line(where: str) -> None:
    assert "cannot be loaded" in refusal(where)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json"])
def test_a_damaged_description_is_refused_in_one_line(folder: Path, name: str) -> None:
    (folder / name).write_text("{")
    assert "cannot be loaded" in refusal(folder)


@pytest.mark.parametrize("size", [0, 200, -100])
def test_damaged_weights_are_refused_in_one_line(folder: Path, size: int) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:size])
    assert "cannot be loaded" in refusal(folder)


@pytest.mark.parametrize("values", [{"hidden_size": 64}, {"num_attention_heads": 0}])
def test_weights_that_do_not_fit_the_description_are_refused(folder: Path, values: dict[str, int]) -> None:
    edit(folder / "config.json", **values)
    assert "cannot be loaded" in refusal(folder)


def test_weights_that_are_missing_are_not_drawn_at_random(folder: Path) -> None:
    path = folder / "model.safetensors"
    weights = load_file(path)
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, path, {"format": "pt"})
    assert "model.layers.1.mlp.up_proj.weight" in refusal(folder)


def test_a_tokenizer_without_padding_gets_its_end_of_text(folder: Path, words: list[str]) -> None:
    tokenizer = train_tokenizer(words, 200)
    tokenizer.pad_token = None
    tokenizer.save_pretrained(folder)
    student = load_student(str(folder))
    assert student.tokenizer.pad_token_id == student.tokenizer.eos_token_id
    assert student.model.generation_config.pad_token_id == student.tokenizer.eos_token_id


def test_a_tokenizer_without_end_of_text_is_refused(folder: Path, words: list[str]) -> None:
    tokenizer = train_tokenizer(words, 200)
    tokenizer.eos_token = None
    tokenizer.save_pretrained(folder)
    assert "without an end-of-text token" in refusal(folder)


@pytest.mark.parametrize(
    "settings",
    [
        {"do_sample": True, "temperature": 50.0, "top_k": 0},
        {"num_beams": 4},
        {"repetition_penalty": 1.9, "no_repeat_ngram_size": 1},
        {"min_new_tokens": 9, "suppress_tokens": [3, 4, 5, 6, 7, 8, 9, 10, 11, 12]},
        {"max_length": 2, "eos_token_id": 5},
    ],
)
def test_the_decoding_settings_a_model_brings_have_no_effect(
    folder: Path, llama_folder: Path, settings: dict[str, Any]
) -> None:
    texts = ["Anna has 3 apples", "How many?", "Ben gets 4 more today"]
    expected = generate(load_student(str(llama_folder)), texts, 9)
    edit(folder / "generation_config.json", **settings)
    assert generate(load_student(str(folder)), texts, 9) == expected

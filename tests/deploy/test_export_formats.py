"""What a converter makes of a model answers as the model does, and what it cannot make is said before."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ctranslate2 as library
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers

from stepdistill.deploy.export import ctranslate2, huggingface
from stepdistill.deploy.export.formats import FORMATS, check_student, find_format
from stepdistill.errors import ConfigError, StudentError

SIZE = 50
"""Rows of every embedding here; tokenizers may have fewer names, or more."""
SMALL: dict[str, Any] = {
    "vocab_size": SIZE,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 64,
    "eos_token_id": 1,
    "bos_token_id": None,
    "pad_token_id": 0,
}
PAIR: dict[str, Any] = {
    "vocab_size": SIZE,
    "d_model": 32,
    "d_kv": 8,
    "d_ff": 64,
    "num_layers": 2,
    "num_heads": 4,
    "decoder_start_token_id": 0,
}
GPT2: dict[str, Any] = {"vocab_size": SIZE, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}


def small(name: str, **more: Any) -> Any:
    """A model of this class with weights that are drawn; one of a family's makers."""
    kind = getattr(transformers, name)
    values = {"T5": PAIR, "MT": PAIR, "UM": PAIR, "GP": GPT2}.get(name[:2], SMALL)
    torch.manual_seed(0)
    model = kind(kind.config_class(**{**values, **more})).eval()
    for weight in model.parameters():
        if weight.dim() > 1:
            torch.nn.init.normal_(weight, std=0.3)
    return model


def stored(model: Any, folder: Path, names: int = SIZE, special: int = 3) -> Path:
    """The folder of a student with `names` tokens, of which the first are `<pad> </s> <unk>`."""
    words = ["<pad>", "</s>", "<unk>"][:special]
    vocabulary = {name: i for i, name in enumerate([*words, *(f"w{i}" for i in range(special, names))])}
    inner = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    given = {"unk_token": "<unk>"} if special > 2 else {}
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=inner, eos_token="</s>", pad_token="<pad>", **given
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def converted(student: Path, out: Path, precision: str = "float32") -> Path:
    out.mkdir()
    ctranslate2.check(student, precision)
    ctranslate2.convert(student, out, precision)
    return out


PAIRS = {
    "t5": lambda: small("T5ForConditionalGeneration"),
    # Not scaled before the head, though their embeddings are tied.
    "t5 1.1": lambda: small(
        "T5ForConditionalGeneration", tie_word_embeddings=False, feed_forward_proj="gated-gelu"
    ),
    "mt5": lambda: small("MT5ForConditionalGeneration"),
    "umt5": lambda: small("UMT5ForConditionalGeneration"),
}
CAUSALS = {
    "llama": lambda: small("LlamaForCausalLM"),
    "mistral": lambda: small("MistralForCausalLM"),
    "qwen2": lambda: small("Qwen2ForCausalLM"),
    "qwen3": lambda: small("Qwen3ForCausalLM", head_dim=8),
    "gemma": lambda: small("GemmaForCausalLM", head_dim=8),
    "gpt2": lambda: small("GPT2LMHeadModel", eos_token_id=1, bos_token_id=1),
}


@pytest.mark.parametrize("kind", PAIRS)
def test_an_encoder_decoder_has_the_same_numbers(tmp_path: Path, kind: str) -> None:
    student = stored(PAIRS[kind](), tmp_path / "student")
    model = transformers.AutoModelForSeq2SeqLM.from_pretrained(student).eval()
    out = converted(student, tmp_path / "out")
    ids = torch.tensor([[5, 6, 7, 1]])
    with torch.no_grad():
        logits = model(input_ids=ids, decoder_input_ids=torch.tensor([[0, 11, 12]])).logits
    wanted = logits.log_softmax(-1)[0][[0, 1, 2], [11, 12, 1]].tolist()
    (found,) = library.Translator(str(out)).score_batch([["w5", "w6", "w7", "</s>"]], [["w11", "w12"]])
    assert found.log_probs == pytest.approx(wanted, abs=1e-4)


@pytest.mark.parametrize("kind", CAUSALS)
def test_a_causal_model_without_a_beginning_writes_the_same(tmp_path: Path, kind: str) -> None:
    student = stored(CAUSALS[kind](), tmp_path / "student", special=2)
    model = transformers.AutoModelForCausalLM.from_pretrained(student).eval()
    out = converted(student, tmp_path / "out")
    settings = json.loads((out / "config.json").read_text())
    assert (settings["bos_token"], settings["unk_token"]) == ("</s>", "</s>")
    wanted = model.generate(torch.tensor([[5, 6, 7]]), max_new_tokens=5, do_sample=False, eos_token_id=1)
    generator = library.Generator(str(out))
    (found,) = generator.generate_batch(
        [["w5", "w6", "w7"]], beam_size=1, max_length=5, include_prompt_in_result=False
    )
    assert found.sequences_ids[0] == [i for i in wanted[0, 3:].tolist() if i != 1]


@pytest.mark.parametrize("names", [40, 60])
@pytest.mark.parametrize("make", [PAIRS["t5"], CAUSALS["llama"]])
def test_an_embedding_of_another_size_than_the_tokenizer(
    tmp_path: Path, make: Callable[[], Any], names: int
) -> None:
    out = converted(stored(make(), tmp_path / "student", names), tmp_path / "out")
    (file,) = out.glob("*vocabulary.json")
    found = json.loads(file.read_text())
    assert len(found) == len(set(found)) == SIZE
    assert found[:40] == ["<pad>", "</s>", "<unk>", *(f"w{i}" for i in range(3, 40))]


@pytest.mark.parametrize("precision", ["int8", "bfloat16"])
def test_a_coarser_precision_is_smaller(tmp_path: Path, precision: str) -> None:
    student = stored(small("T5ForConditionalGeneration"), tmp_path / "student")
    fine, coarse = (converted(student, tmp_path / name, name) for name in ("float32", precision))
    assert (coarse / "model.bin").stat().st_size < 0.7 * (fine / "model.bin").stat().st_size
    assert (coarse / "tokenizer.json").exists()


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: small("BartForConditionalGeneration", d_model=32, encoder_layers=1), "is of type bart"),
        (lambda: small("LlamaForCausalLM", head_dim=16), "heads of 16 that do not add up"),
        (lambda: small("LlamaForCausalLM", hidden_act="gelu"), "the activation gelu"),
        (
            lambda: small(
                "LlamaForCausalLM",
                rope_parameters={"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0},
            ),
            "positions by 'dynamic'",
        ),
    ],
)
def test_a_model_that_the_library_cannot_take_is_refused_before(
    tmp_path: Path, make: Callable[[], Any], says: str
) -> None:
    make().save_pretrained(tmp_path)
    with pytest.raises(StudentError, match=says) as caught:
        ctranslate2.check(tmp_path, "int8")
    assert "\n" not in str(caught.value)
    assert "choose huggingface" in str(caught.value)


def test_transformers_own_format_casts_weights_and_leaves_the_first_models_template(tmp_path: Path) -> None:
    student = stored(small("LlamaForCausalLM"), tmp_path / "student")
    (student / "chat_template.jinja").write_text("{{ messages }}")
    (student / "log.json").write_text("{}")
    out = tmp_path / "out"
    out.mkdir()
    huggingface.convert(student, out, "bfloat16")
    assert sorted(path.name for path in out.iterdir()) == [
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    was, now = load_file(student / "model.safetensors"), load_file(out / "model.safetensors")
    assert now.keys() == was.keys()
    assert all(torch.equal(now[name], was[name].bfloat16()) for name in was)
    assert transformers.AutoConfig.from_pretrained(out).dtype == torch.bfloat16
    assert transformers.AutoTokenizer.from_pretrained(out).chat_template is None


def test_a_folder_without_a_whole_student_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StudentError, match="no weights are there"):
        check_student(tmp_path)
    save_file({"a": torch.zeros(1)}, tmp_path / "model.safetensors")
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "ByT5Tokenizer"}')
    with pytest.raises(StudentError, match=r"\(ByT5Tokenizer\) is written in Python"):
        check_student(tmp_path)
    save_file({"a": torch.zeros(1)}, tmp_path / "adapter_model.safetensors")
    with pytest.raises(StudentError, match="an adapter that is not merged"):
        check_student(tmp_path)


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_is_a_module_with_the_same_functions(name: str) -> None:
    found, module = find_format(name)
    assert found == name
    assert module.PRECISIONS
    assert callable(module.check)
    assert callable(module.convert)


def test_an_unknown_format_or_precision_is_told_with_what_there_is(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="did you mean 'ctranslate2'"):
        find_format("ctranslate")
    with pytest.raises(ConfigError, match="did you mean 'bfloat16'"):
        huggingface.check(tmp_path, "float16")

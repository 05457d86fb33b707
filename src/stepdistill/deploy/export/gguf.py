"""A causal student as one `.gguf` file, for llama.cpp, Ollama and what else is built on them."""

from __future__ import annotations

import importlib.util
import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stepdistill.deploy.engines.llama import MODEL
from stepdistill.deploy.spelling import TOKENIZER
from stepdistill.errors import ConfigError, MissingExtraError, StudentError, unknown
from stepdistill.files import read_object, writing
from stepdistill.student.encode import BREAK
from stepdistill.student.methods import MARKERS
from stepdistill.weights import read_tokenizer

PRECISIONS = ("f16", "f32", "q8_0")
"""Of matrices, in llama.cpp's words, the default first; vectors are always float32."""

_NEED = ("gguf", "xllamacpp")
_WORDS = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}
_SPLITS: dict[str, list[dict[str, Any]]] = {
    "gpt-2": [_WORDS],
    "smollm": [{"type": "Digits", "individual_digits": True}, _WORDS],
}
"""How text is cut before byte pairs are merged: llama.cpp knows each way by a name alone."""
_NORMAL, _CONTROL, _GIVEN, _UNUSED = 1, 3, 4, 5
"""Kinds of tokens in a `.gguf` file."""


@dataclass(frozen=True)
class Vocabulary:
    """A tokenizer in llama.cpp's terms: `split` is its name for the pre-tokenizer; `begin`: BOS is added."""

    split: str
    tokens: list[str]
    kinds: list[int]
    merges: list[str]
    special: Mapping[str, int]
    begin: bool


def check(student_folder: Path, precision: str) -> None:
    """Say, before anything is converted, what cannot be.

    Raises:
        MissingExtraError: a library is not installed.
        ConfigError: no such precision.
        StudentError: the model is not of Llama's type, or llama.cpp would split words in another way.
    """
    if not all(importlib.util.find_spec(name) for name in _NEED):
        raise MissingExtraError("export as gguf", "gguf")
    if precision not in PRECISIONS:
        raise ConfigError(unknown("precision of gguf", precision, PRECISIONS))
    config = read_object(student_folder / "config.json")
    _check_model(student_folder, config)
    _vocabulary(student_folder, config["vocab_size"])


def convert(student_folder: Path, draft: Path, precision: str) -> None:
    """Write `model.gguf` and the tokenizer into the folder `draft`.

    The file's chat template is the prompt of training, `x [label]`, so that a chat with it asks for the label
    as training did; the tokenizer's own template, if any, is that of another model by now.

    Raises:
        StudentError: a weight has no place in the file.
        RunFolderError: it cannot be written.
    """
    import gguf

    config = read_object(student_folder / "config.json")
    card = read_object(student_folder / "student.json")
    vocabulary = _vocabulary(student_folder, config["vocab_size"])
    with writing(draft / MODEL):
        writer = gguf.GGUFWriter(draft / MODEL, "llama")
        writer.add_name(card["name"])
        _describe(writer, config, precision)
        _spell(writer, vocabulary)
        for name, weights in _weights(student_folder, config):
            kind = _kind(weights, precision)
            writer.add_tensor(name, gguf.quants.quantize(weights, kind), raw_dtype=kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        shutil.copyfile(student_folder / TOKENIZER, draft / TOKENIZER)


def _check_model(folder: Path, config: Mapping[str, Any]) -> None:
    kind, rope = config["model_type"], config.get("rope_parameters") or {}
    wrong = ""
    if kind != "llama":
        wrong = f"is a {kind} model, and only those of Llama's type (SmolLM2, TinyLlama ...) are converted"
    elif rope.get("rope_type", "default") != "default":
        wrong = f"scales its positions ({rope['rope_type']}), which is not converted"
    elif config.get("hidden_act", "silu") != "silu":
        wrong = f"has the activation {config['hidden_act']}, and llama.cpp computes silu for Llama's type"
    elif config.get("attention_bias") or config.get("mlp_bias"):
        wrong = "has biases, which are not converted"
    if wrong:
        raise _refusal(folder, wrong)


def _refusal(folder: Path, wrong: str) -> StudentError:
    return StudentError(
        f"{folder}: as gguf this student cannot be exported: it {wrong}; choose huggingface or ctranslate2"
    )


def _describe(writer: Any, config: Mapping[str, Any], precision: str) -> None:
    """What llama.cpp must know of the model."""
    import gguf

    heads = config["num_attention_heads"]
    width = config.get("head_dim") or config["hidden_size"] // heads
    kinds = gguf.LlamaFileType
    writer.add_file_type(
        {"f32": kinds.ALL_F32, "f16": kinds.MOSTLY_F16, "q8_0": kinds.MOSTLY_Q8_0}[precision]
    )
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_vocab_size(config["vocab_size"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(config.get("num_key_value_heads") or heads)
    writer.add_key_length(width)
    writer.add_value_length(width)
    writer.add_rope_dimension_count(width)
    writer.add_rope_freq_base(float((config.get("rope_parameters") or config)["rope_theta"]))
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])


def _spell(writer: Any, vocabulary: Vocabulary) -> None:
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(vocabulary.split)
    writer.add_token_list(vocabulary.tokens)
    writer.add_token_types(vocabulary.kinds)
    writer.add_token_merges(vocabulary.merges)
    for role, token in vocabulary.special.items():
        getattr(writer, f"add_{role}_token_id")(token)
    # Else llama.cpp adds to a text what the family of the tokenizer usually has.
    writer.add_add_bos_token(vocabulary.begin)
    writer.add_add_eos_token(False)
    asking = json.dumps(f"{BREAK}{MARKERS['label']}{BREAK}")
    writer.add_chat_template(f"{{{{ messages[-1]['content'] | trim + {asking} }}}}")


def _vocabulary(folder: Path, size: int) -> Vocabulary:
    """The student's tokenizer.

    Raises:
        StudentError: llama.cpp would split words in another way.
    """
    found, _ = read_tokenizer(str(folder), "student.model")
    read = read_object(folder / TOKENIZER)
    split = _split(folder, read)
    tokens, kinds = [f"[PAD{i}]" for i in range(size)], [_UNUSED] * size
    given = {added["id"]: added for added in read["added_tokens"]}
    if max([*read["model"]["vocab"].values(), *given]) >= size:
        raise _refusal(folder, f"has more tokens than the {size} of its model")
    for token, place in read["model"]["vocab"].items():
        tokens[place], kinds[place] = token, _NORMAL
    for place, added in given.items():
        tokens[place], kinds[place] = added["content"], _CONTROL if added["special"] else _GIVEN
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in read["model"]["merges"]]
    roles = {"eos": found.eos_token_id, "pad": found.pad_token_id, "unk": found.unk_token_id}
    # Without one, llama.cpp takes the id that GPT-2 has, whatever stands there.
    roles["bos"] = found.eos_token_id if found.bos_token_id is None else found.bos_token_id
    special = {role: int(token) for role, token in roles.items() if token is not None}
    return Vocabulary(split, tokens, kinds, merges, special, _begins(folder, found))


def _split(folder: Path, read: Mapping[str, Any]) -> str:
    """llama.cpp's name for how the tokenizer cuts text before it merges."""
    cut = read["pre_tokenizer"] or {}
    # Where a token stood in the text is nothing that ids tell of.
    steps = [
        {key: value for key, value in step.items() if key != "trim_offsets"}
        for step in (cut["pretokenizers"] if cut.get("type") == "Sequence" else [cut])
    ]
    model, names = read["model"], [name for name, known in _SPLITS.items() if known == steps]
    plain = not any(model.get(key) for key in ("byte_fallback", "ignore_merges", "dropout"))
    if model["type"] != "BPE" or read["normalizer"] is not None or not plain or not names:
        kinds = "+".join(str(step.get("type")) for step in steps)
        raise _refusal(
            folder,
            f"has a tokenizer ({model['type']}, {kinds}) whose words llama.cpp would split in another way; "
            f"known are the byte-level ones of GPT-2 and SmolLM",
        )
    return names[0]


def _begins(folder: Path, tokenizer: Any) -> bool:
    """Whether the tokenizer puts BOS before a text, and nothing else around it."""
    bare = tokenizer("a", add_special_tokens=False)["input_ids"]
    full = tokenizer("a")["input_ids"]
    if full in (bare, [*bare, tokenizer.eos_token_id]):
        return False  # an end that the tokenizer adds is taken off in training and prediction
    if full == [tokenizer.bos_token_id, *bare]:
        return True
    raise _refusal(folder, "has a tokenizer that puts more around a text than a beginning")


def _weights(folder: Path, config: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Weights in float32 under llama.cpp's names; tied ones once."""
    import gguf
    from safetensors import safe_open

    heads = {"q_proj": config["num_attention_heads"]}
    heads["k_proj"] = config.get("num_key_value_heads") or heads["q_proj"]
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config["num_hidden_layers"])
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            for name in file.keys():  # noqa: SIM118 - no mapping
                if name == "lm_head.weight" and config.get("tie_word_embeddings"):
                    continue
                place = names.get_name(name, try_suffixes=(".weight",))
                if place is None:
                    raise _refusal(folder, f"has a weight that llama.cpp does not know, {name}")
                values = file.get_tensor(name).float().numpy()
                part = name.split(".")[-2]
                yield place, _paired(values, heads[part]) if part in heads else values


def _paired(weights: Any, heads: int) -> Any:
    """Rows in the order of llama.cpp, which rotates neighbours where transformers rotates halves."""
    halves = weights.reshape(heads, 2, weights.shape[0] // heads // 2, weights.shape[1])
    return halves.swapaxes(1, 2).reshape(weights.shape)


def _kind(weights: Any, precision: str) -> Any:
    import gguf

    kinds = gguf.GGMLQuantizationType
    if weights.ndim == 1 or precision == "f32":
        return kinds.F32
    # Eight bits are shared by blocks of 32 in a row.
    whole = weights.shape[-1] % gguf.GGML_QUANT_SIZES[kinds.Q8_0][0] == 0
    return kinds.Q8_0 if precision == "q8_0" and whole else kinds.F16

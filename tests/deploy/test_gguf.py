"""A student as a `.gguf` file: llama.cpp reads, scores and writes as the trained model, or it is refused."""

from __future__ import annotations

import importlib.util
import json
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from stepdistill.deploy.bundle import Bundle, Tokens
from stepdistill.deploy.engines import Prompt, Question, open_engine
from stepdistill.deploy.engines.llama import MODEL, Llama
from stepdistill.deploy.export import gguf
from stepdistill.errors import ConfigError, MissingExtraError, StepdistillError, StudentError
from stepdistill.student.encode import Encoder

pytestmark = pytest.mark.skipif(
    not all(importlib.util.find_spec(name) for name in ("gguf", "xllamacpp")),
    reason="the extra 'gguf' is not installed",
)
TEXTS = [
    "Ben has 1234 apples, and gets 4 more.\nHow many? It's 7.",
    "  two  spaces\tand a tab \n\n and lines \n",
    "naïve 中文 e\u0301 😀👩‍👩‍👧 ½ ٣٤ we'll DON'T \u00a0x",
    "<|im_start|>user",
]
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
Spoil = Callable[[dict[str, Any], dict[str, Any]], object]


def make_student(folder: Path, split: str = "gpt-2", begin: bool = False, **more: Any) -> Path:
    """A model of two layers with random weights, beside a byte-level tokenizer."""
    inner = Tokenizer(models.BPE())
    words = pre_tokenizers.ByteLevel(add_prefix_space=False)
    digits = pre_tokenizers.Digits(individual_digits=True)
    inner.pre_tokenizer = words if split == "gpt-2" else pre_tokenizers.Sequence([digits, words])
    inner.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=SPECIAL, initial_alphabet=alphabet)
    inner.train_from_iterator([*TEXTS[:3] * 3, "[label] [rationale]"], trainer)
    if begin:
        inner.post_processor = processors.TemplateProcessing(
            single="<|im_start|> $A", special_tokens=[("<|im_start|>", 1)]
        )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner, bos_token=SPECIAL[1], eos_token=SPECIAL[2], pad_token=SPECIAL[2]
    )
    torch.manual_seed(0)
    sizes = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4}
    sizes |= {"num_key_value_heads": 2, "vocab_size": len(tokenizer) + 5, "max_position_embeddings": 1400}
    ids = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2}
    config = LlamaConfig(**sizes, **ids, initializer_range=0.2, **{"tie_word_embeddings": True, **more})
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "student.json").write_text(json.dumps({"name": "distill"}))
    return folder


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With GPT-2's way of splitting and tied embeddings."""
    return make_student(tmp_path_factory.mktemp("student"))


@pytest.fixture(scope="module")
def model(student: Path) -> Any:
    """The trained model itself."""
    return LlamaForCausalLM.from_pretrained(student).eval()


@pytest.fixture(scope="module")
def engine(student: Path, tmp_path_factory: pytest.TempPathFactory) -> Llama:
    """The same by llama.cpp."""
    found: Llama = opened(student, tmp_path_factory.mktemp("bundle"))
    return found


def opened(student: Path, folder: Path, precision: str = "f32") -> Any:
    gguf.check(student, precision)
    gguf.convert(student, folder, precision)
    return open_engine(folder, bundle(precision), threads=1)


def bundle(precision: str) -> Bundle:
    made = Bundle(format="gguf", precision=precision, card={}, tokens=Tokens(eos=2, pad=2), stepdistill="0")
    return made.model_copy(update={"positions": 1400})


def encoder(student: Path) -> Encoder:
    return Encoder(PreTrainedTokenizerFast.from_pretrained(student), "causal")


def prompts(student: Path) -> list[Prompt]:
    read = encoder(student)
    return [Prompt(tuple(read.source(t, "label")), tuple(read.opening("label"))) for t in TEXTS]


def log_probabilities(model: Any, prompt: Prompt, target: tuple[int, ...]) -> list[float]:
    asked = [*prompt.source, *prompt.opening]
    with torch.inference_mode():
        logits = model(torch.tensor([[*asked, *target[:-1]]])).logits[0, len(asked) - 1 :]
    rows = logits.log_softmax(-1)
    return [float(rows[place, token]) for place, token in enumerate(target)]


def greedy(model: Any, prompt: Prompt, new_tokens: int) -> list[int]:
    asked = torch.tensor([[*prompt.source, *prompt.opening]])
    with torch.inference_mode():
        made = model.generate(asked, max_new_tokens=new_tokens, do_sample=False, pad_token_id=2)
    ids: list[int] = made[0, asked.shape[1] :].tolist()
    return ids[:-1] if ids[-1] == 2 else ids


@pytest.mark.parametrize("more", [{}, {"tie_word_embeddings": False, "head_dim": 32}], ids=["tied", "untied"])
@pytest.mark.parametrize(("precision", "off"), [("f32", 1e-5), ("f16", 0.05), ("q8_0", 0.5)])
def test_another_reader_finds_the_same_model(
    tmp_path: Path, precision: str, off: float, more: dict[str, Any]
) -> None:
    student = make_student(tmp_path / "student", **more)
    gguf.convert(student, tmp_path, precision)
    asked = torch.arange(3, 60)[None]
    with torch.inference_mode():
        trained = LlamaForCausalLM.from_pretrained(student).eval()(asked).logits
        found = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file=MODEL, dtype=torch.float32)
        read = found.eval()(asked).logits[..., : trained.shape[-1]]
    assert (read - trained).abs().max() < off * trained.std()


def test_every_token_of_every_target_is_scored_as_by_the_trained_model(
    engine: Llama, model: Any, student: Path
) -> None:
    targets = ((3, 4, 5, 2), (3, 4, 2), (300, 2), (2,), (0, 1, 2), (7, 7, 7, 7, 7, 2))
    asked = [Question(prompt, targets) for prompt in prompts(student)]
    first, spelled = engine.first(asked), engine.spell(asked)
    for question, begins, tokens in zip(asked, first, spelled, strict=True):
        trained = [log_probabilities(model, question.prompt, target) for target in targets]
        assert [len(row) for row in tokens] == [len(target) for target in targets]
        for row, found in zip(trained, tokens, strict=True):
            assert found == pytest.approx(row, abs=2e-3)
        assert begins == pytest.approx([row[0] for row in trained], abs=2e-3)
    assert not engine.first([])
    assert not engine.spell([])


def test_words_are_those_of_the_trained_model(engine: Llama, model: Any, student: Path) -> None:
    asked = prompts(student) * 2
    trained = [greedy(model, prompt, 40) for prompt in asked]
    assert engine.write(asked, 40) == trained
    assert engine.write(asked[:1], 1) == [ids[:1] for ids in trained[:1]]
    assert engine.write([], 40) == []


def test_writing_may_end_behind_a_stop_string_and_leaves_no_token_out(engine: Llama, student: Path) -> None:
    asked = prompts(student)
    whole = engine.write(asked, 120)
    tokenizer = encoder(student).tokenizer
    stop = next(text for ids in whole if (text := tokenizer.decode(ids[3:6])).isascii())
    for short, ids in zip(engine.write(asked, 120, stop=stop), whole, strict=True):
        assert short == ids[: len(short)]
        assert len(short) == len(ids) or stop in tokenizer.decode(short)
    assert any(len(s) < len(w) for s, w in zip(engine.write(asked, 120, stop=stop), whole, strict=True))


def test_a_long_text_makes_room_and_too_long_a_text_is_refused(engine: Llama, model: Any) -> None:
    long = Prompt(tuple(3 + i % 200 for i in range(1200)))
    assert engine.write([long], 3) == [greedy(model, long, 3)]
    with pytest.raises(StudentError, match="1400 positions, and the longest input needs 1401"):
        engine.write([long], 201)
    with pytest.raises(StudentError, match="1400 positions"):
        engine.spell([Question(long, ((3,) * 300,))])


@pytest.fixture(scope="module", params=["gpt-2", "smollm", "gpt-2 with a beginning"])
def asked(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Asks a llama.cpp that has nothing but the file, as another program would; and training's encoder."""
    import xllamacpp

    folder = tmp_path_factory.mktemp("split")
    student = make_student(folder / "student", request.param.split()[0], "beginning" in request.param)
    gguf.convert(student, folder, "f16")
    wanted = xllamacpp.CommonParams()
    wanted.model.path, wanted.n_ctx, wanted.verbosity = str(folder / MODEL), 512, -1
    wanted.cpuparams.n_threads = wanted.cpuparams_batch.n_threads = 1
    server = xllamacpp.Server(wanted)

    def ask(place: str, **given: Any) -> Any:
        request = urllib.request.Request(server.listening_address + place, json.dumps(given).encode())
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)

    return ask, encoder(student)


@pytest.mark.parametrize("text", TEXTS)
def test_llama_cpp_splits_a_text_as_training_does(asked: Any, text: str) -> None:
    ask, read = asked
    found = ask("/tokenize", content=text, add_special=True, parse_special=True)["tokens"]
    assert found == read.tokenizer(text)["input_ids"]


@pytest.mark.parametrize("text", TEXTS[:3])
def test_a_chat_asks_for_the_label_in_the_words_of_training(asked: Any, text: str) -> None:
    ask, read = asked
    text = text.strip()
    prompt = ask("/apply-template", messages=[{"role": "user", "content": text}])["prompt"]
    found = ask("/tokenize", content=prompt, add_special=True, parse_special=True)["tokens"]
    assert found == read.source(text, "label") + read.opening("label")


def another_split(config: dict[str, Any], tokenizer: dict[str, Any]) -> None:
    tokenizer["pre_tokenizer"] = {"type": "Whitespace"}


SPOILT: list[tuple[Spoil, str]] = [
    (another_split, r"\(BPE, Whitespace\) whose words llama.cpp would split in another way"),
    (lambda _, t: t.update(normalizer={"type": "NFC"}), "split in another way"),
    (lambda _, t: t["model"].update(ignore_merges=True), "split in another way"),
    (lambda _, t: t["pre_tokenizer"].update(add_prefix_space=True), "split in another way"),
    (lambda c, _: c.update(vocab_size=300), "more tokens than the 300 of its model"),
    (lambda c, _: c.update(model_type="qwen2"), "is a qwen2 model, and only those of Llama's type"),
    (lambda c, _: c.update(attention_bias=True), "has biases"),
    (lambda c, _: c.update(hidden_act="gelu"), "has the activation gelu"),
    (lambda c, _: c["rope_parameters"].update(rope_type="llama3"), r"scales its positions \(llama3\)"),
]


@pytest.mark.parametrize(("spoil", "words"), SPOILT)
def test_what_llama_cpp_would_take_wrongly_is_refused_beforehand(
    tmp_path: Path, spoil: Spoil, words: str
) -> None:
    student = make_student(tmp_path)
    gguf.check(student, "f16")
    read = {name: json.loads((student / name).read_text()) for name in ("config.json", "tokenizer.json")}
    spoil(read["config.json"], read["tokenizer.json"])
    for name, values in read.items():
        (student / name).write_text(json.dumps(values))
    with pytest.raises(StudentError, match=words) as refusal:
        gguf.check(student, "f16")
    assert "\n" not in str(refusal.value)
    assert "choose huggingface" in str(refusal.value)


def test_an_unknown_precision_and_a_missing_library_are_told(
    student: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match=r"did you mean 'q8_0'.*Allowed: f16, f32, q8_0"):
        gguf.check(student, "q8")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"pip install 'stepdistill\[gguf\]'"):
        gguf.check(student, "f16")


@pytest.mark.parametrize("damage", [lambda raw: raw[: len(raw) // 2], lambda raw: b"no such file"])
def test_a_damaged_file_is_refused_in_one_line(
    student: Path, tmp_path: Path, damage: Callable[[bytes], bytes]
) -> None:
    gguf.convert(student, tmp_path, "f16")
    raw = (tmp_path / MODEL).read_bytes()
    (tmp_path / MODEL).write_bytes(damage(raw))
    with pytest.raises(StepdistillError, match=r"llama\.cpp cannot load the file") as refusal:
        Llama(tmp_path / MODEL, bundle("f16"), 1)
    assert "\n" not in str(refusal.value)

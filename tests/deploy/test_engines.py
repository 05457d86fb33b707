"""Every engine says of a prompt what the model itself says of it alone, unpadded and without a cache."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import LlamaConfig, LlamaForCausalLM

from stepdistill.config import ScratchConfig
from stepdistill.deploy.bundle import Bundle, Tokens
from stepdistill.deploy.engines import Engine, Prompt, Question, open_engine
from stepdistill.student.encode import Prefix
from stepdistill.student.model import Student, load_student
from stepdistill.student.scratch import build, train_tokenizer
from stepdistill.weights import Family

TEXTS = [
    "Anna has 1 apples and gets 2. How many?",
    "Ben has 3",
    "Cleo has 7 apples and gets 6 more today today today. How many?",
    "How many?",
]
LABELS = ("3", "3 apples today", "3 apples", "more", "11")
"""One begins another, and two are several tokens long."""
KINDS = ("T5", "T5 told by its decoder", "Llama")
FORMATS = ("huggingface", "ctranslate2")


@dataclass(frozen=True)
class Trained:
    """A student on the disk, and as the reference runs it."""

    folder: Path
    student: Student

    def bundle(self, kind: Any, precision: str = "float32") -> Bundle:
        tokenizer, family = self.student.tokenizer, self.student.family
        start = self.student.model.config.decoder_start_token_id if family != "causal" else None
        return Bundle(
            format=kind,
            precision=precision,
            card={"family": family, "prefix": self.student.prefix, "machine": {"device": "cpu"}},
            tokens=Tokens(eos=tokenizer.eos_token_id, pad=tokenizer.pad_token_id, start=start),
            stepdistill="0",
        )

    def prompt(self, text: str) -> Prompt:
        encoder = self.student.encoder
        return Prompt(tuple(encoder.source(text, "label")), tuple(encoder.opening("label")))

    def question(self, text: str, labels: tuple[str, ...] = LABELS) -> Question:
        targets = tuple(tuple(self.student.encoder.target(label)) for label in labels)
        return Question(self.prompt(text), targets)

    @torch.inference_mode()
    def steps(self, prompt: Prompt, target: tuple[int, ...]) -> torch.Tensor:
        """log p of the whole vocabulary at every place of the target: (tokens, vocabulary)."""
        model, read = self.student.model.eval(), torch.tensor([[*prompt.source]])
        if self.student.family == "causal":
            read = torch.tensor([[*prompt.source, *prompt.opening, *target[:-1]]])
            logits = model(input_ids=read).logits[0]
        else:
            begin = model.config.decoder_start_token_id
            fed = torch.tensor([[begin, *prompt.opening, *target[:-1]]])
            logits = model(input_ids=read, decoder_input_ids=fed).logits[0]
        found: torch.Tensor = logits[-len(target) :].double().log_softmax(-1)
        return found

    def greedy(self, prompt: Prompt, new_tokens: int) -> list[int]:
        written: list[int] = []
        for _ in range(new_tokens):
            following = int(self.steps(prompt, (*written, 0))[-1].argmax())
            if following == self.student.tokenizer.eos_token_id:
                break
            written.append(following)
        return written


def drawn(student: Student) -> Student:
    """Weights so large that answers depend on the input, and such that some answers end by themselves."""
    for seed in range(99):
        torch.manual_seed(seed)
        for weight in student.model.parameters():
            weight.data = torch.randn_like(weight) * (0.4 if weight.dim() > 1 else 1.0)
        made = Trained(Path(), student)
        written = [made.greedy(made.prompt(text), 9) for text in TEXTS]
        begun = student.tokenizer.decode(max(written, key=len)[:4], skip_special_tokens=True).split()
        if 0 < sum(len(ids) < 9 for ids in written) < 3 and begun and len(set(map(tuple, written))) > 2:
            return student
    raise AssertionError("no weights will do")


@pytest.fixture(scope="session", params=KINDS)
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """A student of random weights, whose tokenizer has no beginning of sequence."""
    folder = tmp_path_factory.mktemp("student")
    words = [*TEXTS, *LABELS, "[label] [rationale]\n"]
    if "T5" in request.param:
        sizes = ScratchConfig(d_model=16, d_ff=32, heads=2, layers=2, vocabulary=200, dropout=0.5)
        model, tokenizer = build(sizes, words)
    else:
        tokenizer = train_tokenizer(words, 200)
        small = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2}
        heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 128}
        ends = {"pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id}
        config = LlamaConfig(vocab_size=len(tokenizer), bos_token_id=None, **small, **heads, **ends)
        model = LlamaForCausalLM(config)
    family: Family = "causal" if request.param == "Llama" else "encoder-decoder"
    prefix: Prefix = "decoder" if "decoder" in request.param else "encoder"
    student = drawn(Student(model, tokenizer, family, prefix))
    student.model.save_pretrained(folder)
    student.tokenizer.save_pretrained(folder)
    student = load_student(str(folder), prefix=prefix, device="cpu")
    assert student.tokenizer.bos_token_id is None
    return Trained(folder, student)


def converted(trained: Trained, folder: Path, precision: str) -> Path:
    from ctranslate2.converters import TransformersConverter

    quantization = None if precision == "float32" else precision
    TransformersConverter(str(trained.folder)).convert(str(folder), quantization=quantization)
    shutil.copy(trained.folder / "tokenizer.json", folder)
    # The converter names no beginning where the tokenizer has none; any token will do, none is added.
    config = json.loads((folder / "config.json").read_text())
    config["bos_token"] = config["bos_token"] or config["eos_token"]
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture(scope="session")
def open_as(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Engine]:
    """The student by an engine; converted once."""
    made: dict[tuple[str, str], Engine] = {}

    def open_(kind: str, precision: str = "float32") -> Engine:
        if (kind, precision) not in made:
            home = tmp_path_factory.mktemp("bundle") / "it"
            folder = trained.folder if kind == "huggingface" else converted(trained, home, precision)
            made[kind, precision] = open_engine(folder, trained.bundle(kind, precision), threads=1)
        return made[kind, precision]

    return open_


@pytest.fixture(scope="session", params=FORMATS)
def engine(request: pytest.FixtureRequest, open_as: Callable[..., Engine]) -> Engine:
    """Every engine, in float32."""
    return open_as(request.param)


def test_the_first_step_is_the_models_own_for_every_token(trained: Trained, engine: Engine) -> None:
    size = trained.student.model.config.vocab_size
    prompts = [trained.prompt(text) for text in TEXTS]
    # Also the ids that a library might keep from being written: padding, end, unknown.
    found = engine.first([Question(prompt, tuple((id_,) for id_ in range(size))) for prompt in prompts])
    for prompt, row in zip(prompts, found, strict=True):
        assert row == pytest.approx(trained.steps(prompt, (0,))[0].tolist(), abs=1e-3)


def test_every_token_of_every_label_is_spelled_as_the_model_does(trained: Trained, engine: Engine) -> None:
    questions = [trained.question(text) for text in TEXTS]
    for question, row in zip(questions, engine.spell(questions), strict=True):
        for target, tokens in zip(question.targets, row, strict=True):
            steps = trained.steps(question.prompt, target)
            expected = [float(step[id_]) for step, id_ in zip(steps, target, strict=True)]
            assert tokens == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("new_tokens", [1, 2, 9])
def test_greedy_words_are_the_models(trained: Trained, engine: Engine, new_tokens: int) -> None:
    prompts = [trained.prompt(text) for text in TEXTS]
    expected = [trained.greedy(prompt, new_tokens) for prompt in prompts]
    assert new_tokens < 9 or len(set(map(tuple, expected))) > 2
    assert new_tokens < 9 or min(map(len, expected)) < 9, "none ends by itself"
    assert engine.write(prompts, new_tokens) == expected


def test_a_batch_is_what_its_members_are_alone(trained: Trained, engine: Engine) -> None:
    own = [LABELS, LABELS[1:2], LABELS[::-1], LABELS[:3]]
    questions = [trained.question(text, labels) for text, labels in zip(TEXTS, own, strict=True)]
    whole = list(zip(engine.first(questions), engine.spell(questions), strict=True))
    for question, (first, spelled) in zip(questions, whole, strict=True):
        assert engine.first([question])[0] == pytest.approx(first, abs=1e-4)
        for tokens, alone in zip(spelled, engine.spell([question])[0], strict=True):
            assert alone == pytest.approx(tokens, abs=1e-4)
        assert first == pytest.approx([tokens[0] for tokens in spelled], abs=1e-4)
    assert [engine.first([]), engine.spell([]), engine.write([], 3)] == [[], [], []]


def test_openings_may_differ_in_one_batch(trained: Trained, engine: Engine) -> None:
    prompts = [trained.prompt(text) for text in TEXTS]
    prompts[1] = replace(prompts[1], opening=tuple(trained.student.encoder.target("more today")[:-1]))
    assert engine.write(prompts, 5) == [trained.greedy(prompt, 5) for prompt in prompts]
    questions = [replace(trained.question(TEXTS[0]), prompt=prompt) for prompt in prompts]
    for question, row in zip(questions, engine.first(questions), strict=True):
        steps = trained.steps(question.prompt, (0,))[0]
        assert row == pytest.approx([float(steps[target[0]]) for target in question.targets], abs=1e-3)


def test_an_answer_may_end_where_it_has_written_a_string(trained: Trained, engine: Engine) -> None:
    prompts, tokenizer = [trained.prompt(text) for text in TEXTS], trained.student.tokenizer
    whole = engine.write(prompts, 12)
    longest = max(whole, key=len)
    stop = max(tokenizer.decode(longest[:4], skip_special_tokens=True).split(), key=len)
    found = engine.write(prompts, 12, stop)
    for ids, cut in zip(whole, found, strict=True):
        assert cut == ids[: len(cut)]
        assert stop in tokenizer.decode(cut) if stop in tokenizer.decode(ids) else cut == ids
    assert len(found[whole.index(longest)]) < len(longest)
    # What is read is not written.
    assert not any("How many" in tokenizer.decode(ids) for ids in whole)
    assert engine.write(prompts, 12, "How many") == whole


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_engines_agree_on_any_ids(trained: Trained, open_as: Callable[..., Engine], data: Any) -> None:
    size = trained.student.model.config.vocab_size
    ids = st.integers(3, size - 1)
    lists = st.lists(ids, min_size=1, max_size=6).map(tuple)
    opening = data.draw(lists) if trained.prompt("").opening else ()
    end = (int(trained.student.tokenizer.eos_token_id),)
    source = st.builds(Prompt, lists, st.just(opening))
    targets = st.lists(st.lists(ids, max_size=4).map(lambda row: (*row, *end)), min_size=1, max_size=4)
    question = st.builds(Question, source, targets.map(tuple))
    questions = data.draw(st.lists(question, min_size=1, max_size=4))
    torch_, light = (open_as(kind) for kind in FORMATS)
    for one, other in zip(torch_.first(questions), light.first(questions), strict=True):
        assert one == pytest.approx(other, abs=1e-3)
    for row, same in zip(torch_.spell(questions), light.spell(questions), strict=True):
        for one, other in zip(row, same, strict=True):
            assert one == pytest.approx(other, abs=1e-3)


def test_int8_is_close_and_no_answer_depends_on_who_else_asks(
    trained: Trained, open_as: Callable[..., Engine]
) -> None:
    plain, small = open_as("ctranslate2"), open_as("ctranslate2", "int8")
    questions = [trained.question(text) for text in (*TEXTS, "Ben has 7", "Ben more 3")]
    assert (plain.computes, small.computes) == ("float32", "int8_float32")
    pairs = list(zip(plain.first(questions), small.first(questions), strict=True))
    for one, other in pairs:
        assert sum(abs(a - b) for a, b in zip(one, other, strict=True)) / len(one) < 1.0
    assert [one for one, _ in pairs] != [other for _, other in pairs]
    for question, (_, first) in zip(questions, pairs, strict=True):
        assert small.first([question])[0] == pytest.approx(first, abs=1e-4)
    prompts = [question.prompt for question in questions]
    assert small.write(prompts, 9) == [small.write([prompt], 9)[0] for prompt in prompts]

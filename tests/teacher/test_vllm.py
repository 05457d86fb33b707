"""The vLLM teacher: what its engine is given, and how its outputs become replies."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, PreTrainedTokenizerFast, T5Config

from stepdistill.config import TeacherConfig
from stepdistill.errors import MissingExtraError, TeacherError
from stepdistill.teacher.protocol import Message, Prompt, Sampling
from stepdistill.teacher.vllm import VllmBackend

VOCABULARY = {"<unk>": 0, "</s>": 1, "Why": 2, "not": 3}


class Engine:
    """Stands in for `vllm.LLM`: answers with the number of tokens that it was given."""

    made: list[dict[str, Any]] = []
    given: list[tuple[Any, Any]] = []

    def __init__(self, **settings: Any) -> None:
        Engine.made.append(settings)
        if settings["model"].endswith("broken"):
            raise RuntimeError("no GPU\nat all")
        self.llm_engine = SimpleNamespace(model_config=SimpleNamespace(max_model_len=10))

    def generate(self, prompts: list[Any], drawings: list[Any], use_tqdm: bool) -> list[Any]:
        Engine.given += zip(prompts, drawings, strict=True)
        return [
            SimpleNamespace(
                prompt_token_ids=prompt["prompt_token_ids"],
                num_cached_tokens=0,
                outputs=[
                    SimpleNamespace(
                        text=str(len(prompt["prompt_token_ids"])), token_ids=[5, 1], finish_reason="stop"
                    )
                ],
            )
            for prompt in prompts
        ]


@pytest.fixture
def backend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., VllmBackend]:
    """A teacher whose engine is the stand-in."""
    module = ModuleType("vllm")
    module.__dict__.update(LLM=Engine, SamplingParams=lambda **settings: settings)
    monkeypatch.setitem(sys.modules, "vllm", module)
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name == "vllm" or find_spec(name))
    monkeypatch.setattr(Engine, "made", [])
    monkeypatch.setattr(Engine, "given", [])

    def make(name: str = "model", config: Any = LlamaConfig) -> VllmBackend:
        folder = tmp_path / name
        plain = Tokenizer(models.WordLevel(VOCABULARY, unk_token="<unk>"))
        plain.pre_tokenizer = pre_tokenizers.Whitespace()
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=plain, eos_token="</s>", unk_token="<unk>")
        tokenizer.save_pretrained(folder)
        config().save_pretrained(folder)
        return VllmBackend(TeacherConfig(backend="vllm", model=str(folder), style="text"), 7)

    return make


def asked(text: str) -> Prompt:
    return Prompt((), (Message("user", text),))


def test_the_engine_gets_ids_and_its_outputs_become_replies(backend: Callable[..., VllmBackend]) -> None:
    teacher = backend()
    sampling = Sampling(temperature=0.5, top_p=0.9, max_tokens=3, stop=("\nQ:",))
    replies = teacher.complete([asked("Why"), asked("Why not </s>"), asked("Why")], sampling, [0, 0, 1])
    assert [made["enable_prefix_caching"] for made in Engine.made] == [True]
    ids = [prompt["prompt_token_ids"] for prompt, _ in Engine.given]
    assert ids[0] == ids[2] == [2]
    assert ids[1][:2] == [2, 3]
    assert 1 not in ids[1]
    assert [reply.text for reply in replies] == ["1", str(len(ids[1])), "1"]
    assert [reply.prompt_tokens for reply in replies] == [len(row) for row in ids]
    assert {(reply.finish, reply.completion_tokens) for reply in replies} == {("stop", 2)}
    for _, drawing in Engine.given:
        rest = {name: value for name, value in drawing.items() if name != "seed"}
        assert rest == {"temperature": 0.5, "top_p": 0.9, "max_tokens": 3, "stop": ["\nQ:"]}


def test_every_draw_has_a_seed_that_is_its_own_and_stays(backend: Callable[..., VllmBackend]) -> None:
    teacher, sampling = backend(), Sampling(temperature=1.0, max_tokens=3)
    teacher.complete([asked("Why"), asked("Why"), asked("not")], sampling, [0, 1, 0])
    teacher.complete([asked("not"), asked("Why")], sampling, [0, 0])
    seeds = [drawing["seed"] for _, drawing in Engine.given]
    assert len(set(seeds[:3])) == 3
    assert seeds[3:] == [seeds[2], seeds[0]]


def test_what_the_engine_cannot_do_is_refused_in_one_line(backend: Callable[..., VllmBackend]) -> None:
    with pytest.raises(TeacherError, match="encoder-decoder, which vLLM does not run"):
        backend(config=T5Config).complete([asked("Why")], Sampling(max_tokens=3), [0])
    with pytest.raises(TeacherError, match=r"vllm cannot start .*broken' \(no GPU\); set teacher.backend"):
        backend("broken").complete([asked("Why")], Sampling(max_tokens=3), [0])
    with pytest.raises(TeacherError, match="the longest has 8, and the model has 10 positions less 3"):
        backend().complete([asked("Why " * 8)], Sampling(max_tokens=3), [0])


def test_tokens_are_counted_without_the_engine(backend: Callable[..., VllmBackend]) -> None:
    assert len(backend().encoded(asked("Why not"))) == 2
    assert Engine.made == []


def test_without_vllm_the_extra_to_install_is_named() -> None:
    if importlib.util.find_spec("vllm") is not None:
        pytest.skip("vllm is installed")
    with pytest.raises(MissingExtraError, match=r"teacher.backend: vllm .* 'stepdistill\[vllm\]'"):
        VllmBackend(TeacherConfig(backend="vllm", model="x"), 0)

"""LoRA: few weights beside a frozen model, merged into a plain one that answers the same."""

from __future__ import annotations

import builtins
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from transformers import T5Config, T5ForConditionalGeneration

from stepdistill.config import LoraConfig
from stepdistill.errors import MissingExtraError
from stepdistill.student.adapter import adapt, merged, trainable
from stepdistill.student.model import Student, load_student

FAMILIES = ("encoder-decoder", "causal")
SIZES = LoraConfig(rank=2, alpha=4, dropout=0.0)
IDS = torch.tensor([[5, 6, 7, 8, 9]])


def logits(model: Any, family: str) -> torch.Tensor:
    """What the model says to fixed ids."""
    more = {} if family == "causal" else {"decoder_input_ids": IDS[:, :3]}
    with torch.no_grad():
        return model.eval()(input_ids=IDS, **more).logits


def learn(model: Any, family: str, steps: int = 3) -> float:
    """A few large steps towards fixed ids; the last loss."""
    optimizer = torch.optim.AdamW([w for w in model.parameters() if w.requires_grad], lr=0.05)
    for _ in range(steps):
        loss = model.train()(input_ids=IDS, labels=IDS).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return float(loss.detach())


def adapted(student: Student, sizes: LoraConfig = SIZES) -> Any:
    torch.manual_seed(1)
    return adapt(student.model, sizes, student.family)


def linears(model: Any) -> set[str]:
    """Names of the linear layers that got low-rank weights, in the base model."""
    return {
        name.removeprefix("base_model.model.")
        for name, module in model.named_modules()
        if hasattr(module, "lora_A")
    }


@pytest.mark.parametrize("family", FAMILIES)
def test_only_low_rank_weights_learn_and_the_model_begins_as_it_was(
    make_student: Callable[..., Student], family: str
) -> None:
    student = make_student(family)
    before, total = logits(student.model, family), student.parameters
    model = adapted(student)
    assert torch.equal(logits(model, family), before)
    learnt = {name for name, weight in model.named_parameters() if weight.requires_grad}
    assert learnt
    assert all("lora_" in name for name in learnt)
    assert trainable(model) == sum(w.numel() for n, w in model.named_parameters() if "lora_" in n)
    assert sum(w.numel() for w in model.parameters()) == total + trainable(model)
    frozen = {n: w.clone() for n, w in model.named_parameters() if not w.requires_grad}
    learn(model, family)
    assert all(torch.equal(w, frozen[n]) for n, w in model.named_parameters() if n in frozen)
    assert not torch.allclose(logits(model, family), before, atol=1e-3)


@pytest.mark.parametrize("form", ["relu", "gated-gelu"])
def test_every_linear_layer_of_a_t5_is_adapted_but_not_its_head(form: str) -> None:
    config = T5Config(
        vocab_size=30, d_model=8, d_kv=4, d_ff=16, num_layers=1, num_heads=2, feed_forward_proj=form,
        tie_word_embeddings=form == "relu",
    )  # fmt: skip
    model = T5ForConditionalGeneration(config)
    layers = {n for n, m in model.named_modules() if isinstance(m, torch.nn.Linear)}
    found = linears(adapt(model, SIZES, "encoder-decoder"))
    assert found == layers - {"lm_head"}
    inner = ("wi_0", "wi_1", "wo") if form == "gated-gelu" else ("wi", "wo")
    assert {name.split(".")[-1] for name in found} == {"q", "k", "v", "o", *inner}


def test_every_linear_layer_of_a_llama_is_adapted_but_not_its_head(
    make_student: Callable[..., Student],
) -> None:
    found = linears(adapted(make_student("causal")))
    names = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
    assert {name.split(".")[-1] for name in found} == names
    assert len(found) == 2 * len(names)


@pytest.mark.parametrize("family", FAMILIES)
def test_rank_alpha_and_dropout_are_those_asked_for(
    make_student: Callable[..., Student], family: str
) -> None:
    model = adapted(make_student(family), LoraConfig(rank=3, alpha=12, dropout=0.25))
    layer = next(module for module in model.modules() if hasattr(module, "lora_A"))
    assert layer.lora_A["default"].out_features == 3
    assert layer.scaling["default"] == 4.0
    assert layer.lora_dropout["default"].p == 0.25
    kind = peft.TaskType.CAUSAL_LM if family == "causal" else peft.TaskType.SEQ_2_SEQ_LM
    assert model.peft_config["default"].task_type == kind


@pytest.mark.parametrize("family", FAMILIES)
def test_the_same_seed_draws_the_same_weights(make_student: Callable[..., Student], family: str) -> None:
    first, again = (dict(adapted(make_student(family)).named_parameters()) for _ in range(2))
    assert all(torch.equal(weight, again[name]) for name, weight in first.items())
    torch.manual_seed(2)
    other = dict(adapt(make_student(family).model, SIZES, family).named_parameters())
    assert any(not torch.equal(weight, other[name]) for name, weight in first.items())


@pytest.mark.parametrize("family", FAMILIES)
def test_a_merged_student_is_a_plain_folder_that_answers_the_same(
    make_student: Callable[..., Student], family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    student = make_student(family)
    kind, model = type(student.model), adapted(student)
    learn(model, family)
    expected = logits(model, family)
    written = model.generate(input_ids=IDS, max_new_tokens=6).tolist()
    plain = merged(model)
    assert type(plain) is kind
    assert all(weight.requires_grad for weight in plain.parameters())
    assert not any("lora" in name for name in plain.state_dict())
    plain.save_pretrained(tmp_path)
    student.tokenizer.save_pretrained(tmp_path)
    assert not list(tmp_path.glob("adapter*"))

    def without_peft(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.partition(".")[0] == "peft":
            raise ModuleNotFoundError(name)
        return imported(name, *args, **kwargs)

    imported = builtins.__import__
    monkeypatch.setattr(builtins, "__import__", without_peft)
    loaded = load_student(str(tmp_path))
    torch.testing.assert_close(logits(loaded.model, family), expected, rtol=1e-5, atol=1e-5)
    assert loaded.model.generate(input_ids=IDS, max_new_tokens=6).tolist() == written


@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize("family", FAMILIES)
def test_gradient_checkpointing_gives_the_same_gradients(
    make_student: Callable[..., Student], family: str, reentrant: bool
) -> None:
    def gradients(checkpointing: bool) -> dict[str, torch.Tensor]:
        model = adapted(make_student(family))
        if checkpointing:
            model.activation_checkpointing_enable({"use_reentrant": reentrant})
        # The second of the two low-rank matrices begins at zero, and then the first has no gradient.
        torch.manual_seed(3)
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(weight, std=0.1)
        model.train()(input_ids=IDS, labels=IDS).loss.backward()
        return {n: w.grad for n, w in model.named_parameters() if w.requires_grad}

    plain, saved = gradients(False), gradients(True)
    for name, gradient in plain.items():
        assert gradient.abs().max() > 0, name
        torch.testing.assert_close(saved[name], gradient)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_checkpoint_is_safetensors_without_a_place_and_reads_back(
    make_student: Callable[..., Student], family: str, tmp_path: Path
) -> None:
    model = adapted(make_student(family))
    learn(model, family)
    for _ in range(2):  # the first save can change what the second writes
        model.save_pretrained(tmp_path)
    names = {path.name for path in tmp_path.iterdir()}
    assert "adapter_model.safetensors" in names
    assert not [name for name in names if name.endswith((".bin", ".pt", ".pkl"))]
    assert peft.PeftConfig.from_pretrained(tmp_path).base_model_name_or_path == ""
    fresh = adapted(make_student(family))
    fresh.load_adapter(str(tmp_path), "default", is_trainable=True)
    assert torch.equal(logits(fresh, family), logits(model, family))
    assert trainable(fresh) == trainable(model)


class Trap:
    """An object that, when unpickled, leaves a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (Path.touch, (self.path,))


def test_a_pickled_adapter_is_not_run(make_student: Callable[..., Student], tmp_path: Path) -> None:
    model = adapted(make_student("causal"))
    model.save_pretrained(tmp_path)
    (tmp_path / "adapter_model.safetensors").unlink()
    torch.save({"weight": Trap(tmp_path / "sprung")}, tmp_path / "adapter_model.bin")
    with pytest.raises(Exception, match="weights_only"):
        model.load_adapter(str(tmp_path), "default")
    assert not (tmp_path / "sprung").exists()


@pytest.mark.filterwarnings("error")
def test_a_user_is_told_nothing_that_he_could_not_mend(make_student: Callable[..., Student]) -> None:
    adapted(make_student())


def test_without_peft_the_extra_is_named(
    make_student: Callable[..., Student], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'stepdistill\[lora\]'"):
        adapted(make_student())

"""One call for both tasks is the same function as a call for each target alone."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    FalconConfig,
    FalconForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
)

from stepdistill.student.batch import Collator
from stepdistill.student.branches import can_branch
from stepdistill.student.encode import TASKS, Branch, Item, Row
from stepdistill.student.forward import multitask
from stepdistill.student.loss import multitask_loss, task_sums, token_weight

VOCABULARY = 60
PAD, END = 0, 1
SIZES = {"vocab_size": VOCABULARY, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2}
MEANS = ("tokens", "examples")


def llama(**more: Any) -> Any:
    torch.manual_seed(0)
    config = LlamaConfig(**SIZES, num_attention_heads=4, num_key_value_heads=2, initializer_range=0.3, **more)
    return exact(LlamaForCausalLM(config))


def t5(**more: Any) -> Any:
    torch.manual_seed(0)
    sizes = {"d_model": 16, "d_kv": 4, "d_ff": 24, "num_layers": 2, "num_heads": 4, "dropout_rate": 0.0}
    sizes["decoder_start_token_id"] = PAD
    return exact(T5ForConditionalGeneration(T5Config(vocab_size=VOCABULARY, **{**sizes, **more})))


def bart() -> Any:
    torch.manual_seed(0)
    sizes = {"d_model": 16, "encoder_ffn_dim": 24, "decoder_ffn_dim": 24, "max_position_embeddings": 64}
    layers = {"encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4}
    config = BartConfig(
        vocab_size=VOCABULARY, **sizes, **layers, decoder_attention_heads=4, dropout=0.0, init_std=0.3
    )
    return exact(BartForConditionalGeneration(config))


def exact(model: Any) -> Any:
    """All of it in float64; transformers takes norms in float32 whatever the weights are."""
    for module in model.modules():
        if hasattr(module, "variance_epsilon"):
            module.forward = lambda x, m=module: (
                m.weight * x * torch.rsqrt(x.square().mean(-1, keepdim=True) + m.variance_epsilon)
            )
    return model.double().train()


def draw(seed: int, n: int = 5, causal: bool = True, share: bool = True) -> list[Item]:
    """Examples with no, one or two rationales, of many lengths; `share` puts targets behind one input."""
    dice = random.Random(seed)

    def ids(least: int, most: int) -> list[int]:
        return [dice.randrange(8, VOCABULARY) for _ in range(dice.randint(least, most))]

    items: list[Item] = []
    for number in range(n):
        opened = {"label": [2], "rationale": [3, 4]} if causal or share else {"label": [], "rationale": []}
        branches = [Branch("label", opened["label"], [*ids(1, 3), END], dice.choice((1.0, 0.5)))]
        for _ in range(number % 3):
            branches.append(Branch("rationale", opened["rationale"], [*ids(3, 12), END], 1 / (number % 3)))
        source = ids(2, 9)
        rows = [Row(source, tuple(branches))] if share else [Row(source, (b,)) for b in branches]
        items.append(tuple(rows))
    return items


def alone(items: list[Item]) -> list[Item]:
    """The same examples with an input for each target."""
    return [tuple(Row(row.source, (b,)) for row in item for b in row.branches) for item in items]


def gradients(
    model: Any, family: Any, items: list[Item], mean: Any = "tokens", totals: Any = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """The loss of a batch with lambda 0.7, and all gradients in one vector."""
    batch = Collator(PAD, family, mean, 0)(list(enumerate(items)))
    model.zero_grad()
    with multitask(model, family):
        sums = model(batch=batch)
    loss = multitask_loss(sums, batch["totals"] if totals is None else totals, 0.7)
    loss.backward()
    return loss.detach(), flat(model)


def flat(model: Any) -> torch.Tensor:
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]).clone()


def written_out(model: Any, family: str, items: list[Item], mean: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """The loss of Eq. 3 from the model's own logits: one target at a time, unpadded, nothing shared."""
    sums, totals = torch.zeros(2, dtype=torch.float64), torch.zeros(2, dtype=torch.float64)
    model.zero_grad()
    for row, branch in [(r, b) for item in items for r in item for b in r.branches]:
        n, task = len(branch.target), TASKS.index(branch.task)
        if family == "causal":
            ids = [*row.source, *branch.opening, *branch.target]
            logits = model(input_ids=torch.tensor([ids])).logits[0, -n - 1 : -1]
        else:
            read = torch.tensor([[0, *branch.opening, *branch.target[:-1]]])
            logits = model(input_ids=torch.tensor([row.source]), decoder_input_ids=read).logits[0, -n:]
        weight = token_weight(branch.weight, n, mean)
        losses = torch.nn.functional.cross_entropy(logits, torch.tensor(branch.target), reduction="none")
        sums = sums + torch.eye(2, dtype=torch.float64)[task] * losses.sum() * weight
        totals[task] += n * weight
    loss = multitask_loss(sums, totals, 0.7)
    loss.backward()
    return loss.detach(), flat(model)


MODELS = {
    "llama": (llama, "causal", True),
    "llama eager": (lambda: llama(attn_implementation="eager"), "causal", True),
    "t5": (t5, "encoder-decoder", False),
    "t5 v1.1": (
        lambda: t5(feed_forward_proj="gated-gelu", tie_word_embeddings=False),
        "encoder-decoder",
        False,
    ),
    "t5, marked on the decoder": (t5, "encoder-decoder", True),
    "bart": (bart, "encoder-decoder", False),
}

TOLERANCE = {"llama eager": 1e-6}
"""1e-9 for the others; eager attention takes its softmax in float32."""


@pytest.mark.parametrize("mean", MEANS)
@pytest.mark.parametrize("name", MODELS)
def test_it_is_the_loss_and_gradient_of_each_target_alone(name: str, mean: str) -> None:
    make, family, share = MODELS[name]
    items = draw(1, causal=family == "causal", share=share)
    loss, found = gradients(make(), family, items, mean)
    expected, wanted = written_out(make(), family, items, mean)
    allowed = TOLERANCE.get(name, 1e-9)
    assert loss.item() == pytest.approx(expected.item(), rel=allowed)
    assert float(wanted.abs().max()) > 1e-3
    assert float((found - wanted).abs().max()) < allowed


@pytest.mark.parametrize("name", ["llama", "llama eager", "t5, marked on the decoder"])
def test_a_shared_input_gives_the_gradients_of_separate_sequences(name: str) -> None:
    make, family, _ = MODELS[name]
    items = draw(2, n=8)
    _, shared = gradients(make(), family, items)
    _, separate = gradients(make(), family, alone(items))
    assert float(shared.abs().max()) > 1e-3
    assert float((shared - separate).abs().max()) < TOLERANCE.get(name, 1e-9)


@given(seed=st.integers(0, 10_000), cut=st.integers(1, 6))
@settings(max_examples=10)
@pytest.mark.parametrize("name", ["llama", "t5"])
def test_however_a_step_is_cut_and_ordered_its_gradient_is_the_same(name: str, seed: int, cut: int) -> None:
    # Other batches are other paddings: short examples stand beside long ones, or beside none.
    make, family, share = MODELS[name]
    items = draw(seed, n=7, causal=family == "causal", share=share)
    model = make()
    totals = Collator(PAD, family, "tokens", 0)(list(enumerate(items)))["totals"]
    loss, whole = gradients(model, family, items)
    order = random.Random(seed).sample(items, len(items))
    parts = [gradients(model, family, order[i : i + cut], totals=totals) for i in range(0, 7, cut)]
    assert float(sum(part for part, _ in parts)) == pytest.approx(loss.item(), rel=1e-9)
    assert float((sum(part for _, part in parts) - whole).abs().max()) < 1e-9


@pytest.mark.parametrize("name", ["llama", "t5"])
def test_a_muted_example_counts_nothing(name: str) -> None:
    make, family, share = MODELS[name]
    items = draw(3, causal=family == "causal", share=share)
    mute = tuple(
        Row(r.source, tuple(Branch(b.task, b.opening, b.target, 0.0) for b in r.branches)) for r in items[2]
    )
    _, without = gradients(make(), family, items)
    _, beside = gradients(make(), family, [*items, mute])
    assert float((without - beside).abs().max()) < 1e-9


def test_no_branch_sees_another() -> None:
    model = llama().eval()
    label, first, second = (
        Branch("label", [2], [9, END]),
        *(Branch("rationale", [3], [n, n, END]) for n in (7, 8)),
    )
    sums = []
    for rationale in (first, second):
        batch = Collator(PAD, "causal")(
            [(0, (Row([5, 6], (label, rationale)),)), (1, (Row([5], (rationale, label)),))]
        )
        with multitask(model, "causal"), torch.no_grad():
            sums.append(model(batch=batch))
    assert sums[0][0].item() == pytest.approx(sums[1][0].item(), rel=1e-12)
    assert abs(sums[0][1].item() - sums[1][1].item()) > 1e-3


@pytest.mark.parametrize("name", MODELS)
def test_logits_are_made_on_target_positions_only(name: str) -> None:
    make, family, share = MODELS[name]
    items = draw(4, causal=family == "causal", share=share)
    model, seen = make(), []
    model.get_output_embeddings().register_forward_hook(lambda *call: seen.append(len(call[-1])))
    gradients(model, family, items)
    assert sum(seen) == sum(len(b.target) for item in items for row in item for b in row.branches)


@pytest.mark.parametrize("name", ["llama", "t5"])
def test_each_input_is_read_in_one_call(name: str) -> None:
    make, family, share = MODELS[name]
    model, calls = make(), []
    part = model.model if family == "causal" else model.get_encoder()
    part.register_forward_pre_hook(lambda *_: calls.append(1))
    gradients(model, family, draw(5, causal=family == "causal", share=share))
    assert len(calls) == 1


@pytest.mark.parametrize("name", ["llama", "t5"])
def test_other_calls_are_as_before_and_nothing_stays(name: str) -> None:
    make, family, _ = MODELS[name]
    model, ids = make().eval(), torch.tensor([[5, 6, 7]])
    given = {"input_ids": ids} if family == "causal" else {"input_ids": ids, "decoder_input_ids": ids}
    before = model(**given).logits
    with multitask(model, family):
        assert torch.equal(model(**given).logits, before)
        written = model.generate(input_ids=ids, max_new_tokens=3)
    assert torch.equal(model.generate(input_ids=ids, max_new_tokens=3), written)
    assert "forward" not in vars(model)
    with pytest.raises((TypeError, ValueError)):
        model(batch={})


@pytest.mark.parametrize("name", MODELS)
def test_gradient_checkpointing_computes_each_block_twice_and_changes_no_gradient(name: str) -> None:
    make, family, share = MODELS[name]
    items = draw(6, causal=family == "causal", share=share)
    found, calls = [], []
    for saves in (False, True):
        model, counted = make(), []
        if saves:
            model.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})
        # The first linear layer is one of the first block; hooks of the block itself see one call only.
        first = next(module for module in model.modules() if isinstance(module, torch.nn.Linear))
        first.register_forward_pre_hook(lambda *_, counted=counted: counted.append(1))
        found.append(gradients(model, family, items)[1])
        calls.append(len(counted))
    assert calls == [1, 2]
    assert float(found[0].abs().max()) > 1e-3
    assert float((found[0] - found[1]).abs().max()) < TOLERANCE.get(name, 1e-9)


def test_models_that_cannot_branch_are_told_apart() -> None:
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1}
    assert can_branch(llama())
    assert can_branch(MistralForCausalLM(MistralConfig(**SIZES, **heads, sliding_window=None)))
    assert not can_branch(MistralForCausalLM(MistralConfig(**SIZES, **heads, sliding_window=16)))
    assert not can_branch(GPT2LMHeadModel(GPT2Config(vocab_size=60, n_embd=16, n_layer=1, n_head=2)))
    falcon = {"vocab_size": 60, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    assert can_branch(FalconForCausalLM(FalconConfig(**falcon, alibi=False)))
    assert not can_branch(FalconForCausalLM(FalconConfig(**falcon, alibi=True)))


@pytest.mark.parametrize("kind", ["gpt2", "mistral"])
def test_those_are_trained_on_separate_sequences(kind: str) -> None:
    torch.manual_seed(0)
    if kind == "gpt2":
        sizes = {"n_embd": 16, "n_layer": 2, "n_head": 2, "resid_pdrop": 0.0, "embd_pdrop": 0.0}
        model: Any = GPT2LMHeadModel(GPT2Config(vocab_size=VOCABULARY, **sizes, attn_pdrop=0.0))
    else:
        heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "sliding_window": 4}
        model = MistralForCausalLM(MistralConfig(**SIZES, **heads))
    model = exact(model)
    items = alone(draw(7))
    loss, found = gradients(model, "causal", items)
    expected, wanted = written_out(model, "causal", items, "tokens")
    assert loss.item() == pytest.approx(expected.item(), rel=1e-9)
    assert float((found - wanted).abs().max()) < 1e-9


def test_sums_of_half_precision_logits_are_taken_in_float32() -> None:
    logits, ids = torch.randn(4, 9).bfloat16(), torch.tensor([1, 2, 3, 4])
    ones, tasks = torch.ones(4), torch.tensor([0, 1, 1, 0])
    assert torch.equal(task_sums(logits, ids, ones, tasks), task_sums(logits.float(), ids, ones, tasks))

"""Distilling step-by-step as one flat script: two plain forward passes, one loss, no classes.

    python examples/flat_loop.py
    python examples/flat_loop.py --data annotated.jsonl --model FOLDER

`stepdistill train` does the same faster; a test holds both to the same losses and weights. FOLDER has a T5,
or a causal model like Llama; annotated.jsonl is an export of annotations (`stepdistill annotate --export`).
Without them a tiny T5 learns from the quickstart's letters, which are a SIMULATION.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
from torch.nn.functional import cross_entropy
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
    get_linear_schedule_with_warmup,
)

Row = dict[str, Any]
Pair = tuple[list[int], list[int]]
TASKS = ("label", "rationale")
IGNORED = -100


def encode(tokenizer: Any, family: str, row: Row, task: str) -> Pair | None:
    """What is read and what is written, as ids: `[task] x` and the target; None without a target."""
    if not row[task]:
        return None
    target = tokenizer(row[task], add_special_tokens=False)["input_ids"] + [tokenizer.eos_token_id]
    if family == "encoder-decoder":
        return tokenizer(f"[{task}] {row['text']}")["input_ids"], target
    # A causal model reads the task behind the input; the parts are tokenized apart, as for a prediction.
    read = tokenizer(row["text"] + "\n")["input_ids"]
    read = read[:-1] if read[-1] == tokenizer.eos_token_id else read
    return read + tokenizer(f"[{task}]\n", add_special_tokens=False)["input_ids"], target


def padded(rows: Sequence[list[int]], filler: int) -> torch.Tensor:
    """Rows as one tensor, filled up behind."""
    width = max(len(row) for row in rows)
    return torch.tensor([row + [filler] * (width - len(row)) for row in rows])


def task_loss(model: Any, family: str, pairs: Sequence[Pair], pad: int) -> torch.Tensor:
    """Mean cross-entropy over the target tokens of one task: a forward pass with logits everywhere."""
    if not pairs:
        return torch.zeros(())
    if family == "encoder-decoder":
        read, labels = padded([x for x, _ in pairs], pad), padded([y for _, y in pairs], IGNORED)
        mask = padded([[1] * len(x) for x, _ in pairs], 0)
        shifted = model.prepare_decoder_input_ids_from_labels(labels)
        logits = model(input_ids=read, attention_mask=mask, decoder_input_ids=shifted).logits
    else:
        read = padded([x + y for x, y in pairs], pad)
        mask = padded([[1] * len(x + y) for x, y in pairs], 0)
        labels = padded([[IGNORED] * len(x) + y for x, y in pairs], IGNORED)[:, 1:]
        logits = model(input_ids=read, attention_mask=mask).logits[:, :-1]
    return cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED)


def losses(
    model: Any,
    tokenizer: Any,
    family: str,
    batches: Sequence[Sequence[Row]],
    learning_rate: float,
    weight: float = 1.0,
    warmup: int = 0,
) -> Iterator[tuple[float, float]]:
    """Train on the batches in their order; after each step, the loss of the label and the rationale.

    L = L_label + weight * L_rationale. Each is a mean over the whole batch, which is one optimizer step.
    """
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=learning_rate, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0, fused=True
    )
    schedule = get_linear_schedule_with_warmup(optimizer, warmup, len(batches))
    model.train()
    for batch in batches:
        found = []
        for task in TASKS:
            pairs = [pair for row in batch if (pair := encode(tokenizer, family, row, task))]
            found.append(task_loss(model, family, pairs, tokenizer.pad_token_id))
        label, rationale = found
        loss: Any = label + weight * rationale
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        yield label.item(), rationale.item()


def shuffled(rows: Sequence[Row], batch_size: int, epochs: int, seed: int) -> list[list[Row]]:
    """Every row once an epoch, in an order that the seed decides; the last batch may be smaller."""
    chance = torch.Generator().manual_seed(seed)
    batches = []
    for _ in range(epochs):
        order = [rows[i] for i in torch.randperm(len(rows), generator=chance).tolist()]
        batches += [order[i : i + batch_size] for i in range(0, len(order), batch_size)]
    return batches


def read_rows(path: Path) -> list[Row]:
    """The training split of an export of annotations, gold labels."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    chosen = [row for row in rows if row["split"] == "train" and row["gold"]]
    return [{"text": row["text"], "label": row["gold"], "rationale": row["rationale"]} for row in chosen]


def letters(n: int) -> list[Row]:
    """The quickstart's letters; their teacher makes no mistakes here."""
    from stepdistill.task import claims

    made = claims.letters(n, seed=1)
    return [{"text": m.text, "label": m.label, "rationale": claims.rationale(m.facts)} for m in made]


def load(folder: str) -> tuple[Any, Any]:
    """A model of a local folder in float32, and its tokenizer."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    pair = AutoConfig.from_pretrained(folder).is_encoder_decoder
    kind = AutoModelForSeq2SeqLM if pair else AutoModelForCausalLM
    return kind.from_pretrained(folder, dtype=torch.float32), tokenizer


def tiny(rows: Sequence[Row]) -> tuple[Any, Any]:
    """A T5 with random weights, and a tokenizer of the rows' own words."""
    words = Tokenizer(models.WordLevel(unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.WordLevelTrainer(special_tokens=["<pad>", "</s>", "<unk>"], show_progress=False)
    texts = ["[label] [rationale]", *(row[key] for row in rows for key in ("text", "label", "rationale"))]
    words.train_from_iterator(texts, trainer)
    words.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", eos_token="</s>")
    config = T5Config(
        vocab_size=len(tokenizer), d_model=64, d_kv=16, d_ff=128, num_layers=2, num_heads=4, dropout_rate=0.0,
        decoder_start_token_id=0,
    )  # fmt: skip
    return T5ForConditionalGeneration(config), tokenizer


def main() -> None:
    """Train, and print the loss of each task."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, help="export of annotations, JSONL")
    parser.add_argument("--model", help="folder of a T5 or a causal model")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--lambda", type=float, default=1.0, dest="weight")
    given = parser.parse_args()
    torch.manual_seed(0)
    rows = read_rows(given.data) if given.data else letters(600)
    model, tokenizer = load(given.model) if given.model else tiny(rows)
    family = "encoder-decoder" if model.config.is_encoder_decoder else "causal"
    batches = shuffled(rows, given.batch_size, given.epochs, seed=0)
    started = time.monotonic()
    steps = losses(model, tokenizer, family, batches, given.learning_rate, given.weight)
    for number, (label, rationale) in enumerate(steps, start=1):
        if number % 10 == 0 or number == len(batches):
            print(f"step {number}/{len(batches)}: label {label:.4f}, rationale {rationale:.4f}", end="")
            print(f" ({time.monotonic() - started:.0f} s)")


if __name__ == "__main__":
    main()

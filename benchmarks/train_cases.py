"""What benchmarks/train.py trains: students with random weights, and texts as long as CommonsenseQA's."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from random import Random

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM, T5Config, T5ForConditionalGeneration

from stepdistill import weights
from stepdistill.config import RunConfig
from stepdistill.records import Annotation, Target
from stepdistill.student.encode import Encoder, tokens
from stepdistill.student.model import Student
from stepdistill.student.order import WINDOW
from stepdistill.student.scratch import train_tokenizer
from stepdistill.task.load import load_examples, load_task
from stepdistill.teacher.ready import Ready
from stepdistill.weights import Family

Lengths = list[tuple[int, int, int]]
"""Tokens of input, label and rationale of each example, without markers and ends."""

QUANTILES = (0, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1)
INPUT = (34, 39, 43, 48, 52, 60, 71, 103)
LABEL = (1, 1, 1, 2, 2, 3, 3, 4)
RATIONALE = (18, 24, 28, 32, 36, 43, 48, 72)
WORDS = 5000


def new_student(family: Family, tiny: bool) -> Student:
    """T5 v1.1 small or SmolLM2-135M, as far as its sizes; `tiny` is for trying out this script."""
    torch.manual_seed(0)
    tokenizer = train_tokenizer([f"[label] [rationale]\n{' '.join(map(word, range(WORDS)))}"], WORDS + 20)
    if family == "causal":
        sizes = {"hidden_size": 32, "num_hidden_layers": 2} if tiny else {"hidden_size": 576}
        heads = {"num_attention_heads": 2, "num_key_value_heads": 1} if tiny else {}
        defaults = {"num_hidden_layers": 30, "num_attention_heads": 9, "num_key_value_heads": 3}
        config = LlamaConfig(
            vocab_size=WORDS + 100 if tiny else 49152,
            intermediate_size=64 if tiny else 1536,
            max_position_embeddings=2048,
            tie_word_embeddings=True,
            pad_token_id=tokenizer.pad_token_id,
            bos_token_id=tokenizer.eos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            **{**defaults, **sizes, **heads},
        )
        return Student(LlamaForCausalLM(config), tokenizer, family)
    layers = 1 if tiny else 8
    pair = T5Config(
        vocab_size=WORDS + 100 if tiny else 32128,
        d_model=32 if tiny else 512,
        d_kv=16 if tiny else 64,
        d_ff=64 if tiny else 1024,
        num_layers=layers,
        num_decoder_layers=layers,
        num_heads=2 if tiny else 6,
        feed_forward_proj="gated-gelu",
        tie_word_embeddings=False,
        dropout_rate=0.1,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        decoder_start_token_id=tokenizer.pad_token_id,
    )
    model = T5ForConditionalGeneration(pair)
    # T5Config takes `tie_word_embeddings=False` as a mark of v1.1, and ties head and embeddings all the same.
    model.lm_head = torch.nn.Linear(pair.d_model, pair.vocab_size, bias=False)
    return Student(model, tokenizer, family)


def word(number: int) -> str:
    """A word of letters for each number; the students' tokenizer has one token for it."""
    letters = [chr(97 + number // 26**place % 26) for place in range(3)]
    return "w" + "".join(letters)


def typical(n: int, seed: int = 0) -> Lengths:
    """Lengths with the quantiles of CommonsenseQA and PaLM-540B's rationales in T5's tokens."""
    chance = np.random.default_rng(seed)
    columns = [np.interp(chance.random(n), QUANTILES, column) for column in (INPUT, LABEL, RATIONALE)]
    return [(round(x), round(y), round(r)) for x, y, r in zip(*columns, strict=True)]


def measured(data: Path, tokenizer: str) -> Lengths:
    """Lengths of the training split of CommonsenseQA with PaLM-540B's rationales, as a tokenizer counts.

    Args:
        data: folder with the data sets, in the authors' layout.
        tokenizer: what `student.model` takes.
    """
    count, _ = weights.read_tokenizer(weights.find(tokenizer, "student.model"), "student.model")
    plain = {"task": "cqa", "data": {"root": str(data)}, "teacher": {"backend": "recorded"}}
    run = RunConfig.model_validate({**plain, "student": {"model": "scratch:"}, "out": "-"})
    task = load_task("cqa")
    splits = load_examples(task, run.data)
    examples = splits["train"]
    answers = Ready(task, splits, run, run.teacher).heard([("train", example) for example in examples])
    found: Lengths = []
    for example, heard in zip(examples, answers, strict=True):
        read = heard[0].read if heard else None
        if isinstance(read, Annotation) and read.rationale:
            texts = (example.text, str(example.label), read.rationale)
            x, y, r = (len(count(text, add_special_tokens=False)["input_ids"]) for text in texts)
            found.append((x, y, r))
    return found


def window(lengths: Lengths, batch_size: int, seed: int) -> list[list[Target]]:
    """As many examples as training sorts by length at a time, drawn at random, as texts of random words."""
    chance = Random(seed)
    drawn = [chance.choice(lengths) for _ in range(WINDOW * batch_size)]
    made = []
    for number, (x, y, r) in enumerate(drawn):
        text = words(chance, x)
        label = Target(str(number), text, words(chance, y), "label")
        made.append([label, Target(str(number), text, words(chance, r), "rationale")])
    return made


def words(chance: Random, n: int) -> str:
    """A text of `n` tokens."""
    return " ".join(word(chance.randrange(WORDS)) for _ in range(n))


def grouped(
    examples: Sequence[list[Target]], encoder: Encoder, batch_size: int, steps: int, seed: int
) -> list[list[Target]]:
    """`steps` of the batches into which length groups cut a window, at even distances from short to long.

    A few batches drawn at random would be long or short by luck, more than the schemes differ.
    """
    ranked = sorted(examples, key=lambda example: tokens(encoder.item(example)))
    batches = len(ranked) // batch_size
    shift = Random(seed).random()
    places = [math.floor((number + shift) * batches / steps) for number in range(steps)]
    return [example for place in places for example in ranked[place * batch_size :][:batch_size]]

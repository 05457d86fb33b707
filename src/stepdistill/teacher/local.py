"""A teacher in this process, through transformers: causal or encoder-decoder, batched by length."""

from __future__ import annotations

import copy
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig, StoppingCriteriaList
from transformers.cache_utils import DynamicLayer

from stepdistill import weights
from stepdistill.config import TeacherConfig
from stepdistill.errors import TeacherError
from stepdistill.files import digest
from stepdistill.teacher.protocol import Message, Prompt, Reply, Sampling, Work, in_batches
from stepdistill.teacher.tokens import Tokens, check_room, refuse_extra, too_long

AHEAD = 8
"""Batches taken at once: sorted by length, they hold less padding."""
SHARED = 64
"""Tokens from which on a shared head is worth a cache of its own."""
_FIXED_ROPE = ("default", "linear", "llama3", "yarn")
"""Rotary positions that do not change with the length of the text."""


@dataclass(frozen=True, slots=True)
class _One:
    prompt: Prompt
    ids: list[int]
    draw: int


@dataclass(frozen=True)
class _Head:
    """A head's first tokens and what the model has computed of them; both empty where it cannot be kept."""

    messages: tuple[Message, ...]
    ids: list[int]
    cache: Any = None


class LocalBackend:
    """Answers prompts with a model that is loaded on first use, in bfloat16 where the hardware has it.

    Answers depend on the batch they are in: on its padding by rounding, and on its seed where they are
    drawn. The same prompts, given in the same calls, get the same answers.
    """

    def __init__(self, teacher: TeacherConfig, seed: int) -> None:
        self._teacher = teacher
        self._seed = seed
        self._head = _Head((), [])

    def answer(self, work: Work) -> None:
        """Answer all of `work`.

        Raises:
            TeacherError: the model cannot be loaded, has no room for `max_tokens`, or memory is full.
            MissingExtraError: the model is a `.gguf` file and its reader is not installed.
        """
        limit, family = self._limit, self._tokens.family
        check_room([], work.sampling.max_tokens, limit, family)
        in_batches(
            work,
            self.complete,
            AHEAD * self._teacher.batch_size,
            lambda prompt: too_long(self.encoded(prompt), work.sampling.max_tokens, limit, family),
        )

    def complete(self, prompts: Sequence[Prompt], sampling: Sampling, draws: Sequence[int]) -> list[Reply]:
        """Replies in the order of the prompts; token counts are exact and include an end-of-text.

        Raises:
            TeacherError: as `answer`.
        """
        refuse_extra(sampling, "local")
        rows = [self.encoded(prompt) for prompt in prompts]
        check_room(rows, sampling.max_tokens, self._limit, self._tokens.family)
        order = sorted(range(len(rows)), key=lambda i: (len(rows[i]), i))
        replies: dict[int, Reply] = {}
        for start in range(0, len(order), self._teacher.batch_size):
            chosen = order[start : start + self._teacher.batch_size]
            batch = [_One(prompts[i], rows[i], draws[i]) for i in chosen]
            replies.update(zip(chosen, self._answered(batch, sampling), strict=True))
        return [replies[i] for i in range(len(rows))]

    def encoded(self, prompt: Prompt) -> list[int]:
        """Ids of a prompt as the model reads it; the weights are not loaded for it.

        Raises:
            TeacherError: style `chat`, and the model has no chat template or its template refuses.
        """
        return self._tokens.encode(prompt)

    @property
    def _limit(self) -> int | None:
        """Tokens that the model can place, where it says so."""
        return getattr(self._model.config.get_text_config(), "max_position_embeddings", None)

    @cached_property
    def _tokens(self) -> Tokens:
        return Tokens(self._teacher)

    @cached_property
    def _model(self) -> Any:
        dtype = torch.bfloat16 if weights.has_bfloat16() else torch.float32
        where, code = self._tokens.where, self._teacher.trust_remote_code
        try:
            return weights.load(where, "teacher.model", dtype, code).model.eval()
        except torch.OutOfMemoryError:
            raise TeacherError(
                f"teacher.model: '{self._tokens.name}' does not fit into the GPU's memory; take a smaller one"
            ) from None

    @cached_property
    def _ends(self) -> list[int]:
        """What ends an answer: chat models often name more than their tokenizer's end of text."""
        given = self._model.generation_config.eos_token_id
        more = given if isinstance(given, list) else [] if given is None else [given]
        return sorted({self._tokens.tokenizer.eos_token_id, *more})

    def _answered(self, batch: Sequence[_One], sampling: Sampling) -> list[Reply]:
        began = time.monotonic()
        model = self._model
        devices = [model.device] if model.device.type == "cuda" else []
        try:
            with torch.inference_mode(), torch.random.fork_rng(devices):
                torch.manual_seed(self._seed_of(batch))
                texts, cached = self._written(batch, sampling)
        except torch.OutOfMemoryError:
            raise TeacherError(
                f"teacher.batch_size: {self._teacher.batch_size} prompts at once do not fit into the GPU's "
                "memory; lower it"
            ) from None
        seconds = time.monotonic() - began
        return [
            Reply(text, finish, self._tokens.name, len(one.ids), written, cached, seconds)
            for one, (text, finish, written) in zip(batch, texts, strict=True)
        ]

    def _seed_of(self, batch: Sequence[_One]) -> int:
        asked = [part for one in batch for part in (one.prompt.text, str(one.draw))]
        return int(digest(str(self._seed), *asked), 16)

    def _written(self, batch: Sequence[_One], sampling: Sampling) -> tuple[list[tuple[str, str, int]], int]:
        """(text, finish, tokens) of every row, and how many tokens of each prompt came from the cache."""
        tokens, causal = self._tokens, self._tokens.family == "causal"
        head = self._shared(batch) if causal else []
        ids, mask = self._padded([one.ids for one in batch], len(head))
        skip = ids.shape[1] if causal else 1
        stops = _Stops(tokens.tokenizer, sampling.stop, skip)
        past = {}
        if head:
            past["cache"] = copy.deepcopy(self._head.cache)
            past["cache"].batch_repeat_interleave(len(batch))
        written = self._model.generate(
            input_ids=ids,
            attention_mask=mask,
            generation_config=self._drawing(sampling),
            stopping_criteria=StoppingCriteriaList([stops] if sampling.stop else []),
            **past,
        )
        rows = [self._read(row, stops, i) for i, row in enumerate(written[:, skip:].tolist())]
        return rows, len(head)

    def _drawing(self, sampling: Sampling) -> GenerationConfig:
        """Decoding as asked for; whatever the model brings (penalties, top-k) is replaced.

        Settings given to `generate` alone would be completed from the model's own.
        """
        drawn = {"temperature": sampling.temperature, "top_p": sampling.top_p, "top_k": 0}
        config = GenerationConfig(
            max_new_tokens=sampling.max_tokens,
            do_sample=sampling.temperature > 0,
            num_beams=1,
            pad_token_id=self._tokens.tokenizer.pad_token_id,
            eos_token_id=self._ends,
            decoder_start_token_id=weights.decoder_start(self._model),
            **(drawn if sampling.temperature > 0 else {}),
        )
        self._model.generation_config = config
        return config

    def _padded(self, rows: Sequence[list[int]], head: int) -> tuple[Tensor, Tensor]:
        """Ids and mask. Fillers stand between the shared head, which is computed already, and the rest."""
        width, pad = max(map(len, rows)), self._tokens.tokenizer.pad_token_id
        left = self._tokens.family == "causal"
        ids, mask = [], []
        for row in rows:
            at, fill = head if left else len(row), width - len(row)
            ids.append([*row[:at], *[pad] * fill, *row[at:]])
            mask.append([1] * at + [0] * fill + [1] * (len(row) - at))
        device = self._model.device
        return torch.tensor(ids, device=device), torch.tensor(mask, device=device)

    def _read(self, ids: list[int], stops: _Stops, row: int) -> tuple[str, str, int]:
        ended = [i + 1 for i, token in enumerate(ids) if token in self._ends][:1]
        last = min([*ended, stops.found.get(row, len(ids)), len(ids)])
        text = stops.decoded(ids[:last])
        cuts = [at for stop in stops.words if (at := text.find(stop)) >= 0]
        finish = "stop" if ended or cuts or row in stops.found else "length"
        return text[: min(cuts)] if cuts else text, finish, last

    def _shared(self, batch: Sequence[_One]) -> list[int]:
        """Ids of the head that all prompts of a batch begin with; empty where there is none to reuse."""
        messages = batch[0].prompt.head
        if not messages or any(one.prompt.head != messages for one in batch):
            return []
        if self._head.messages != messages:
            self._head = self._computed(messages)
        ids = self._head.ids
        fits = all(one.ids[: len(ids)] == ids and len(one.ids) > len(ids) for one in batch)
        return ids if fits else []

    def _computed(self, messages: tuple[Message, ...]) -> _Head:
        rope = getattr(self._model.config.get_text_config(), "rope_parameters", None) or {}
        ids = self._tokens.stem(messages)
        if len(ids) < SHARED or rope.get("rope_type") not in _FIXED_ROPE:
            return _Head(messages, [])
        row = torch.tensor([ids], device=self._model.device)
        cache = self._model.base_model(input_ids=row, use_cache=True).cache
        # Windows and recurrent states count places, fillers included, and so would see other texts.
        if any(type(layer) is not DynamicLayer for layer in cache.layers):
            return _Head(messages, [])
        return _Head(messages, ids, cache)


class _Stops:
    """Ends rows that have written one of the stop words, and keeps after how many tokens.

    Attributes:
        found: number of tokens written up to the stop word, by row.
    """

    def __init__(self, tokenizer: Any, words: Sequence[str], skip: int) -> None:
        self.words = words
        self.found: dict[int, int] = {}
        self._tokenizer = tokenizer
        self._skip = skip
        # A token is at least a byte; the rest is for signs that the first token of a text loses.
        self._window = max((len(word.encode()) for word in words), default=0) + 4

    def __call__(self, input_ids: Tensor, scores: object, **more: object) -> Tensor:
        """Which rows are done."""
        written = input_ids.shape[1] - self._skip
        for row, ids in enumerate(input_ids[:, self._skip :][:, -self._window :].tolist()):
            if row not in self.found:
                text = self.decoded(ids)
                if any(word in text for word in self.words):
                    self.found[row] = written
        done = [row in self.found for row in range(len(input_ids))]
        return torch.tensor(done, device=input_ids.device)

    def decoded(self, ids: list[int]) -> str:
        """The text of some tokens, without control tokens."""
        return str(self._tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))

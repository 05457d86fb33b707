"""Prompts as token ids: the chat template is filled in, and no text becomes a control token."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from jinja2 import TemplateError

from stepdistill.config import TeacherConfig
from stepdistill.errors import TeacherError
from stepdistill.teacher.protocol import Message, Prompt, Sampling
from stepdistill.weights import Family, find, read_tokenizer

_SEAM = 4
"""Last tokens of a shared head that what follows may still change."""
_PRIVATE = range(0xE000, 0xF900)
"""Unicode's private use area: characters that no text means anything by."""


class Tokens:
    """Turns prompts into ids for a model in this process; the weights are not loaded for it.

    Raises:
        TeacherError: the tokenizer cannot be loaded.
        MissingExtraError: the model is a `.gguf` file and its reader is not installed.
    """

    def __init__(self, teacher: TeacherConfig) -> None:
        self.name = teacher.model or ""
        self.where = find(self.name, "teacher.model")
        found = read_tokenizer(self.where, "teacher.model", teacher.trust_remote_code)
        self.tokenizer: Any = found[0]
        self.family: Family = found[1]
        self._chat = teacher.style == "chat"
        added = self.tokenizer.added_tokens_decoder.values()
        control = {token.content for token in added if token.special} | set(self.tokenizer.all_special_tokens)
        longest_first = sorted(control, key=lambda word: (-len(word), word))
        self._control = re.compile("|".join(re.escape(word) for word in longest_first if word))

    def encode(self, prompt: Prompt) -> list[int]:
        """Ids of a prompt as the model reads it, beginning of text included.

        Raises:
            TeacherError: style `chat`, and the model has no chat template or its template refuses.
        """
        if self._chat:
            return self._turns(prompt.messages)
        ids: list[int] = self.tokenizer(prompt.text, split_special_tokens=True)["input_ids"]
        # A text that is to be continued must not be ended.
        ended = self.family == "causal" and ids and ids[-1] == self.tokenizer.eos_token_id
        return ids[:-1] if ended else ids

    def stem(self, head: tuple[Message, ...]) -> list[int]:
        """Ids with which prompts of this head begin; prompts may still differ from it near its end."""
        first, other = (self.encode(Prompt(head, (Message("user", text),))) for text in ("0", "A"))
        same = next((i for i, (a, b) in enumerate(zip(first, other, strict=False)) if a != b), 0)
        return first[: max(0, same - _SEAM)]

    def _turns(self, messages: Sequence[Message]) -> list[int]:
        """Control words inside of turns are set aside while the template is filled in.

        In the filled text they could not be told from the template's own, and an input with
        "<|im_end|>" would end its turn and could open one in the teacher's name.
        """
        contents = [message.content for message in messages]
        mark = next(chr(i) for i in _PRIVATE if not any(chr(i) in content for content in contents))
        aside: list[str] = []

        def set_aside(found: re.Match[str]) -> str:
            aside.append(found.group())
            return f"{mark}{len(aside) - 1}{mark}"

        turns = [
            {"role": message.role, "content": self._control.sub(set_aside, message.content)}
            for message in messages
        ]
        ids: list[int] = []
        for i, piece in enumerate(re.split(f"{mark}([0-9]+){mark}", self._filled(turns))):
            text = aside[int(piece)] if i % 2 else piece
            if text:
                encoded = self.tokenizer(text, add_special_tokens=False, split_special_tokens=bool(i % 2))
                ids += encoded["input_ids"]
        return ids

    def _filled(self, turns: list[dict[str, str]]) -> str:
        if not self.tokenizer.chat_template:
            raise TeacherError(
                f"teacher.model: '{self.name}' has no chat template; set teacher.style: text, which lets it "
                "continue a text"
            )
        try:
            return str(self.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True))
        except (TemplateError, ValueError) as error:
            line = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise TeacherError(
                f"teacher.model: the chat template of '{self.name}' refuses the prompt ({line}); set "
                "teacher.style: text"
            ) from None


def refuse_extra(sampling: Sampling, backend: str) -> None:
    """Refuse request fields that only a server understands, instead of passing over them.

    Raises:
        TeacherError: there are some.
    """
    if sampling.extra:
        names = ", ".join(name for name, _ in sampling.extra)
        raise TeacherError(f"teacher.extra: {names} is for servers; backend '{backend}' takes none")


def too_long(row: Sequence[int], max_tokens: int, limit: int | None, family: Family) -> str | None:
    """Why one prompt cannot be asked; None where it can."""
    try:
        check_room([row], max_tokens, limit, family)
    except TeacherError as error:
        return str(error)
    return None


def check_room(rows: Sequence[Sequence[int]], max_tokens: int, limit: int | None, family: Family) -> None:
    """Refuse prompts that leave no room for an answer; cutting them would ask something else.

    Args:
        rows: ids of the prompts.
        max_tokens: of the answer.
        limit: how many tokens the model can place, where it says so: of prompt and answer together
            for a causal model, of each for an encoder-decoder.
        family: of the model.

    Raises:
        TeacherError: a prompt, or the answer, is too long.
    """
    if limit is None:
        return
    room = limit - max_tokens if family == "causal" else limit
    if room < 1 or max_tokens > limit:
        raise TeacherError(f"teacher.max_tokens: {max_tokens}; the model has {limit} positions, lower it")
    if long := [len(row) for row in rows if len(row) > room]:
        beside = f" less {max_tokens} for the answer" if family == "causal" else ""
        raise TeacherError(
            f"{len(long)} of {len(rows)} prompts have too many tokens: the longest has {max(long)}, and the "
            f"model has {limit} positions{beside}; lower teacher.demonstrations.n or teacher.max_tokens, "
            "shorten the texts, or take another model"
        )

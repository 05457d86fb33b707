"""A teacher in this process, through vLLM's offline engine: for GPUs and many prompts."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Sequence
from functools import cached_property
from typing import Any

from stepdistill.config import TeacherConfig
from stepdistill.errors import MissingExtraError, TeacherError
from stepdistill.files import digest
from stepdistill.teacher.protocol import Prompt, Reply, Sampling, Work, in_batches
from stepdistill.teacher.tokens import Tokens, check_room, refuse_extra, too_long

AHEAD = 64
"""How many times `batch_size` prompts the engine gets at once; it makes its own batches of them."""


class VllmBackend:
    """Answers prompts with an engine that is started on first use and keeps the cache of shared heads.

    Prompts go in as ids, so that control words inside of texts are as harmless as with `local`. Every
    draw has a seed of its own, so it does not depend on what else is asked.

    Raises:
        MissingExtraError: vLLM is not installed.
    """

    def __init__(self, teacher: TeacherConfig, seed: int) -> None:
        if importlib.util.find_spec("vllm") is None:
            raise MissingExtraError("teacher.backend: vllm", "vllm")
        self._teacher = teacher
        self._seed = seed

    def answer(self, work: Work) -> None:
        """Answer all of `work`.

        Raises:
            TeacherError: the model cannot be loaded, or has no room for `max_tokens`.
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
        """Replies in the order of the prompts.

        Raises:
            TeacherError: as `answer`.
        """
        refuse_extra(sampling, "vllm")
        rows = [self.encoded(prompt) for prompt in prompts]
        engine = self._engine
        check_room(rows, sampling.max_tokens, self._limit, self._tokens.family)
        began = time.monotonic()
        outputs = engine.generate(
            [{"prompt_token_ids": row} for row in rows],
            [self._drawing(prompt, sampling, draw) for prompt, draw in zip(prompts, draws, strict=True)],
            use_tqdm=False,
        )
        seconds = time.monotonic() - began
        return [self._reply(output, seconds) for output in outputs]

    def encoded(self, prompt: Prompt) -> list[int]:
        """Ids of a prompt as the model reads it; the engine is not started for it.

        Raises:
            TeacherError: style `chat`, and the model has no chat template or its template refuses.
        """
        return self._tokens.encode(prompt)

    @property
    def _limit(self) -> int:
        """Tokens that the engine can place."""
        return int(self._engine.llm_engine.model_config.max_model_len)

    @cached_property
    def _tokens(self) -> Tokens:
        return Tokens(self._teacher)

    @cached_property
    def _engine(self) -> Any:
        from vllm import LLM

        if self._tokens.family != "causal":
            raise TeacherError(
                f"teacher.model: '{self._tokens.name}' is an encoder-decoder, which vLLM does not run; set "
                "teacher.backend: local"
            )
        try:
            return LLM(
                model=self._tokens.where,
                seed=self._seed % 2**31,
                trust_remote_code=self._teacher.trust_remote_code,
                enable_prefix_caching=True,
            )
        except Exception as error:  # noqa: BLE001 - no GPU, too little memory, a model it does not know
            line = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise TeacherError(
                f"teacher.backend: vllm cannot start '{self._tokens.name}' ({line}); set "
                "teacher.backend: local"
            ) from None

    def _drawing(self, prompt: Prompt, sampling: Sampling, draw: int) -> Any:
        from vllm import SamplingParams

        return SamplingParams(
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            max_tokens=sampling.max_tokens,
            stop=list(sampling.stop) or None,
            seed=int(digest(str(self._seed), prompt.text, str(draw)), 16) % 2**31,
        )

    def _reply(self, output: Any, seconds: float) -> Reply:
        said = output.outputs[0]
        return Reply(
            text=said.text,
            finish=said.finish_reason or "unknown",
            model=self._tokens.name,
            prompt_tokens=len(output.prompt_token_ids),
            completion_tokens=len(said.token_ids),
            cached_tokens=output.num_cached_tokens,
            seconds=seconds,
        )

"""Runs a GGUF student by llama.cpp: prompts are ids, so that words are split as in training."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from stepdistill.deploy.bundle import Bundle
from stepdistill.deploy.engines import Prompt, Question
from stepdistill.errors import MissingExtraError, StudentError

MODEL = "model.gguf"
"""The file of a bundle that llama.cpp and Ollama load."""

_SLOTS = 4
"""Answers that are written at once: weights are read once for all of them."""
_LEAST = 512
"""Tokens of context to begin with; a longer text doubles it, as often as it must."""
_BEST = 64
"""Most likely tokens that are given back with a step: among them, mostly, are all that are asked for."""
_ALL = 1 << 30
_PIECE = 16
"""Tokens that are written before a stop string is looked for."""
_SURELY = 1e9
"""Added to the logit of a token that must come; the log-probabilities given back are those before it."""


def open_engine(folder: Path, bundle: Bundle, threads: int | None = None) -> Llama:
    """The engine of a `gguf` bundle; `threads` None: one for each core.

    Raises:
        MissingExtraError: xllamacpp, which brings llama.cpp, is not installed.
        StudentError: the file cannot be loaded.
    """
    return Llama(folder / MODEL, bundle, threads)


class Llama:
    """A loaded `.gguf` file; safe to be used by one thread at a time.

    The library cannot be had without its own HTTP server. That listens on loopback at a port that the system
    chooses, and answers nobody: its key is drawn here and kept by nobody.
    """

    def __init__(self, path: Path, bundle: Bundle, threads: int | None) -> None:
        """Load `path`."""
        try:
            import xllamacpp
        except ImportError:
            raise MissingExtraError(f"running {path}", "gguf") from None
        self._library, self._path, self._bundle = xllamacpp, path, bundle
        self._threads, self._context = threads, _LEAST
        self._server: Any = self._load()

    @property
    def computes(self) -> str:
        """As `Engine.computes`; with q8_0, sums of eight bits too."""
        return {"f32": "float32", "f16": "float16", "q8_0": "int8"}[self._bundle.precision]

    def first(self, questions: Sequence[Question]) -> list[list[float]]:
        """As `Engine.first`."""
        return [[tokens[0] for tokens in spelled] for spelled in self._spell(questions, 1)]

    def spell(self, questions: Sequence[Question]) -> list[list[list[float]]]:
        """As `Engine.spell`; a step for each beginning that targets have in common."""
        return self._spell(questions, None)

    def write(self, prompts: Sequence[Prompt], new_tokens: int, stop: str | None = None) -> list[list[int]]:
        """As `Engine.write`."""
        asked = [_ids(prompt) for prompt in prompts]
        self._need(max(map(len, asked), default=0) + new_tokens)

        def lane(slot: int) -> list[list[int]]:
            return [self._write(ids, new_tokens, stop, slot) for ids in asked[slot::_SLOTS]]

        # The library waits outside of Python's lock, and takes one step for all that wait.
        with ThreadPoolExecutor(_SLOTS) as threads:
            lanes = list(threads.map(lane, range(_SLOTS)))
        return [lanes[place % _SLOTS][place // _SLOTS] for place in range(len(asked))]

    def _write(self, asked: list[int], new_tokens: int, stop: str | None, slot: int) -> list[int]:
        ids: list[int] = []
        text, ended = "", False
        while not ended and len(ids) < new_tokens and (stop is None or stop not in text):
            left = new_tokens - len(ids)
            # Words of the answer itself: the log-probabilities leave out what is half a character.
            given = {"return_tokens": True, "verbose": True, "cache_prompt": bool(ids), "id_slot": slot}
            made = self._ask([*asked, *ids], left if stop is None else min(left, _PIECE), **given)[
                "__verbose"
            ]
            ended = made["stop_type"] == "eos"
            ids += made["tokens"][:-1] if ended else made["tokens"]
            text += made["content"]
        return ids

    def _spell(self, questions: Sequence[Question], tokens: int | None) -> list[list[list[float]]]:
        """log p of the first `tokens` tokens of every target, None for all."""
        targets = [[target[:tokens] for target in question.targets] for question in questions]
        longest = max((len(_ids(question.prompt)) for question in questions), default=0)
        self._need(longest + max((len(target) for row in targets for target in row), default=0))
        return [self._spelled(_ids(q.prompt), row) for q, row in zip(questions, targets, strict=True)]

    def _spelled(self, asked: list[int], targets: Sequence[tuple[int, ...]]) -> list[list[float]]:
        wanted: dict[tuple[int, ...], set[int]] = {}
        for target in targets:
            for place, token in enumerate(target):
                wanted.setdefault(target[:place], set()).add(token)
        found = {begin: self._after([*asked, *begin], wanted[begin], bool(begin)) for begin in sorted(wanted)}
        return [[found[target[:i]][token] for i, token in enumerate(target)] for target in targets]

    def _after(self, asked: list[int], wanted: set[int], kept: bool) -> dict[int, float]:
        """log p of each wanted token behind the ids; `kept`: they begin as those of the call before do."""
        end = self._bundle.tokens.eos
        found = self._step(asked, end, _BEST, kept)
        for token in sorted(wanted - set(found)):
            found |= self._step(asked, token, 1, True)
        # A token that is half a character is never told of by itself.
        return found if wanted <= set(found) else found | self._step(asked, end, _ALL, True)

    def _step(self, asked: list[int], token: int, best: int, kept: bool) -> dict[int, float]:
        """Have `token` written, and get its log p and those of the `best` likeliest."""
        given = {"logprobs": best, "logit_bias": [[token, _SURELY]], "id_slot": 0, "cache_prompt": kept}
        told = self._ask(asked, 1, **given)["choices"][0]["logprobs"]
        steps = told["content"] if told else []
        return {one["id"]: float(one["logprob"]) for step in steps for one in (*step["top_logprobs"], step)}

    def _ask(self, asked: list[int], new_tokens: int, **given: Any) -> Mapping[str, Any]:
        """What the library writes behind ids, always the likeliest token."""
        request = {"prompt": asked, "max_tokens": new_tokens, "temperature": 0, **given}
        answer: Mapping[str, Any] = self._server.handle_completions(request)
        if "choices" not in answer:
            what = answer.get("error", {}).get("message", "no answer")
            raise StudentError(f"{self._path}: llama.cpp refuses the request ({what}); shorten the text")
        return answer

    def _need(self, tokens: int) -> None:
        """Load anew with a larger context where `tokens` need one; memory for all positions is much."""
        positions = self._bundle.positions
        if positions is not None and tokens > positions:
            raise StudentError(
                f"the model has {positions} positions, and the longest input needs {tokens} with what "
                "is written; shorten the text, or take another student"
            )
        # One more, since the last token that is written is placed too.
        if tokens + 1 > self._context:
            while tokens + 1 > self._context:
                self._context *= 2
            self._server = None
            self._server = self._load()

    def _load(self) -> Any:
        library = self._library
        wanted = library.CommonParams()
        wanted.model.path = str(self._path)
        wanted.n_parallel, wanted.n_ctx = _SLOTS, _SLOTS * self._context
        if self._threads is not None:
            wanted.cpuparams.n_threads = wanted.cpuparams_batch.n_threads = self._threads
        wanted.api_keys, wanted.n_threads_http = [secrets.token_hex(16)], 1
        wanted.ui = wanted.endpoint_slots = wanted.warmup = wanted.fit_params = False
        wanted.cache_ram_mib, wanted.verbosity = 0, -1
        if self._bundle.precision == "f32":
            # Else keys and values are kept in half precision, and float32 would be that in name only.
            wanted.cache_type_k = wanted.cache_type_v = library.ggml_type.GGML_TYPE_F32
            wanted.flash_attn_type = library.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
        try:
            return library.Server(wanted)
        except RuntimeError as error:
            raise StudentError(
                f"{self._path}: llama.cpp cannot load the file ({error}); export again, or upgrade xllamacpp"
            ) from None


def _ids(prompt: Prompt) -> list[int]:
    return [*prompt.source, *prompt.opening]

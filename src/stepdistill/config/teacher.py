"""The sections `teacher` and `annotate` of a run file: who answers, how it is asked, what it may cost."""

from __future__ import annotations

import re
from typing import Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from stepdistill.config.strict import Model

BackendName = Literal["recorded", "simulated", "openai", "openai-batch", "local", "vllm"]
SplitName = Literal["train", "validation", "test"]
HTTP = ("openai", "openai-batch")
MODELLED = (*HTTP, "local", "vllm")
"""Backends that prompt a language model; the others have their answers already."""
RESERVED = (
    "messages",
    "prompt",
    "model",
    "max_tokens",
    "max_completion_tokens",
    "temperature",
    "top_p",
    "stop",
    "stream",
    "n",
)


class DemonstrationConfig(Model):
    """Which of the task's demonstrations stand in a prompt; `n` null: all of them."""

    choose: Literal["fixed", "random", "balanced", "nearest"] = "fixed"
    n: int | None = Field(None, ge=1)


class LimitsConfig(Model):
    """How fast and how long a server is asked; none of it changes an answer."""

    concurrency: int = Field(32, ge=1, le=4096)
    requests_per_minute: float | None = Field(None, gt=0)
    tokens_per_minute: float | None = Field(None, gt=0)
    timeout_seconds: float = Field(120, gt=0)
    retries: int = Field(8, ge=0)
    max_wait_seconds: float = Field(600, gt=0)
    give_up_after: int = Field(20, ge=1)


class PriceConfig(Model):
    """US dollars for a million tokens."""

    input: float = Field(ge=0)
    output: float = Field(ge=0)
    cached_input: float | None = Field(None, ge=0)


class TeacherConfig(Model):
    """Who writes rationales and labels, and how it is asked."""

    backend: BackendName = "recorded"
    completions: dict[SplitName, str] | None = None
    error_rate: float = Field(0.25, ge=0, le=1)
    model: str | None = Field(None, min_length=1)
    base_url: str = "https://api.openai.com/v1"
    api: Literal["chat", "completions"] = "chat"
    key_variable: str | None = None
    key_header: str = Field("Authorization", pattern=r"^[A-Za-z0-9-]+$")
    prompt: Literal["few-shot", "zero-shot", "hinted"] = "few-shot"
    style: Literal["chat", "text"] = "chat"
    demonstrations: DemonstrationConfig = DemonstrationConfig()
    draws: int = Field(1, ge=1, le=1000)
    temperature: float = Field(0.0, ge=0, le=10)
    top_p: float = Field(1.0, gt=0, le=1)
    max_tokens: int = Field(256, ge=1)
    token_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    extra: dict[str, Any] = {}
    price: PriceConfig | None = None
    limits: LimitsConfig = LimitsConfig()
    batch_size: int = Field(8, ge=1)
    trust_remote_code: bool = False

    @field_validator("key_variable")
    @classmethod
    def _name_of_a_variable(cls, value: str | None) -> str | None:
        # Not shown: a key that was put here by mistake would stand in messages and logs.
        if value is not None and not re.fullmatch(r"[A-Z_][A-Z0-9_]{0,63}", value):
            raise ValueError(
                "give the NAME of an environment variable, such as GROQ_API_KEY, and never the key"
            )
        return value

    @field_validator("base_url")
    @classmethod
    def _plain_url(cls, value: str) -> str:
        try:
            parts = urlsplit(value)
        except ValueError as error:
            raise ValueError(f"not a URL ({error}); write it as https://host/v1") from None
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"'{parts.scheme}://...' is not an address; write it as https://host/v1")
        if parts.path.rstrip("/").endswith("/completions"):
            raise ValueError("ends in /completions, which `api` adds; leave it off: https://host/v1")
        if parts.username or parts.password:
            raise ValueError(
                "holds a user name or password, which would be written to files; use key_variable"
            )
        if re.search(r"(?i)(^|&)[^=&]*(key|token|secret|sig|password)[^=&]*=", parts.query):
            raise ValueError("holds a key in its query, which would be written to files; use key_variable")
        return value

    @model_validator(mode="after")
    def _asks_somebody(self) -> Self:
        if self.modelled and self.model is None:
            raise ValueError(f"backend '{self.backend}' needs `model`, the model that answers")
        if self.modelled and self.draws > 1 and self.temperature == 0:
            raise ValueError(
                f"{self.draws} draws at temperature 0 are all alike; set temperature, such as 0.7"
            )
        if self.draws > 1 and "seed" in self.extra:
            raise ValueError(f"extra: one seed for {self.draws} draws makes them all alike; leave it out")
        if self.api == "completions" and self.style == "chat" and self.backend in HTTP:
            raise ValueError("api 'completions' continues a text; set style: text")
        if taken := sorted(set(self.extra) & set(RESERVED)):
            raise ValueError(
                f"extra: {', '.join(taken)} cannot be given there; there is a key for it, or none"
            )
        return self

    @property
    def modelled(self) -> bool:
        """Whether a language model is prompted."""
        return self.backend in MODELLED


class AnnotateConfig(Model):
    """What is annotated, what it may cost, and which answers the student is trained on."""

    splits: tuple[SplitName, ...] = Field(("train", "test"), min_length=1, strict=False)
    ledger: str | None = None
    max_cost_usd: float | None = Field(None, gt=0)
    combine: Literal["first", "vote", "all"] = "first"
    keep: Literal["voted", "all", "one"] = "voted"
    verify: Literal["none", "agree-with-gold", "majority"] = "none"

"""What a server takes on at most: sizes, queue, waiting times."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

from pydantic import Field, model_validator

from stepdistill.config.run import override
from stepdistill.config.strict import Model, check


class ServeConfig(Model):
    """The limits of a server, set with `--set KEY=VALUE`.

    Attributes:
        max_batch: texts that share a forward pass.
        max_wait_ms: how long a batch may wait for requests that are arriving; a lone request never waits.
        max_body_bytes: a larger body is refused (413).
        max_texts: texts of one request.
        max_characters: characters of one text, or of a rationale that comes with it.
        max_options: options of one example.
        max_queue: texts that wait; what comes beyond them is refused (429).
        max_connections: open connections; new ones beyond them are refused (503).
        header_seconds: how long a connection may take to send a whole request head; then it is closed.
        body_seconds: how long a client may take to send its body (408).
        keep_alive_seconds: how long an idle connection is kept.
        drain_seconds: how long accepted requests are still answered after SIGTERM.
        ledger: the file of the teacher's answers, with `--route`; by default as `route.router_for`.
        route_seconds: how long a request waits for the teacher.
        max_routed: texts that wait for the teacher; those beyond stay without a label.
        max_cost_usd: the most that the ledger may hold of paid answers.
    """

    max_batch: int = Field(32, ge=1, le=4096)
    max_wait_ms: float = Field(2.0, ge=0, le=1000, strict=False)
    max_body_bytes: int = Field(1_000_000, ge=1024, le=2**30)
    max_texts: int = Field(256, ge=1, le=65536)
    max_characters: int = Field(20_000, ge=1, le=10**7)
    max_options: int = Field(64, ge=2, le=1024)
    max_queue: int = Field(1024, ge=1, le=10**6)
    max_connections: int = Field(512, ge=1, le=65536)
    header_seconds: float = Field(10.0, gt=0, le=3600, strict=False)
    body_seconds: float = Field(10.0, gt=0, le=3600, strict=False)
    keep_alive_seconds: int = Field(5, ge=1, le=3600)
    drain_seconds: int = Field(30, ge=1, le=3600)
    ledger: str | None = None
    route_seconds: float = Field(20.0, gt=0, le=3600, strict=False)
    max_routed: int = Field(64, ge=1, le=10**6)
    max_cost_usd: float | None = Field(None, ge=0, strict=False)

    @model_validator(mode="after")
    def _one_request_fits(self) -> Self:
        if self.max_texts > self.max_queue:
            raise ValueError(
                f"max_texts ({self.max_texts}) is more than max_queue ({self.max_queue}): the largest "
                "request could never be taken; lower the one or raise the other"
            )
        return self


def serve_config(overrides: Sequence[str] = ()) -> ServeConfig:
    """The limits, with `KEY=VALUE` laid over the defaults.

    Raises:
        ConfigError: an unknown key (with a suggestion) or a value that is not allowed.
    """
    values: dict[str, Any] = {}
    for text in overrides:
        override(values, text)
    return check(ServeConfig, values, "--set")

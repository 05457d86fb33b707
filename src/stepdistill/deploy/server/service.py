"""A student, its queue and its teacher, as the routes of a server ask them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from stepdistill.deploy.answer import Answer
from stepdistill.deploy.route import Router, routed, unheard
from stepdistill.deploy.server.batching import Batcher
from stepdistill.deploy.server.limits import ServeConfig
from stepdistill.deploy.server.metrics import Metrics
from stepdistill.deploy.server.schema import Form
from stepdistill.records import Example

if TYPE_CHECKING:
    from stepdistill.deploy.runtime import Runtime

LIMITS = ("max_body_bytes", "max_texts", "max_characters", "max_options", "max_queue")
"""What clients are told of the limits."""
_WAITING = 256
"""Threads of requests that wait for the teacher; further ones wait for a thread, and their time runs."""
_MOMENT = 0.5
"""Seconds beyond `route_seconds` in which a router says what it has heard till then."""


class Service:
    """What a server serves. Made inside its event loop.

    Attributes:
        loaded: whether the model can be asked.
        draining: whether the server stops; what was accepted is still answered.
        failure: why the model could not be loaded.
    """

    def __init__(self, runtime: Runtime, limits: ServeConfig, router: Router | None = None) -> None:
        self.limits, self.router = limits, router
        self.metrics = Metrics()
        self.form = Form(
            limits,
            explains=runtime.explains,
            options=runtime.task.spec.answer.kind == "choice",
            rationale=runtime.needs_rationales,
        )
        self.facts = facts_of(runtime, limits, router is not None)
        self.loaded = self.draining = False
        self.failure: Exception | None = None
        self._runtime = runtime
        self.batcher = Batcher(
            runtime.predict,
            max_batch=limits.max_batch,
            max_wait=limits.max_wait_ms / 1000,
            max_queue=limits.max_queue,
            observe=self.metrics.batch,
            check=runtime.check,
        )
        self.metrics.watch_queue(lambda: self.batcher.waiting)
        self._routed = 0
        self._threads = ThreadPoolExecutor(min(limits.max_routed, _WAITING), "routed") if router else None

    @property
    def ready(self) -> bool:
        """Whether new requests are welcome."""
        return self.loaded and not self.draining

    @property
    def state(self) -> str:
        """Why it is not ready."""
        return "the server is stopping" if self.draining else "the model is being loaded"

    async def run(self) -> None:
        """Load the model, then answer until cancelled.

        Raises:
            StepdistillError: the model cannot be loaded.
        """
        await self.batcher.worker.call(self._runtime.warm)
        self.loaded = True
        await self.batcher.run()

    async def ask(self, examples: Sequence[Example], explain: bool) -> list[Answer]:
        """Answers, in order; those of which the student abstains are the teacher's where one is asked.

        Raises:
            QueueFullError, RefusedTextError: as `Batcher.submit`.
        """
        answers = await self.batcher.submit(examples, explain)
        left = [place for place, answer in enumerate(answers) if answer.abstained]
        if self.router is None or self._threads is None or not left:
            return answers
        if self._routed + len(left) > self.limits.max_routed:
            return [_unasked(answer) if answer.abstained else answer for answer in answers]
        self._routed += len(left)
        self.metrics.routed(len(left))
        loop, seconds = asyncio.get_running_loop(), self.limits.route_seconds
        asked = loop.run_in_executor(self._threads, routed, examples, answers, self.router, explain)
        try:
            # The router counts from when a thread asks it; who waits has begun to wait before.
            return await asyncio.wait_for(asked, seconds + _MOMENT)
        except TimeoutError:
            return unheard(answers, seconds)
        finally:
            self._routed -= len(left)

    def close(self) -> None:
        """Let go of the thread and of the teacher; what it was asked already is kept."""
        self.batcher.worker.close()
        if self._threads and self.router:
            self._threads.shutdown(wait=False, cancel_futures=True)
            self.router.close()


def facts_of(runtime: Runtime, limits: ServeConfig, routes: bool) -> dict[str, Any]:
    """What is served, for clients."""
    return {
        "name": str(runtime.card["name"]),
        "task": runtime.task.spec.name,
        "kind": runtime.task.spec.answer.kind,
        "format": runtime.bundle.format if runtime.bundle else "student",
        "labels": list(runtime.labels),
        "explains": runtime.explains,
        "needs_rationales": runtime.needs_rationales,
        "threshold": runtime.settings.threshold,
        "routes": routes,
        "limits": {name: getattr(limits, name) for name in LIMITS},
    }


def _unasked(answer: Answer) -> Answer:
    return replace(answer, reason=f"{answer.reason}; too many texts wait for the teacher already")

"""A server from its first connection to its last answer."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import Generator
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

import uvicorn

from stepdistill.deploy.route import Router, router_for
from stepdistill.deploy.runtime import Runtime, load
from stepdistill.deploy.server.app import make_app
from stepdistill.deploy.server.connection import connections
from stepdistill.deploy.server.door import Door
from stepdistill.deploy.server.keys import find_key
from stepdistill.deploy.server.limits import ServeConfig
from stepdistill.deploy.server.listener import address, listening, shut
from stepdistill.deploy.server.memory import keep_memory
from stepdistill.deploy.server.service import Service
from stepdistill.errors import ConfigError

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_LINGER = 0.25
"""Seconds between the last new connection and the end of idle ones: who asks meanwhile is answered."""
_SWITCH = 0.001
"""Seconds for which a thread may keep the interpreter, of 0.005 by default: that would be added to the
latency of every request that comes while the model's thread runs Python."""


@dataclass(frozen=True)
class ServeOptions:
    """How a server is reached and answers; `key` None: this machine asks without."""

    host: str = "127.0.0.1"
    port: int = 8000
    without_key: bool = False
    route: bool = False
    threshold: float | None = None
    threads: int | None = None
    limits: ServeConfig = field(default_factory=ServeConfig)


def serve(where: Path, options: ServeOptions) -> bool:
    """Serve a student until SIGTERM or Ctrl-C; whether all that was accepted had been answered by then.

    Raises:
        ConfigError: no key, an address that is not free, a threshold that is no probability.
        StepdistillError: the student cannot be loaded, or its teacher not be asked.
    """
    key = find_key(options.host, options.without_key)
    runtime = load(where, threshold=options.threshold, threads=options.threads)
    limits = options.limits
    router = _router(runtime, limits) if options.route else None
    with listening(options.host, options.port) as listener:
        service = Service(runtime, limits, router)
        door = Door(make_app(service, keyed=key is not None), key, service.metrics)
        server = Server(door, service)
        sys.setswitchinterval(_SWITCH)
        keep_memory()
        server.run(sockets=[listener])
    if service.failure:
        raise service.failure
    if service.batcher.worker.busy:
        # An answer is being worked out that nobody waits for; native code that is torn down while it
        # runs ends the process with a crash.
        print("Stopped; some requests were not answered in time.", file=sys.stderr, flush=True)
        os._exit(128 + signal.SIGTERM)
    service.close()
    return not server.cut


class Server(uvicorn.Server):
    """Uvicorn's server, stopping in an order in which no accepted request is lost.

    No new connection is let in, and those that the system has made are taken; who asks on an open one is
    answered, and told to close it; then idle ones end, and what is in work is answered. That lasts
    `drain_seconds` at most.

    Attributes:
        cut: whether requests were left unanswered at the end of that time.
    """

    def __init__(self, door: Door, service: Service) -> None:
        limits = service.limits
        super().__init__(
            uvicorn.Config(
                door,
                http=connections(limits, service.metrics),
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                proxy_headers=False,
                server_header=False,
                timeout_keep_alive=limits.keep_alive_seconds,
                timeout_graceful_shutdown=limits.drain_seconds,
            )
        )
        self.cut = False
        self._door, self._service = door, service
        self._working: asyncio.Task[None] | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Take connections, and load the model meanwhile."""
        await super().startup(sockets)
        where = " and ".join(address(listener) for listener in sockets or ())
        print(f"Serving '{self._service.facts['name']}' on {where} (Ctrl-C stops)", flush=True)
        self._working = asyncio.create_task(self._work())

    async def _work(self) -> None:
        try:
            await self._service.run()
        except Exception as error:  # noqa: BLE001 - raised again once the server is down
            self._service.failure = error
            self.should_exit = True

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to stop: no more work is welcome from now on."""
        self._service.draining = self._door.closing = True
        super().handle_exit(sig, frame)

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Stop at a signal, and do not raise it again afterwards: it has been obeyed."""
        before = {number: signal.signal(number, self.handle_exit) for number in _SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop, as the class says."""
        self._service.draining = self._door.closing = True
        for listener in sockets or ():
            shut(listener)
        await asyncio.sleep(_LINGER / 5)
        for server in self.servers:
            server.close()
        await asyncio.sleep(_LINGER)
        await super().shutdown(sockets)
        self.cut = bool(self.server_state.tasks)
        if self._working:
            self._working.cancel()


def _router(runtime: Runtime, limits: ServeConfig) -> Router:
    if runtime.settings.threshold is None:
        raise ConfigError("--route: the student never abstains, as it has no threshold; give --threshold")
    ledger = Path(limits.ledger).expanduser() if limits.ledger else None
    router = router_for(
        runtime.folder, runtime.bundle, runtime.task, ledger, limits.route_seconds, limits.max_cost_usd
    )
    print(f"Texts below the threshold go to {router}", flush=True)
    return router

"""The socket on which a server is reached: opened, or told why not, and closed without loss."""

from __future__ import annotations

import contextlib
import ctypes
import socket
import struct

from stepdistill.errors import ConfigError

_BACKLOG = 2048
_SO_ATTACH_FILTER = 26
_DROP = struct.pack("HBBI", 0x06, 0, 0, 0)
"""The packet filter `ret #0` (Linux, socket(7) and the kernel's networking/filter.rst): nothing passes."""


def listening(host: str, port: int) -> socket.socket:
    """A socket that takes connections at an address.

    Raises:
        ConfigError: there is no such address here, it is in use, or not permitted.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, _, _, _, address = sorted(found, key=lambda one: one[0] != socket.AF_INET)[0]
        listener = socket.create_server(address[:2], family=family, backlog=_BACKLOG)
    except (OSError, OverflowError, UnicodeError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise ConfigError(f"--host {host} --port {port}: {why}; choose another") from None
    # Its connections have it from here: asyncio sets it for sockets that it has made itself, and without it
    # the body of an answer waits 40 ms for the client's word that it has the head.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def shut(listener: socket.socket) -> None:
    """Let no new connection in; those that the system has made already can still be accepted.

    Closing alone would reset them, and their clients, who were told to be connected and have sent a
    request, would lose it. New ones are not answered at all, and are refused when they try again.
    """
    program = ctypes.create_string_buffer(_DROP)
    # Another system than Linux, or one that forbids filters: a queue of no length is nearly the same.
    with contextlib.suppress(OSError):
        listener.setsockopt(
            socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("HP", 1, ctypes.addressof(program))
        )
    with contextlib.suppress(OSError):
        listener.listen(0)


def address(listener: socket.socket) -> str:
    """Where the socket is reached, as people type it."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

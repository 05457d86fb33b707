"""The key that clients must bring: out of the environment, compared in constant time, shown nowhere."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import os
from collections.abc import Iterable

from stepdistill.errors import ConfigError

VARIABLE = "STEPDISTILL_API_KEY"
SHORTEST = 16
"""Characters; a shorter key can be guessed through the network."""
_NAMES = ("localhost", "127.0.0.1", "[::1]")


class Key:
    """The server's key, kept as its hash so that neither a dump nor the time of a comparison tells of it."""

    __slots__ = ("_digest",)

    def __init__(self, text: str) -> None:
        self._digest = hashlib.sha256(text.encode()).digest()

    def __repr__(self) -> str:
        return "Key(***)"

    def opens(self, headers: Iterable[tuple[bytes, bytes]]) -> bool:
        """Whether a request's headers carry the key: `Authorization: Bearer KEY` or `X-API-Key: KEY`."""
        found = False
        for name, value in headers:
            if name == b"authorization" and value[:7].lower() == b"bearer ":
                found |= self._is(value[7:].strip())
            elif name == b"x-api-key":
                found |= self._is(value.strip())
        return found

    def _is(self, given: bytes) -> bool:
        return hmac.compare_digest(hashlib.sha256(given).digest(), self._digest)


def find_key(host: str, without: bool) -> Key | None:
    """The key from the environment; None where none is asked for, which loopback alone may do.

    Raises:
        ConfigError: no key, one that is too short or not printable, or no key wanted on another address.
    """
    if without:
        if not is_loopback(host):
            raise ConfigError(
                f"--no-key serves this machine alone, and {host} can be reached by others; use --host "
                f"127.0.0.1, or put a key into {VARIABLE}"
            )
        return None
    text = os.environ.get(VARIABLE, "").strip()
    if not text:
        raise ConfigError(
            f"the environment variable {VARIABLE} is not set; put a key of at least {SHORTEST} characters "
            "into it, or give --no-key to serve this machine alone"
        )
    if len(text) < SHORTEST or not text.isascii() or not text.isprintable() or " " in text:
        raise ConfigError(
            f"{VARIABLE} has to be at least {SHORTEST} printable ASCII characters without spaces; make one "
            "with `openssl rand -hex 32`"
        )
    return Key(text)


def is_loopback(host: str) -> bool:
    """Whether an address is reached from this machine alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def names_loopback(host: bytes) -> bool:
    """Whether a `Host` header means this machine by name.

    Without a key, a page of another site whose name was pointed at 127.0.0.1 could otherwise ask this
    server through the visitor's browser (DNS rebinding).
    """
    text = host.decode("latin-1").lower()
    name = text if text.endswith("]") else text.rsplit(":", 1)[0] if ":" in text else text
    return name in _NAMES or is_loopback(name.strip("[]"))

"""The key of an endpoint: out of the environment, into one header, and nowhere else."""

from __future__ import annotations

import os
from urllib.parse import urlsplit

from stepdistill.config import TeacherConfig
from stepdistill.errors import ConfigError

DEFAULT = "OPENAI_API_KEY"
SHORTEST = 16
"""Characters; no key that is worth hiding has fewer."""
_ITS_HOSTS = ("openai.com", "openai.azure.com")


class Secret:
    """A text that does not show itself in messages, tracebacks and dumps of variables."""

    __slots__ = ("_hidden",)

    def __init__(self, text: str) -> None:
        self._hidden = text

    def __repr__(self) -> str:
        return "Secret(***)"

    def headers(self, name: str) -> dict[str, str]:
        """The request header that carries the key; none where there is no key."""
        if not self._hidden:
            return {}
        return {name: f"Bearer {self._hidden}" if name.lower() == "authorization" else self._hidden}

    def hide(self, text: str) -> str:
        """The text without the key, should a server have said it back."""
        return text.replace(self._hidden, "***") if self._hidden else text

    def is_in(self, text: str) -> bool:
        """Whether a text repeats the key; one as short as a word could stand there by chance."""
        return len(self._hidden) >= SHORTEST and self._hidden in text

    def __reduce__(self) -> str:
        raise TypeError("a secret is not written to files")


def is_openai(base_url: str) -> bool:
    """Whether an address is OpenAI's own, or Azure's."""
    host = urlsplit(base_url).hostname or ""
    return any(host == name or host.endswith(f".{name}") for name in _ITS_HOSTS)


def find_key(teacher: TeacherConfig) -> Secret:
    """The key of a teacher's endpoint from the environment.

    `OPENAI_API_KEY` goes to OpenAI's own hosts only, unless the file names it: set for one provider, it
    must not reach another. Servers of one's own often need no key, so elsewhere none is asked for.

    Raises:
        ConfigError: the variable that the file names, or that OpenAI needs, is not set.
    """
    host, its_own = urlsplit(teacher.base_url).hostname or "", is_openai(teacher.base_url)
    variable = teacher.key_variable or (DEFAULT if its_own else None)
    if variable is None:
        return Secret("")
    key = os.environ.get(variable, "").strip()
    if not key:
        raise ConfigError(
            f"the environment variable {variable} is not set; put the key of {host} into it (it is never "
            "written to a file)"
        )
    if not key.isascii() or not key.isprintable():
        raise ConfigError(
            f"the environment variable {variable} holds characters that no key has; set it anew"
        )
    return Secret(key)

"""Where tables go, and texts of others without what could steer a terminal."""

from __future__ import annotations

import sys

from rich.console import Console


def console() -> Console:
    """Standard output; into a file or pipe there is no width to keep to."""
    return Console() if sys.stdout.isatty() else Console(width=120)


def plain(text: str) -> str:
    r"""A text whose control characters are spelt out, line ends and tabs excepted.

    >>> plain("a\x1b[31m\nb")
    'a\\x1b[31m\nb'
    """
    return "".join(c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode() for c in text)

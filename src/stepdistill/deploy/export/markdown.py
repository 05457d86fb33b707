r"""Texts of others put into Markdown and YAML as text: nothing in them can be markup or end its place."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from typing import Any

import yaml

_MARKUP = re.compile(r"[\\`\[\]<>|~$#&{}@]|\*(?! )|(?<! )\*|_(?![^\W_])|(?<![^\W_])_|://")
"""What can begin, end or part something in a line of CommonMark, GitHub's or the Hub's Markdown."""
_PLAIN = re.compile(r"[^\\`<>|&$]*")
"""A text that a code span shows as it is, in a table's cell, too."""
_STEERING = {"Cc", "Cs", "Cn"}
_DIRECTIONS = set("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def clean(text: str) -> str:
    r"""A text in which what cannot be seen and changes what can be is spelt out; line ends and tabs stay.

    >>> clean("a\x1b[31m\nb\ud800\u202e")
    'a\\x1b[31m\nb\\ud800\\u202e'
    """
    return "".join(_spelt(char) if _is_hidden(char) else char for char in text)


def one_line(text: str) -> str:
    r"""A text without line ends of any kind; spaces that follow each other are one.

    >>> one_line(" a\n---\u2028 b ")
    'a --- b'
    """
    return clean(" ".join(text.split()))


def inline(text: str) -> str:
    r"""A text as Markdown that shows it, in a sentence or a table's cell; never at the beginning of a line.

    Entities are taken for text everywhere, while a backslash before a bar is read in several ways.

    >>> inline("a|b <i> snake_case __x__")
    'a&#124;b &#60;i&#62; snake_case &#95;&#95;x&#95;&#95;'
    """
    return _MARKUP.sub(lambda found: "".join(f"&#{ord(c)};" for c in found[0]), one_line(text))


def code(text: str) -> str:
    """A text as a code span where it can be one in any reader of Markdown, else as `inline`.

    >>> code("approve"), code("a`b"), code("")
    ('`approve`', 'a&#96;b', '(empty)')
    """
    line = one_line(text)
    if not line:
        return "(empty)"
    return f"`{line}`" if _PLAIN.fullmatch(line) else inline(line)


def block(text: str, language: str = "text") -> str:
    r"""A text as a fenced block, line by line; the fence is longer than any in the text.

    >>> block("a\n```\nb")
    '````text\na\n```\nb\n````'
    """
    lines = clean("\n".join(re.split(r"\r\n|\r|\n", text.strip("\r\n"))))
    fence = "`" * max(3, 1 + max(map(len, re.findall(r"`+", lines)), default=0))
    return f"{fence}{language}\n{lines}\n{fence}"


def front_matter(values: Mapping[str, Any], notes: tuple[str, ...] = ()) -> str:
    """YAML between two lines of dashes, as the Hugging Face Hub reads it; notes are comments.

    Every text is one line, so that none of its own can be taken for the end.
    """
    body = yaml.safe_dump(_flat(values), sort_keys=False, allow_unicode=True, width=2**31)
    comments = "".join(f"# {one_line(note)}\n" for note in notes)
    return f"---\n{body}{comments}---\n"


def _flat(value: Any) -> Any:
    if isinstance(value, str):
        return one_line(value)
    if isinstance(value, Mapping):
        return {one_line(str(key)): _flat(inner) for key, inner in value.items()}
    return [_flat(inner) for inner in value] if isinstance(value, list | tuple) else value


def _is_hidden(char: str) -> bool:
    return char not in "\n\t" and (unicodedata.category(char) in _STEERING or char in _DIRECTIONS)


def _spelt(char: str) -> str:
    return char.encode("unicode_escape").decode("ascii")

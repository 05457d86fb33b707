"""Texts of others made fit for a page: nothing in them can be markup, steer a terminal, or break UTF-8."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterable
from pathlib import Path, PurePath
from typing import Any

_HIDDEN = {
    **dict.fromkeys(range(0x20)),
    **dict.fromkeys(range(0x7F, 0xA0)),
    **dict.fromkeys(range(0xD800, 0xE000)),
}
_HIDDEN |= dict.fromkeys((0xFFFE, 0xFFFF))
_SPELT = {code: chr(code).encode("unicode_escape").decode() for code in _HIDDEN if chr(code) not in "\n\t"}
_SOURCE = re.compile(r'(?<=File ")[^"\n]+(?=")')
_QUOTED = re.compile(r"""(?<=['"`])~?/[^'"`\n]*/(?=[^/'"`\n]+['"`])""")
_ABSOLUTE = re.compile(r"""(?:(?<=://)|(?<![\w.…/~]))(?:~/|/(?=[^\s/]+/))[^\s'"`<>:;,()\[\]{}|]+""")


def clean(text: str) -> str:
    r"""A text whose control characters and lone surrogates are spelt out, line ends and tabs excepted.

    An HTML parser drops or replaces them, and a lone surrogate has no UTF-8.

    >>> clean("a\x1b[31m\nb\ud800")
    'a\\x1b[31m\nb\\ud800'
    """
    return text.translate(_SPELT)


def nowhere(text: str, folders: Iterable[Path] = ()) -> str:
    """A text whose absolute paths have lost their folders, so that it tells nothing of a machine.

    Files of a traceback keep what follows from the package on. `folders` are known ones, which may have
    blanks in their names.

    >>> nowhere("/data/big/a.jsonl:3: no label; see https://a.org/b/c and either/or")
    '…/a.jsonl:3: no label; see https://a.org/b/c and either/or'
    >>> nowhere('File "/home/me/env/lib/site-packages/torch/nn/linear.py", line 3')
    'File "torch/nn/linear.py", line 3'
    """
    text = _SOURCE.sub(_from_package, text)
    for folder in sorted(map(str, folders), key=len, reverse=True):
        if folder.count("/") > 1 or folder == str(Path.home()):
            text = re.sub(rf"(?<!\w){re.escape(folder)}(?![\w.-])", "…", text)
    text = _QUOTED.sub("…/", text)
    return _ABSOLUTE.sub(lambda found: f"…/{PurePath(found[0]).name}", text)


def _from_package(found: re.Match[str]) -> str:
    path = found[0]
    for folder in ("/site-packages/", "/dist-packages/"):
        if folder in path:
            return path.rpartition(folder)[2]
    _, ours, inside = path.rpartition("/stepdistill/")
    return f"stepdistill/{inside}" if ours else PurePath(path).name


def finalize(value: Any) -> Any:
    """What a template shows of a value: strings are cleaned, None is nothing."""
    if value is None:
        return ""
    # The type itself: a subclass is markup that is safe already.
    return clean(value) if type(value) is str else value


def embed(value: Any) -> str:
    r"""A value as JSON that can stand in a `script` element.

    >>> embed({"a": "</script><!--\u2028"})
    '{"a": "\\u003c/script\\u003e\\u003c!--\\u2028"}'
    """
    text = json.dumps(value, ensure_ascii=True, allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def source_hash(text: str) -> str:
    """What a Content-Security-Policy names an inline script or style sheet by."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def data_uri(kind: str, raw: bytes) -> str:
    """A file as an address that holds it."""
    return f"data:{kind};base64,{base64.b64encode(raw).decode()}"


def shorten(text: str, limit: int) -> str:
    """A text cut to `limit` characters, with a word on how many are left out.

    >>> shorten("abcdef", 4)
    'abcd … (2 more characters)'
    """
    over = len(text) - limit
    return text if over <= 0 else f"{text[:limit]} … ({over:,} more characters)"

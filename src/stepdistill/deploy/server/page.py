"""The pages of a server: each whole in one file, and allowed nothing but to ask this server."""

from __future__ import annotations

import base64
import hashlib
import re
from functools import cache
from importlib import resources

from fastapi import Response

_INLINE = re.compile(r"<(script|style)>(.*?)</\1>", re.DOTALL)


def response(name: str) -> Response:
    """A page, with the policy that lets its own script and style alone run."""
    html, policy = _page(name)
    headers = {
        "content-type": "text/html; charset=utf-8",
        "content-security-policy": policy,
        "cache-control": "no-cache",
        "referrer-policy": "no-referrer",
        "x-frame-options": "DENY",
    }
    return Response(html, headers=headers)


@cache
def _page(name: str) -> tuple[str, str]:
    """A page's text, and its Content-Security-Policy: scripts and styles by their hash."""
    html = (resources.files("stepdistill.deploy.server") / "static" / name).read_text(encoding="utf-8")
    hashes: dict[str, list[str]] = {"script": [], "style": []}
    for kind, text in _INLINE.findall(html):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        hashes[kind].append(f"'sha256-{digest}'")
    policy = [
        "default-src 'none'",
        "connect-src 'self'",
        "img-src data:",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        *(f"{kind}-src {' '.join(found)}" for kind, found in hashes.items() if found),
    ]
    return html, "; ".join(policy)

"""The answer in a server's JSON: exactly one, or a refusal; never a guess."""

from __future__ import annotations

import json

from stepdistill.config import TeacherConfig
from stepdistill.errors import brief
from stepdistill.teacher.protocol import Reply
from stepdistill.teacher.refusal import RefusalError
from stepdistill.teacher.secret import Secret


def understood(raw: bytes, teacher: TeacherConfig, key: Secret, seconds: float) -> Reply:
    """As `read_reply`; what a server says of the key goes nowhere, whatever else it says."""
    try:
        reply = read_reply(raw, teacher, seconds)
    except RefusalError as error:
        error.detail = key.hide(error.detail)
        raise
    if any(key.is_in(said) for said in (reply.text, reply.finish, reply.model)):
        raise RefusalError("the reply repeats the key", hopeless=True, maybe_paid=True)
    return reply


def read_reply(raw: bytes, teacher: TeacherConfig, seconds: float) -> Reply:
    """The answer in a body; anything that is not exactly one is refused, never guessed."""
    try:
        body = json.loads(raw)
        choice = body["choices"][0]
        finish = choice.get("finish_reason")
        said, name = (choice["message"], "content") if teacher.api == "chat" else (choice, "text")
        # Where nothing was left to say, or all was withheld, some servers leave the text out.
        text = said.get(name) if finish in ("length", "content_filter") else said[name]
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError):
        what = brief(raw[:60].decode("utf-8", "replace"))
        raise RefusalError("malformed reply", f"no answer in {what}", maybe_paid=True) from None
    if isinstance(text, list):  # in parts, as some servers give it; a part without text is no words
        parts = [part["text"] for part in text if isinstance(part, dict) and "text" in part]
        text = "".join(parts) if parts and all(isinstance(part, str) for part in parts) else text
    if text is not None and not isinstance(text, str):
        raise RefusalError("malformed reply", f"the answer is {brief(text)}", maybe_paid=True)
    usage = body.get("usage")
    usage = usage if isinstance(usage, dict) else {}
    details = usage.get("prompt_tokens_details")
    asked, written = _count(usage.get("prompt_tokens")), _count(usage.get("completion_tokens"))
    if (whole := _count(usage.get("total_tokens"))) is not None and asked is not None:
        written = max(written or 0, whole - asked)  # some count thoughts in the sum alone, and charge them
    return Reply(
        text=text or "",
        finish=finish if isinstance(finish, str) and finish else "unknown",
        model=str(body.get("model") or teacher.model),
        prompt_tokens=asked,
        completion_tokens=written,
        cached_tokens=_count(details.get("cached_tokens")) if isinstance(details, dict) else None,
        seconds=seconds,
    )


def _count(value: object) -> int | None:
    is_count = isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**40
    return value if is_count else None  # type: ignore[return-value]

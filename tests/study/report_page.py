"""A report taken apart, for tests: its elements, and what a reader sees."""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path

CELLS = ("td", "th", "dt", "dd", "p", "li")
VOID = ("meta", "link", "img", "input", "br", "rect")


@dataclass
class Read(HTMLParser):
    """A page taken apart as a browser would."""

    tags: list[tuple[str, dict[str, str | None]]] = field(default_factory=list)
    inside: dict[str, list[str]] = field(default_factory=dict)
    words: str = ""
    open: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__(convert_charrefs=True)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag in ("script", "style"):
            self.inside.setdefault(tag, []).append("")

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag
        if tag in CELLS:
            self.words += " "

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in ("script", "style"):
            self.inside[self.open[-1]][-1] += data
        else:
            self.words += data


def read(path: Path) -> Read:
    found = Read()
    found.feed(path.read_bytes().decode("utf-8"))
    assert found.open == []
    return found


def shown(path: Path) -> str:
    return " ".join(read(path).words.split())

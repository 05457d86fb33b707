"""Whatever stands in a task or a name is shown as text, and changes nothing of a card."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import yaml
from card_samples import (
    FACTS,
    FRONT,
    PROOF,
    TASK,
    manifest,
    metadata,
    shape,
    tokens,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from stepdistill.config import TeacherConfig
from stepdistill.deploy.export.card import render
from stepdistill.deploy.export.markdown import block, code, front_matter, inline, one_line

NASTY = ["---", "a\n---\nb", "<script>alert(1)</script>", "a|b", "\\|", "``` x", "`", "# h", "[a](b)", "&lt;"]
NASTY += [
    "!!python/object:x",
    "*",
    "**b**",
    "__b__",
    "- a",
    "{{ 7 * 7 }}",
    "{% raw %}",
    "\u2028",
    "\ud800",
    "\x00",
]
NASTY += ["a\r---\rb", "'''", '"', ": #", "$x$", "~~a~~", "<!--", "https://a.b", "yes", "\u202e", "\\"]
PARTS = st.one_of(st.sampled_from(NASTY), st.text(max_size=20))
ANY = st.lists(PARTS, max_size=4).map("".join)
WORDS = ANY.map(lambda text: text.encode("utf-8", "ignore").decode())
"""What pydantic takes for text."""


PLAIN = shape(render(manifest(), PROOF, FACTS))


@settings(max_examples=60)
@given(name=WORDS, instruction=WORDS, template=WORDS, label=WORDS, model=WORDS, paper=ANY)
def test_no_text_of_a_task_is_markup_or_ends_the_front_matter(
    name: str, instruction: str, template: str, label: str, model: str, paper: str
) -> None:
    escaped = template.replace("{", "{{").replace("}", "}}")
    task = {
        **TASK,
        "name": name or "n",
        "instruction": instruction or "i",
        "input": f"{{letter}}{escaped}",
        "answer": {"kind": "label", "labels": ["good", f"bad {label}"]},
    }
    teacher = TeacherConfig(backend="openai", model=f"m{model}")
    told = replace(FACTS, teachers=(teacher,), digests={"data": "808f2368ceaf67a2"})
    text = render(manifest({"task": task, "student": "scratch:", "paper": paper}), PROOF, told)
    assert shape(text) == PLAIN
    assert metadata(text)["model-index"][0]["results"][0]["dataset"]["name"] == one_line(name or "n")
    text.encode("utf-8")
    shown = [one.content for one in tokens(text) if one.type == "code_inline" or one.type == "text"]
    assert one_line(f"bad {label}") in "".join(shown)


@given(ANY)
def test_a_text_stays_one_cell_and_says_the_same(text: str) -> None:
    for made in (inline(text), code(text)):
        table = f"| a {made} | b |\n|---|---|\n| {made} | 2 |"
        found = MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(table)
        cells = [one for one in found if one.type == "inline"]
        assert len(cells) == 4
        kinds = {child.type for cell in cells for child in cell.children or ()}
        assert kinds <= {"text", "code_inline"}
        said = "".join(child.content for child in cells[2].children or ())
        assert said == (one_line(text) or ("(empty)" if made == code(text) else ""))


@given(ANY)
def test_a_block_is_one_block(text: str) -> None:
    found = MarkdownIt("commonmark").parse(f"before\n\n{block(text)}\n\nafter")
    assert [one.type for one in found if one.level == 0 and one.nesting >= 0] == [
        "paragraph_open",
        "fence",
        "paragraph_open",
    ]


@given(st.dictionaries(ANY, st.one_of(ANY, st.lists(ANY), st.floats(allow_nan=False), st.none()), max_size=4))
def test_front_matter_is_read_as_it_was_meant(values: dict[str, Any]) -> None:
    text = front_matter({"first": 1, **values}, ("license: yours\n---\nto choose",))
    found = FRONT.match(text + "\n# Title\n---\n")
    assert found
    assert found.end() == len(text)

    def flat(value: Any) -> Any:
        return one_line(value) if isinstance(value, str) else value

    meant = {one_line(k): [flat(x) for x in v] if isinstance(v, list) else flat(v) for k, v in values.items()}
    assert yaml.safe_load(found[2]) == {"first": 1, **meant}

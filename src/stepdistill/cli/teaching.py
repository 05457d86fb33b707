"""What `stepdistill annotate` shows: prompts and costs before, counts and costs after."""

from __future__ import annotations

import json
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any, get_args

from rich import box
from rich.table import Table

from stepdistill.cli.console import console, plain
from stepdistill.config import load_run
from stepdistill.config.teacher import SplitName
from stepdistill.errors import ConfigError, MissingExtraError, RunFolderError, unknown
from stepdistill.records import unwatched
from stepdistill.study.job import Job
from stepdistill.teacher.annotate import Outcome
from stepdistill.teacher.export import FORMATS, export_annotations
from stepdistill.teacher.preview import Preview, preview
from stepdistill.teacher.prices import dollars
from stepdistill.teacher.protocol import Tally


def show_preview(job: Job, n: int, as_json: bool) -> None:
    """Print the first prompts exactly as they would be sent, and what all would cost."""
    found = preview(job.asked, n)
    if as_json:
        print(json.dumps([asdict(one) for one in found]))
        return
    for one in found:
        for example_id, prompt, tokens in one.prompts:
            about = "" if one.exact else "about "
            print(plain(f"=== {example_id}, to {one.teacher}, {about}{tokens:,} tokens"))
            turns = (
                [("text", prompt.text)]
                if one.style == "text"
                else [(m.role, m.content) for m in prompt.messages]
            )
            for role, words in turns:
                print(f"--- {role}\n{plain(words)}")
        print(_estimate(one))


def show_outcome(job: Job, outcome: Outcome, as_json: bool) -> None:
    """Print what was asked, read and paid."""
    tally = outcome.tally
    if as_json:
        money = asdict(outcome.money) if outcome.money else None
        print(json.dumps({**outcome.report, "asked": asdict(tally), "money": money}))
        return
    out = console()
    out.print(_parse_table(outcome.report))
    for line in _lines(job, outcome):
        out.print(line, soft_wrap=True, highlight=False, markup=False)


def repair(file: Path, overrides: list[str], as_json: bool) -> None:
    """Salvage the ledger of a run file."""
    from stepdistill.teacher.salvage import salvage

    job = Job(load_run(file, overrides), unwatched)
    found = salvage(job.ledger)
    print(json.dumps(asdict(found)) if as_json else found)


def check_export(path: Path) -> None:
    """Refuse before the work what could not be written after it.

    Raises:
        ConfigError: an unknown format. RunFolderError: the file is there already.
    """
    if path.suffix.lower() not in FORMATS:
        raise ConfigError(f"--export {path}: " + unknown("format", path.suffix or path.name, FORMATS))
    if path.exists():
        raise RunFolderError(f"--export {path}: is there already; delete it or give another name")
    if path.suffix.lower() == ".parquet" and find_spec("pyarrow") is None:
        raise MissingExtraError(f"--export {path}", "data")


def export(job: Job, path: Path) -> None:
    """Write the annotations beside their inputs to a file."""
    export_annotations(job.folder.annotations, job.asked, path)


def _estimate(one: Preview) -> str:
    line = f"{one.asks:,} prompts to ask of {one.teacher}, {one.reused:,} answered in the ledger"
    if one.further:
        line += f"; then at most {one.further:,} in a second stage"
    line += f"; about {one.tokens:,} tokens in all prompts to ask"
    if one.about is None or one.most is None:
        return f"{line}; no price is known for this model: give teacher.price to see the cost"
    return f"{line}; cost about {dollars(one.about)}, at most {dollars(one.most)}"


def asked_line(tally: Tally) -> str:
    """What was asked and what of it was paid, in one line."""
    slow = f", {tally.slowed:,} refused for haste" if tally.slowed else ""
    unsure = f", and up to {dollars(tally.presumed)} for requests whose fate is unknown"
    cost = f"; cost {dollars(tally.cost)}{unsure if tally.presumed else ''}"
    return (
        f"{tally.answered:,} answers asked ({tally.attempts:,} requests{slow}), {tally.reused:,} taken from "
        f"the ledger; {tally.prompt_tokens:,} tokens read and {tally.completion_tokens:,} written"
        f"{cost if tally.cost or tally.presumed else ''}"
    )


def asked_lines(outcome: Outcome) -> list[str]:
    """What was asked and paid, and what has no answer; nothing where nobody was asked."""
    tally, lines = outcome.tally, []
    if tally.answered or tally.reused or tally.failed:
        lines.append(asked_line(tally))
    if outcome.money and outcome.money.total:
        presumed = outcome.money.presumed
        unsure = f", and up to {dollars(presumed)} for requests whose fate is unknown" if presumed else ""
        lines.append(f"All answers in the ledger have cost {dollars(outcome.money.paid)}{unsure}")
    if tally.failed:
        reasons = ", ".join(f"{reason}: {n:,}" for reason, n in tally.failed.items())
        lines.append(f"Without an answer ({reasons}); run the same command to ask again")
    return lines


def _lines(job: Job, outcome: Outcome) -> list[str]:
    lines = asked_lines(outcome)
    if outcome.left_out:
        reasons = ", ".join(f"{reason}: {n:,}" for reason, n in outcome.left_out.most_common())
        lines.append(f"{outcome.left_out.total():,} training examples are left out of it ({reasons})")
    if outcome.kept:
        lines.append("Students have been trained on these answers: nothing was asked and nothing changed")
    lines.append(f"Everything is in {job.folder.path}")
    return lines


def _parse_table(report: dict[str, Any]) -> Table:
    title = "The teacher's answers"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("split", "examples", "answers", "read", "by rule (right of those with gold)", "unread"):
        table.add_column(heading)
    for split in (name for name in get_args(SplitName) if name in report):
        row = report[split]
        reasons = ", ".join(f"{reason}: {n:,}" for reason, n in row["unread"].items())
        numbers = (f"{row[key]:,}" for key in ("examples", "answers", "read"))
        table.add_row(split, *numbers, _rules(row), reasons)
    return table


def _rules(row: dict[str, Any]) -> str:
    parts = []
    for rule, n in row["rules"].items():
        judged = row.get("accuracy", {}).get(rule)
        right = f" ({100 * judged['right'] / judged['n']:.1f} %)" if judged and judged["n"] else ""
        parts.append(f"{rule}: {n:,}{right}")
    return ", ".join(parts)

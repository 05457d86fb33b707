"""An export on the terminal: the trained checkpoint and what was made of it, side by side."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from rich import box
from rich.table import Table

from stepdistill.cli.console import console
from stepdistill.deploy.export.figures import count, digits, milliseconds, percent, share, size

if TYPE_CHECKING:
    from stepdistill.deploy.export.work import Exported


def show(found: Exported) -> None:
    """Print the proof of an export, where it lies, and what to do with it."""
    out, proof = console(), found.proof
    name = found.bundle.card["name"]
    title = f"{name} as {proof['format']}, {proof['precision']}"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("", "checkpoint", "export"):
        table.add_column(heading, justify="right" if heading else "left")
    for heading, show_ in _ROWS.items():
        table.add_row(heading, *(show_(proof[side]) for side in ("checkpoint", "export")))
    out.print(table)
    for one in proof["passed_over"]:
        out.print(f"Passed over: {one['why'].partition('; choose')[0]}", soft_wrap=True, highlight=False)
    for line in _lines(proof):
        out.print(line, soft_wrap=True, highlight=False)
    where = "is there already" if found.already else "is written"
    out.print(f"The export {where}: {found.out}", soft_wrap=True, highlight=False)
    out.print(f"Next: stepdistill serve {shlex.quote(str(found.out))}", soft_wrap=True, highlight=False)


def _accuracy(side: Mapping[str, Any]) -> str:
    if side["accuracy"] is None:
        return "-"
    return f"{percent(side['accuracy'])} ({100 * side['low']:.1f} - {100 * side['high']:.1f})"


_ROWS: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "accuracy on validation (95 %)": _accuracy,
    "size on disk": lambda side: size(side["size_bytes"]),
    "peak memory of its process": lambda side: size(side["peak_memory_bytes"]),
    "latency of one text, p50": lambda side: milliseconds(side["latency_ms"]["p50"]),
    "latency of one text, p95": lambda side: milliseconds(side["latency_ms"]["p95"]),
    "examples/s in batches of 16": lambda side: digits(side["examples_per_second"]),
    "computed in": lambda side: side["computes"],
}


def _lines(proof: Mapping[str, Any]) -> list[str]:
    low, high = percent(proof["agreement_low"], 2), percent(proof["agreement_high"], 2)
    added = f" and {count(proof['topped_up'])} training inputs" if proof["topped_up"] else ""
    lines = [
        f"Agreement: {percent(proof['agreement'], 2)} ({low} to {high}) of {count(proof['n'])} examples: "
        f"{count(proof['n_validation'])} of validation{added}"
    ]
    if proof["accepted"]:
        lines.append(f"NOT PROVEN, and accepted all the same: {proof['lacks']}")
    if found := proof["calibration"]:
        lines.append(
            f"Calibration error (ECE): {share(found['ece_before'])} -> {share(found['ece_after'])}, "
            f"temperature {digits(found['temperature'])}, readout '{found['readout']}'"
        )
    if point := proof["threshold"]:
        lines.append(
            f"Threshold: {share(point['threshold'], 4)}; it answers {percent(point['coverage'])}, of which "
            f"{percent(point['accuracy'])} are right on validation"
        )
    machine = proof["machine"]
    lines.append(f"Measured with {machine['threads']} thread(s) each, on {machine['cpu']}")
    return lines

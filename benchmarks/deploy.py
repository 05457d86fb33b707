"""How fast an exported student answers, and how often it says what the trained one says; in one run.

    python benchmarks/deploy.py speed --shape t5-v1.1-base --json speed.json
    python benchmarks/deploy.py agree RUN [RUN ...] --json agree.json

`speed`: a T5 with random weights on one core with one thread: transformers' float32 beside CTranslate2, both
through the engines that a `Runtime` asks. All ways of asking take turns within a round, so that a machine
whose speed drifts is fair to all; a ratio is taken within its round, and the median of the rounds counts.
`agree`: labels of trained students on validation and test, of int8 beside float32.
Prints Markdown.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from deploy_cases import SHAPES, Case, engines, make_student, questions, ways

from stepdistill.deploy.bundle import Settings, of_student
from stepdistill.deploy.engines import Engine
from stepdistill.deploy.export import ctranslate2, job
from stepdistill.deploy.model import Model
from stepdistill.deploy.readout import READOUTS
from stepdistill.deploy.runtime import Runtime
from stepdistill.evaluate.statistics import wilson
from stepdistill.records import Example
from stepdistill.weights import be_quiet

BATCHES = (1, 16)
SINGLES = 6
"""Calls of one way at batch 1 in a round; at a larger batch it is one call."""
SURE = 0.8
"""Of a label of the trained student: its probability."""
COUNTS = ("same", "n", "sure", "sure_same", "written_valid", "scored_valid")
FIRST, WRITTEN = "first step", "{} tokens written"
Seconds = dict[tuple[str, str, int], list[float]]
"""Seconds a text in each round, by engine, way and batch."""


def main() -> None:
    """Run one of the two."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    verbs = parser.add_subparsers(required=True)
    fast = verbs.add_parser("speed")
    fast.add_argument("--shape", choices=SHAPES, default="t5-v1.1-base")
    fast.add_argument("--rounds", type=int, default=7)
    fast.add_argument("--tokens", type=int, default=64, help="of an input, about")
    fast.add_argument("--written", type=int, nargs="+", default=[2, 4, 8], help="tokens of a written label")
    fast.add_argument("--precisions", nargs="*", default=["int8", "float32"], choices=ctranslate2.PRECISIONS)
    fast.set_defaults(work=speed)
    alike = verbs.add_parser("agree")
    alike.add_argument("runs", type=Path, nargs="+")
    alike.add_argument("--precision", choices=ctranslate2.PRECISIONS, default="int8")
    alike.add_argument("--readout", choices=READOUTS, default="first")
    alike.add_argument("--most", type=int, help="texts of a student, the first of test and validation")
    alike.set_defaults(work=agree)
    for verb in (fast, alike):
        verb.add_argument("--json", type=Path, help="write the numbers there too")
    given = parser.parse_args()
    be_quiet()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:1])
    torch.set_num_threads(1)
    found, text = given.work(given)
    print(text + "\n\n" + machine())
    if given.json:
        given.json.write_text(json.dumps(found, indent=2) + "\n")


def speed(given: Any) -> tuple[dict[str, Any], str]:
    """Milliseconds of every engine, way and batch, and the ratios."""
    with tempfile.TemporaryDirectory() as scratch:
        student = make_student(given.shape, Path(scratch))
        opened = engines(student, given.precisions, Path(scratch))
        asked = ways(given.written)
        wall, cpu = measured(opened, asked, given)
        computes = {name: engine.computes for name, engine in opened.items()}
    peer, *ours = computes
    rows = [(name, way.name, batch) for batch in BATCHES for way in asked for name in computes]
    table: list[dict[str, Any]] = []
    for name, way, batch in rows:
        mine, theirs = (name, way, batch), (peer, way, batch)
        row = {"engine": name, "computes": computes[name], "way": way, "batch": batch}
        row |= {"ms": spread([1000 * s for s in wall[mine]]), "times": spread(ratios(wall, theirs, mine))}
        table.append(row | {"times_cpu": spread(ratios(cpu, theirs, mine))})
    closed = [
        {"engine": name, "written": most, "times": spread(ratios(wall, (name, way, 1), (name, FIRST, 1)))}
        for name in computes
        for most, way in ((most, WRITTEN.format(most)) for most in given.written)
    ]
    found = {"shape": given.shape, "rounds": given.rounds, "tokens": given.tokens, "table": table}
    return found | {"closed": closed}, speed_text(table, closed, ours)


def measured(opened: dict[str, Engine], asked: Sequence[Case], given: Any) -> tuple[Seconds, Seconds]:
    """Seconds a text by the clock and of the processor; the first round warms up and is dropped."""
    wall: Seconds = {}
    cpu: Seconds = {}
    for number in range(given.rounds + 1):
        for batch in BATCHES:
            rows = questions(max(batch, SINGLES), given.tokens, seed=number)
            groups = [rows[begin : begin + batch] for begin in range(0, len(rows), batch)]
            for way in asked:
                for name, engine in opened.items():
                    begun = time.perf_counter(), time.process_time()
                    for group in groups:
                        way.ask(engine, group)
                    ended = time.perf_counter(), time.process_time()
                    if not number:
                        continue
                    for kept, one, other in zip((wall, cpu), begun, ended, strict=True):
                        kept.setdefault((name, way.name, batch), []).append((other - one) / len(rows))
    return wall, cpu


def ratios(found: Seconds, slow: tuple[str, str, int], fast: tuple[str, str, int]) -> list[float]:
    """How many times as fast, round by round."""
    return [a / b for a, b in zip(found[slow], found[fast], strict=True)]


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, least and most."""
    return {"median": statistics.median(values), "least": min(values), "most": max(values)}


def shown(value: dict[str, float], digits: int = 2) -> str:
    """Median, least and most as text."""
    return "{:.{n}f} ({:.{n}f} - {:.{n}f})".format(*value.values(), n=digits)


def speed_text(table: list[dict[str, Any]], closed: list[dict[str, Any]], ours: Sequence[str]) -> str:
    """Two tables in Markdown."""
    lines = ["| batch | way | engine | ms a text | times transformers |", "|---:|---|---|---:|---:|"]
    for row in table:
        name = row["engine"]
        if name in ours and not name.endswith(row["computes"].split("_")[0]):
            name += f", computed in {row['computes']}"
        lines.append(
            f"| {row['batch']} | {row['way']} | {name} | {shown(row['ms'], 1)} | {shown(row['times'])} |"
        )
    lines += [
        "",
        "| first step beside free generation, batch 1 | tokens written | times |",
        "|---|---:|---:|",
    ]
    lines += [f"| {row['engine']} | {row['written']} | {shown(row['times'])} |" for row in closed]
    return "\n".join(lines)


def agree(given: Any) -> tuple[dict[str, Any], str]:
    """How often an export gives the label of the trained student, run by run and in sum."""
    rows = [agreement(run, given) for run in given.runs]
    total = {key: sum(row[key] for row in rows) for key in COUNTS}
    rows.append({"run": "all", **total, "interval": wilson(total["same"], total["n"])})
    lines = [
        f"| student, {given.precision}, readout `{given.readout}` | same label | of | share, 95 % | "
        f"of those {SURE:.0%} sure | valid: scored | valid: written |",
        "|---|---:|---:|---|---:|---:|---:|",
    ]
    for row in rows:
        low, high = row["interval"]
        share = f"{100 * row['same'] / row['n']:.2f} % ({100 * low:.2f} - {100 * high:.2f})"
        sure = f"{row['sure_same']} / {row['sure']}"
        valid = f"{sure} | {row['scored_valid']} | {row['written_valid']}"
        lines.append(f"| {row['run']} | {row['same']} | {row['n']} | {share} | {valid} |")
    return {"precision": given.precision, "readout": given.readout, "rows": rows}, "\n".join(lines)


def agreement(run: Path, given: Any) -> dict[str, Any]:
    """Of one run's best student; `valid` counts the export's answers that are in the closed set."""
    source, precision = job.find(run), given.precision
    splits = [source.examples.get("test") or (), source.examples.get("validation") or ()]
    examples = [example for split in splits for example in split][: given.most]
    with tempfile.TemporaryDirectory() as scratch:
        ctranslate2.convert(source.student, Path(scratch), precision)
        about = of_student(source.student, source.card)
        bundle = about.model_copy(update={"format": "ctranslate2", "precision": precision})
        settings = Settings(readout=given.readout)
        trained = Runtime(Model(source.student, source.card, threads=1), settings)
        export = Runtime(Model(Path(scratch), source.card, bundle, threads=1), settings)
        ours, theirs = (runtime.predict(examples) for runtime in (export, trained))
        written = export.model.write("label", [example.text for example in examples])
    valid: Callable[[Example, str | None], bool] = lambda one, label: label in export.candidates(one)  # noqa: E731
    alike = [a.label == b.label for a, b in zip(ours, theirs, strict=True)]
    sure = [one for one, answer in zip(alike, theirs, strict=True) if (answer.confidence or 0) >= SURE]
    return {
        "run": run.name,
        "student": source.card["name"],
        "same": sum(alike),
        "n": len(examples),
        "interval": wilson(sum(alike), len(examples)),
        "sure": len(sure),
        "sure_same": sum(sure),
        "scored_valid": sum(valid(one, a.label) for one, a in zip(examples, ours, strict=True)),
        "written_valid": sum(valid(one, text) for one, text in zip(examples, written, strict=True)),
    }


def machine() -> str:
    """What was measured on."""
    info = Path("/proc/cpuinfo")
    text = info.read_text() if info.exists() else ""
    name = next((x.split(":")[1].strip() for x in text.splitlines() if "model name" in x), platform.machine())
    kind = "AVX-512" if " avx512f" in text else "AVX2" if " avx2" in text else "no AVX2"
    parts = ("torch", "transformers", "ctranslate2")
    versions = ", ".join(f"{part} {importlib.metadata.version(part)}" for part in parts)
    return f"Machine: {name} ({kind}), one core, one thread, Python {platform.python_version()}, {versions}."


if __name__ == "__main__":
    main()

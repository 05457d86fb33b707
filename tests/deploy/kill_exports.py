"""Kill an export again and again at a random moment, and see whether what is there is whole.

    python tests/deploy/kill_exports.py FOLDER [KILLS] [SEED]

After each SIGKILL the export's folder is absent, or one that can be loaded and has its proof. The last
start is not killed: it must leave the export alone behind. Prints a JSON line. Not a test by itself:
test_export.py kills one while it is proven; docs/reliability.md has the figures.
"""

from __future__ import annotations

import collections
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from exports import trained

from stepdistill.deploy.bundle import CARD, read_bundle
from stepdistill.deploy.export.work import PROOF
from stepdistill.files import read_object


def start(run: Path, out: Path) -> subprocess.Popen[bytes]:
    """A real command, in a process of its own."""
    given = ["export", str(run), "--format", "ctranslate2", "--precision", "float32", "--quiet"]
    return subprocess.Popen(
        [sys.executable, "-m", "stepdistill", *given, "--out", str(out)],
        stdout=subprocess.DEVNULL,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def state(out: Path) -> str:
    """`absent` or `whole`; raises where it is neither."""
    if not out.exists():
        draft = out.with_name(f".{out.name}.export") / "draft"
        return f"absent, {'with' if draft.exists() else 'without'} a draft"
    read_bundle(out)
    read_object(out / PROOF)
    assert (out / CARD).stat().st_size > 0
    return "whole"


def main(home: Path, kills: int, seed: int) -> None:
    """Time one export, then kill others within that time and a little beyond."""
    run, out, draw = trained(home, validation=20), home / "it", random.Random(seed)
    begun = time.monotonic()
    assert start(run, out).wait() == 0
    seconds = time.monotonic() - begun
    found = collections.Counter[str]()
    for _ in range(kills):
        if out.exists():
            shutil.rmtree(out)
        process = start(run, out)
        # The second half is where files are written: the first passes with loading libraries.
        time.sleep(seconds * draw.uniform(0.2, 1.05))
        process.kill()
        process.wait()
        found[state(out)] += 1
    assert start(run, out).wait() == 0
    assert state(out) == "whole"
    left = sorted(path.name for path in home.iterdir() if path.name.startswith((".it", "it")))
    assert left == ["it"], left
    print(json.dumps({"kills": kills, "signal": signal.SIGKILL.name, "states": found, "seconds": seconds}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int((sys.argv[2:3] or ["50"])[0]), int((sys.argv[3:4] or ["0"])[0]))

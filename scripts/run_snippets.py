"""Run the shell and Python snippets of Markdown pages, from the project's folder.

Fenced blocks that open with ```bash or ```python are run in order; a block below the line
`<!-- not run: REASON -->` is shown only, and the reason is printed. A failing block fails the page.
"""

from __future__ import annotations

import re
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BLOCK = re.compile(
    r"^(?:<!-- not run: (?P<reason>[^\n]+?) -->\n+)?```(?P<kind>bash|python)\n(?P<code>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)


def run_page(page: Path) -> int:
    """Run the blocks of a page; the number of blocks that were run.

    Raises:
        SystemExit: a block fails.
    """
    done = 0
    for number, block in enumerate(BLOCK.finditer(page.read_text(encoding="utf-8")), start=1):
        if block["reason"]:
            print(f"{page.name} block {number}: not run: {block['reason']}")
            continue
        program = ["bash", "-euo", "pipefail", "-c"] if block["kind"] == "bash" else [sys.executable, "-c"]
        print(f"{page.name} block {number}:\n{block['code'].rstrip()}", flush=True)
        begun = time.monotonic()
        if subprocess.run([*program, block["code"]], cwd=ROOT, check=False).returncode:  # noqa: S603
            raise SystemExit(f"{page}: block {number} failed")
        print(f"{page.name} block {number}: {time.monotonic() - begun:.0f} s", flush=True)
        done += 1
    return done


def main() -> None:
    """Run the pages given, or all."""
    pages = [Path(name) for name in sys.argv[1:]]
    for page in pages or [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        print(f"{page.name}: {run_page(page)} blocks passed", flush=True)


if __name__ == "__main__":
    main()

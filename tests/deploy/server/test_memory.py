"""What a batch has freed is there for the next one."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

FAULTS = """
import resource
from stepdistill.deploy.server.memory import keep_memory

def batch():
    return [bytearray(12 << 20) for _ in range(3)]

if KEEP:
    keep_memory()
for _ in range(3):
    batch()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    batch()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(keep: bool) -> int:
    """Pages that the kernel had to give and clear for ten batches, in a process of its own."""
    script = FAULTS.replace("KEEP", str(keep))
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries have other habits")
def test_a_servers_batches_are_given_no_new_pages() -> None:
    assert faults(keep=False) > 1000
    assert faults(keep=True) < 100

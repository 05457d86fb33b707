"""Whether SQLite will read all of a write-ahead log that a killed process has left.

SQLite ends its reading at the first damaged frame and says nothing of those behind it, since a power
failure leaves such an end, too (https://www.sqlite.org/fileformat2.html#walformat).
"""

from __future__ import annotations

import struct
from pathlib import Path

HEADER = 32
FRAME = 24
"""Bytes before each page."""


def is_whole(log: Path, page: int) -> bool:
    """Whether no stored answer lies behind a damaged frame; `page` is the bytes of a page.

    Behind it a commit of the same transaction may have been on its way to the disk when the power
    failed; a second one shows that the first had arrived.
    """
    with log.open("rb") as file:
        header = file.read(HEADER)
        if len(header) < HEADER:
            return True
        good = int.from_bytes(header[:4], "big") | 1 == 0x377F0683
        order = ">" if header[3] & 1 else "<"
        sums = _add((0, 0), header[:24], order)
        good = good and sums == struct.unpack(">II", header[24:])
        salt, commits = header[16:24] if good else b"", 0
        while len(frame := file.read(FRAME + page)) == FRAME + page:
            salt = salt or frame[8:16]
            if good:
                sums = _add(_add(sums, frame[:8], order), frame[FRAME:], order)
                good = frame[8:16] == salt and sums == struct.unpack(">II", frame[16:FRAME])
            if not good and frame[8:16] == salt and frame[4:8] != bytes(4):
                commits += 1
        file.seek(0)
        return commits < 2 or file.read(HEADER) != header  # else another process has begun it anew


def _add(sums: tuple[int, int], raw: bytes, order: str) -> tuple[int, int]:
    one, two = sums
    words = struct.unpack(f"{order}{len(raw) // 4}I", raw)
    for first, second in zip(words[::2], words[1::2], strict=True):
        one = (one + first + two) & 0xFFFFFFFF
        two = (two + second + one) & 0xFFFFFFFF
    return one, two

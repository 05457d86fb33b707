"""Which file system a path lies on, since SQLite's write-ahead log breaks on those of a network."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from stepdistill.errors import LedgerError

NETWORK = re.compile(
    r"nfs4?|cifs|smb\w*|9p|afs|ncpfs|ceph|glusterfs|lustre|gpfs|beegfs|pvfs2|orangefs|"
    r"fuse\.(sshfs|glusterfs|ceph|s3fs|gcsfuse|rclone|davfs2?|blobfuse2?|juicefs|curlftpfs)|davfs2?|webdav|afpfs"
)


def refuse_network(path: Path, mounts: str | None = None) -> None:
    """Refuse a ledger on a network file system.

    Args:
        path: where the ledger is to be.
        mounts: the mount table; None: this system's.

    Raises:
        LedgerError: with the way out.
    """
    kind = file_system(path, _mounts() if mounts is None else mounts)
    if kind and NETWORK.fullmatch(kind):
        raise LedgerError(
            f"{path}: lies on a network file system ({kind}), where SQLite can lose answers; set "
            "annotate.ledger to a file on a local disk and copy it afterwards"
        )


def file_system(path: Path, mounts: str) -> str | None:
    """Kind of the file system that holds a path, by the longest mount point above it.

    `mounts` is as in Linux's `/proc/self/mountinfo`, or as macOS's `mount` prints it.

    >>> file_system(Path("/mnt/team/a.sqlite"), "36 35 0:3 / /mnt/team rw - nfs4 host:/x rw")
    'nfs4'
    """
    here, best, kind = path.resolve(), Path(), None
    for line in mounts.splitlines():
        point, found = _parse(line)
        # Of equal ones the later mount hides the earlier.
        if point and (here == point or point in here.parents) and len(point.parts) >= len(best.parts):
            best, kind = point, found
    return kind


def _parse(line: str) -> tuple[Path | None, str]:
    before, dash, after = line.partition(" - ")
    fields = before.split()
    if dash and len(fields) > 4 and after.split():
        # Spaces and such stand there as octal escapes.
        name = re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), fields[4])
        return Path(name), after.split()[0]
    if match := re.fullmatch(r".+ on (/.*) \(([\w.]+)[,)].*", line):
        return Path(match[1]), match[2]
    return None, ""


def _mounts() -> str:
    table = Path("/proc/self/mountinfo")
    if table.exists():
        return table.read_text(encoding="utf-8", errors="replace")
    if sys.platform == "darwin":
        done = subprocess.run(["/sbin/mount"], capture_output=True, text=True, check=False)
        return done.stdout
    return ""

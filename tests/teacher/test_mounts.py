"""A ledger on a network file system is refused, by what the system's table of mounts says."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepdistill.errors import LedgerError
from stepdistill.teacher.mounts import file_system, refuse_network

LINUX = r"""
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
36 22 0:33 / /mnt/team rw,relatime shared:9 - nfs4 host:/export rw
37 36 8:9 / /mnt/team/local rw - xfs /dev/sdb1 rw
38 22 0:40 / /mnt/my\040share rw - cifs //host/x rw
39 22 0:41 / /home/me/far rw master:3 propagate_from:2 - fuse.sshfs me@host: rw
40 22 0:42 / /mnt/twice rw - nfs host:/y rw
41 22 0:43 / /mnt/twice rw - tmpfs tmpfs rw
42 22 0:44 / /mnt/mine rw - fuse.ext2 /dev/sdc rw
43 22 0:45 / /wsl rw - 9p C:\134 rw
"""
MAC = """
/dev/disk3s1s1 on / (apfs, sealed, local, read-only, journaled)
map auto_home on /System/Volumes/Data/home (autofs, automounted, nobrowse)
//me@host/team on /Volumes/team share (smbfs, nodev, nosuid, mounted by me)
host:/x on /Volumes/x (nfs)
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/srv/a.sqlite", "ext4"),
        ("/mnt/team/a.sqlite", "nfs4"),
        ("/mnt/team/deep/down/a.sqlite", "nfs4"),
        ("/mnt/teammate/a.sqlite", "ext4"),
        ("/mnt/team/local/a.sqlite", "xfs"),
        ("/mnt/my share/a.sqlite", "cifs"),
        ("/home/me/far/a.sqlite", "fuse.sshfs"),
        ("/mnt/twice/a.sqlite", "tmpfs"),
        ("/mnt/mine/a.sqlite", "fuse.ext2"),
        ("/mnt/team/local/../a.sqlite", "nfs4"),
    ],
)
def test_the_longest_and_latest_mount_point_above_counts(path: str, kind: str) -> None:
    assert file_system(Path(path), LINUX) == kind


@pytest.mark.parametrize(
    ("path", "kind"),
    [("/x/a", "apfs"), ("/Volumes/team share/a", "smbfs"), ("/Volumes/x/a", "nfs"), ("/Volumes/y/a", "apfs")],
)
def test_the_table_of_macos_is_read_too(path: str, kind: str) -> None:
    assert file_system(Path(path), MAC) == kind


@pytest.mark.parametrize(
    ("path", "mounts"),
    [
        ("/mnt/team/a", LINUX),
        ("/mnt/my share/a", LINUX),
        ("/home/me/far/a", LINUX),
        ("/wsl/a", LINUX),
        ("/Volumes/x/a", MAC),
        ("/Volumes/team share/a", MAC),
    ],
)
def test_network_file_systems_are_refused_with_the_way_out(path: str, mounts: str) -> None:
    with pytest.raises(LedgerError, match=r"network file system.*local disk") as caught:
        refuse_network(Path(path), mounts)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("path", ["/srv/a", "/mnt/team/local/a", "/mnt/twice/a", "/mnt/mine/a"])
def test_local_file_systems_are_not(path: str) -> None:
    refuse_network(Path(path), LINUX)


def test_a_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    (tmp_path / "near").symlink_to(tmp_path / "far")
    mounts = f"36 22 0:33 / {tmp_path / 'far'} rw - nfs4 host:/export rw"
    with pytest.raises(LedgerError, match="nfs4"):
        refuse_network(tmp_path / "near" / "a.sqlite", mounts)


def test_this_system_has_a_table_and_its_disk_serves(tmp_path: Path) -> None:
    refuse_network(tmp_path / "a.sqlite")


@given(
    st.text() | st.lists(st.sampled_from(["-", "/", " - ", "on", "(", ")", "nfs", "\\", "7"])).map(" ".join)
)
def test_any_table_is_read_without_a_fault(mounts: str) -> None:
    file_system(Path("/srv/a"), mounts)

"""Files for our eyes only: new ones, whatever lay in wait at their place."""

import os
import stat
from pathlib import Path

import pytest

from worker import coffer
from worker.outbox import Outbox


@pytest.mark.parametrize(
    "before", ["nothing", "a file that all may read", "a link to one", "a dangling link"]
)
def test_what_lay_in_wait_gets_nothing(tmp_path: Path, before: str) -> None:
    """Mode 0600 under any umask, and no byte goes to where somebody else's link leads."""
    path, theirs = tmp_path / "export.csv", tmp_path / "theirs"
    if "file" in before or before == "a link to one":
        target = path if "file" in before else theirs
        target.write_text("before", encoding="utf-8")
        target.chmod(0o666)
    if "link" in before:
        path.symlink_to(theirs)
    former = os.umask(0)
    try:
        with coffer.begun(path) as opened:
            opened.write(b"secret")
    finally:
        os.umask(former)
    assert (path.read_bytes(), stat.S_IMODE(path.lstat().st_mode)) == (b"secret", 0o600)
    assert not path.is_symlink()
    assert not theirs.exists() or theirs.read_text(encoding="utf-8") == "before"


def test_a_captured_mail_is_not_written_through_a_link(tmp_path: Path) -> None:
    """Though its draft's name can be foreseen by whoever else can write to the folder."""
    theirs = tmp_path / "theirs"
    folder = tmp_path / "outbox"
    folder.mkdir()
    for name in ("000001.eml", "000001.json"):
        (folder / f".{name}.new").symlink_to(theirs)
    assert Outbox(folder).keep("a@example.org", ["b@example.org"], b"secret") == "000001"
    assert not theirs.exists()
    assert {stat.S_IMODE(one.lstat().st_mode) for one in folder.iterdir()} == {0o600}

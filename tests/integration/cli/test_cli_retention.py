"""An operator sees what is kept of people and until when, wherever it was written, and can remove it now."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

#: Runs a command line; see conftest.
Tocsin = Callable[..., Any]


def test_exports_and_rejects_are_listed_until_they_go(people: Path, tocsin: Tocsin) -> None:
    """In our folders or elsewhere; looking removes nothing, `--apply` what is due, and that is audited."""
    Path("bad.csv").write_text("email,name\nnot an address,Bo\n", encoding="utf-8")
    assert tocsin("lists", "import", "bad.csv", "--list", "example").code == 1
    tocsin("suppress", "add", "someone@example.com")
    tocsin("suppress", "export", "no.csv", "--as", "plain")
    tocsin("people", "export", "anna.bell@example.org", "--to", "answers")
    (rejects,) = (people / "var" / "rejects").iterdir()
    os.utime(rejects, (1.0, 1.0))
    for _ in range(2):
        found = tocsin("retention", "--json").json
        shown = {Path(one["what"]).suffix: (one["kind"], one["due"]) for one in found["items"]}
        assert len(found["items"]) == 4
        assert shown[".html"] == shown[".json"] == ("exports", False)
    assert found["timers"]["rejects"] == 30
    assert "due" in tocsin("retention").out
    Path("no.csv").write_text("changed by somebody", encoding="utf-8")
    assert "Removed: 1 file;" in tocsin("retention", "--apply").out
    assert not rejects.exists()
    assert Path("no.csv").exists()
    assert "changed since" in tocsin("retention").out
    assert "retention" in tocsin("audit").out
    told = tocsin("people", "forget", "anna.bell@example.org", "--yes").err
    assert "Files that name them still, for you to remove: 2" in told
    assert "Other files here that may name them: 1" in told

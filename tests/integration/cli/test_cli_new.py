"""`appeals new` starts an appeal from a charity's own article, and never overwrites one."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

#: Runs a command line; see conftest.
Tocsin = Callable[..., Any]

ARTICLES = Path(__file__).parents[2] / "articles"


@pytest.mark.parametrize(
    ("name", "file"), [("report.md", "en.md"), ("clinic.txt", "en.md"), ("bericht.html", "de.md")]
)
def test_an_article_becomes_an_appeal(workspace: Path, tocsin: Tocsin, name: str, file: str) -> None:
    """What was written and what is still to be filled in are told; the check finds that and nothing else."""
    out = tocsin("appeals", "new", "clinic-closing", "--from", str(ARTICLES / name)).out
    written = workspace / "templates" / "appeals" / "clinic-closing" / file
    assert f"clinic-closing/{file}" in out
    assert "give its link" in out
    assert "tocsin appeals check clinic-closing" in out
    findings = tocsin("appeals", "check", "clinic-closing", "--json").json["findings"]
    assert ["TODO" in one["what"] for one in findings] == [True]
    text = written.read_text("utf-8").replace('link: "TODO"', "link: https://example.org/a")
    written.write_text(text, "utf-8")
    findings = tocsin("appeals", "check", "clinic-closing", "--json").json["findings"]
    left = {one["name"] for one in findings if one["severity"] == "error"}
    assert left == ({"words.placeholder"} if "braces:" in out else set())


def test_a_skeleton_needs_no_article(workspace: Path, tocsin: Tocsin) -> None:
    """Without --from there is a file with everything to be written, in the language asked for."""
    out = tocsin("appeals", "new", "clinic-closing", "--language", "pt-BR").out
    assert (workspace / "templates" / "appeals" / "clinic-closing" / "pt-BR.md").is_file()
    assert "preheader" in out


def test_nothing_is_overwritten(workspace: Path, tocsin: Tocsin) -> None:
    """A file that is there stays as it is; another language of the same appeal may join it."""
    file = workspace / "templates" / "appeals" / "chechnya-report" / "en.md"
    before = file.read_bytes()
    assert "is there already" in tocsin("appeals", "new", "chechnya-report").err
    assert file.read_bytes() == before
    tocsin("appeals", "new", "chechnya-report", "--language", "de")


@pytest.mark.usefixtures("workspace")
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("Clinic Closing",), "small letters, digits and hyphens"),
        (("../x",), "small letters, digits and hyphens"),
        (("x", "--language", "../../de"), "is no language"),
        (("x", "--from", "nothing.md"), "cannot read"),
        (("x", "--from", "picture.png"), "Save it as .md, .txt or .html"),
    ],
)
def test_a_wrong_name_is_told(tocsin: Tocsin, words: tuple[str, ...], said: str) -> None:
    """A name that is none, or an article that is none, is one line, and nothing is written."""
    result = tocsin("appeals", "new", *words)
    assert result.code == 2
    assert said in result.err
    assert not Path("templates/appeals/x").exists()

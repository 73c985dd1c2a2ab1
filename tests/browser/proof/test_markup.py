"""The Nu validator, which the web's standard points to, on everything that is made of HTML."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

#: What HTML calls obsolete and mail programs need: Outlook lays out by tables, and Gmail's apps read
#: the attributes where they drop the style. The validator warns of them; nothing else is let pass.
_FOR_MAIL = re.compile(
    r"The “(?:bgcolor|align|valign|width|height|cellpadding|cellspacing|border)” attribute "
    r"on the “(?:body|table|td|img)” element is obsolete\."
)


def _validated(files: Mapping[str, str], folder: Path, tools: Path) -> Iterator[tuple[str, str]]:
    """Ask about all files in one run; yield each message with the name of its file."""
    java = shutil.which("java")
    assert java, "the Nu validator needs Java: apt-get install default-jre-headless"
    jar = tools / "vnu-jar" / "build" / "dist" / "vnu.jar"
    paths = [folder / f"{name}.html" for name in files]
    for path, text in zip(paths, files.values(), strict=True):
        path.write_text(text, encoding="utf-8")
    # A compiler that does not dwell and one processor are enough, and leave the tests beside it the other.
    command = [java, "-Xss4m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-jar", jar]
    done = subprocess.run(
        [*command, "--format", "json", "--exit-zero-always", *paths], capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr.decode()[-1000:]
    messages: list[dict[str, Any]] = json.loads(done.stderr)["messages"]
    for one in messages:
        where = f"{one.get('lastLine')}: {one.get('extract', '').strip()}"
        yield Path(one["url"]).stem, f"{one['type']}: {one['message']} (line {where})"


def test_every_page_and_mail_is_valid_html(
    letters: Mapping[str, str],
    copies: Mapping[str, str],
    web_pages: Mapping[str, str],
    desk_pages: Mapping[str, str],
    tmp_path: Path,
    tools: Path,
) -> None:
    """The validator finds no error, and no fault at all but what mail programs need."""
    flawed = "<!doctype html><html lang=en><title>Flawed</title><img src=x><p></div>"
    letters = {**letters, **copies}
    everything = {"flawed": flawed, **letters, **web_pages, **desk_pages}
    found: dict[str, list[str]] = {}
    for name, message in _validated(everything, tmp_path, tools):
        if not (name in letters and _FOR_MAIL.search(message)):
            found.setdefault(name, []).append(message)
    assert len(found.pop("flawed")) == 2, "the validator sees nothing"
    assert found == {}

"""A full disk is one clear line, and nothing is half done."""

import resource
import subprocess
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.acceptance.conftest import Office


def test_an_import_on_a_full_disk_leaves_nobody_half_in(office: "Office") -> None:
    """The file limit stands in for the disk: the write fails as it would there."""
    file = office.home / "many.csv"
    rows = [f"p{number}@example.org,P" for number in range(30_000)]
    file.write_text("\n".join(["email,name", *rows, ""]), encoding="utf-8")
    limit = 3_000_000
    done = subprocess.run(
        office.argv("lists", "import", file, "--list", "many"),
        env=office.env,
        cwd=office.home,
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )
    assert done.returncode == 3, done.stderr
    assert "Traceback" not in done.stderr
    errors = [line for line in done.stderr.splitlines() if "error:" in line]
    assert len(errors) == 1
    assert "disk" in errors[0]
    assert office.run("lists", "--json").json == []
    office.import_people(["a@example.org,A"])
    assert office.run("lists", "--json").json[0]["members"] == 1

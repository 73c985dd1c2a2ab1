"""A relay that cannot be reached loses nobody; when it is back, the campaign goes on by itself."""

import sys
from typing import TYPE_CHECKING

from worker import processes

if TYPE_CHECKING:
    from tests.acceptance.conftest import Office


def test_a_relay_that_is_down_loses_nobody(office: "Office", free_port: int) -> None:
    """Everyone stays queued, `status` says why in one line, and the mail goes when the relay is back."""
    office.configure(relay_port=free_port)
    office.import_people([f"p{number}@example.org,P" for number in range(30)])
    with office.up():
        office.run("send", "chechnya-report", "--list", "people", "--yes")
        assert office.until(lambda: "relay" in _notice(office))
        found = office.run("status", "chechnya-report-1", "--json").json
        assert found["state"] == "running"
        assert office.counts("chechnya-report-1") == {"queued": 30}
        office.run("verify", "chechnya-report-1", code=1)
        argv = [sys.executable, "-m", "worker.capture", str(office.outbox / "late"), "--port", str(free_port)]
        relay = processes.spawn(argv)
        try:
            office.until_finished("chechnya-report-1")
        finally:
            processes.end(relay, patience=5)
    assert office.verify("chechnya-report-1") == {"sent": 30}
    assert len(list((office.outbox / "late").glob("*.eml"))) == 30
    assert _notice(office) == ""


def _notice(office: "Office") -> str:
    return str(office.run("status", "chechnya-report-1", "--json").json["notice"])

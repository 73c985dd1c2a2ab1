"""From the link in a mail, by a notice in the captured mailbox, to the deed: with separate processes."""

import email
import email.policy
import json
import re
import urllib.request
from collections.abc import Mapping
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from worker import processes

if TYPE_CHECKING:
    from tests.acceptance.conftest import Office

APPEAL = "chechnya-report"


def posted(link: str, form: Mapping[str, str]) -> str:
    """Press a button of a page, and return the next page."""
    asked = urllib.request.Request(link, urlencode(form).encode())
    with urllib.request.urlopen(asked, timeout=20) as answer:
        return str(answer.read().decode())


def test_data_are_shown_once_and_then_deleted_by_their_owner(office: "Office") -> None:
    """The page asks, a worker sends one notice, its link shows everything once; the second one deletes it."""
    with (office.home / "tocsin.toml").open("a") as settings:
        settings.write('\n[topics.petitions]\ntitle = "Petitions"\n')
    office.import_people(["vera@example.org,Vera Example"])
    with office.up():
        office.run("send", APPEAL, "--list", "people", "--yes", "--wait")
        header = email.message_from_bytes(office.mails()[0].data)["List-Unsubscribe"]
        link = re.findall(r"<(http[^>]*)>", str(header))[0]
        assert "Saved." in posted(link, {"choice": "save", "of": "topic:petitions"})
        for number, kind in enumerate(("export", "forget"), start=2):
            assert "Please look into your mailbox" in posted(link, {"choice": kind})
            assert processes.until(lambda at=number: len(office.mails()) == at, seconds=60)
            notice = email.message_from_bytes(office.mails()[-1].data, policy=email.policy.default)
            part = notice.get_body(("plain",))
            assert part is not None
            confirm = re.findall(r"http\S+/n/\S+", part.get_content())[0]
            page = posted(confirm, {"choice": "confirm"})
            assert ("vera@example.org" in page) == (kind == "export")
            assert ("topic:petitions" in page) == (kind == "export")
        assert "Deleted" in page
    assert office.recipients() == ["vera@example.org"] * 3
    shown = office.run("people", "show", "vera@example.org", "--json").json
    assert shown["person"] is None
    assert {one["scope"] for one in shown["suppressions"]} == {"all", "topic:petitions"}  # a no outlives all
    deeds = [json.loads(line)["action"] for line in office.run("audit", "--json").out.splitlines()]
    assert {"people export", "people forget"} <= set(deeds)
    for secret in ("vera@", "/n/", "/o/"):
        assert secret not in (office.home / "up.log").read_text()

"""From a file of addresses to a plan that counts who said yes: with separate processes and a real mailbox."""

import email
import email.policy
import re
import urllib.request
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from worker import processes

if TYPE_CHECKING:
    from tests.acceptance.conftest import Office


def opened(link: str, fields: dict[str, str] | None = None) -> str:
    """Look at a page, or press its button; return the page."""
    data = urlencode(fields).encode() if fields else None
    with urllib.request.urlopen(urllib.request.Request(link, data), timeout=20) as answer:
        return str(answer.read().decode())


def test_an_invitation_leads_to_a_consent_that_the_plan_counts(office: "Office") -> None:
    """Nobody without consent is planned for; the mail, a look and the button make one who is."""
    office.import_people(["vera@example.org,Vera Example"])
    (office.home / "stall.csv").write_text("email\nben@example.org\nvera@example.org\n", encoding="utf-8")
    with office.up():
        asked = office.run(
            "lists", "invite", "people", "--csv", office.home / "stall.csv", "--yes", "--json"
        ).json
        assert (asked["invited"], asked["left_out"]) == (1, {"consent is there": 1})
        assert processes.until(lambda: len(office.mails()) == 1, seconds=60)
        mail = email.message_from_bytes(office.mails()[0].data, policy=email.policy.default)
        part = mail.get_body(("plain",))
        assert part is not None
        link = re.findall(r"http\S+/n/\S+", part.get_content())[0]
        page = opened(link)
        assert office.run("lists", "policy", "people", "--json").json["enough"] == 1
        form = page.partition("<form")[2].partition("</form>")[0]
        opened(link, dict(re.findall(r'name="(\w+)" value="([^"]*)"', form)))
    assert office.run("lists", "policy", "people", "--json").json["enough"] == 2
    shown = office.run("people", "show", "ben@example.org", "--json").json["lists"][0]
    assert (shown["consent_basis"], shown["consent_source"]) == ("consent", "invitation by email")
    assert "I want to get emails from" in shown["consent_wording"]
    plan = office.run("send", "chechnya-report", "--list", "people", "--dry-run", "--json").json
    assert plan["recipients"] == 2
    assert office.recipients() == ["ben@example.org"]

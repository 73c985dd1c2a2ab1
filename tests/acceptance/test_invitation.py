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


def opened(url: str, form: dict[str, str] | None = None) -> str:
    """Look at a page, or press its button; return the page."""
    data = urlencode(form).encode() if form else None
    with urllib.request.urlopen(urllib.request.Request(url, data), timeout=20) as answer:
        return str(answer.read().decode())


def link(office: "Office", place: int) -> str:
    """Return the link in one of the mails that came."""
    mail = email.message_from_bytes(office.mails()[place].data, policy=email.policy.default)
    part = mail.get_body(("plain",))
    assert part is not None
    return str(re.findall(r"http\S+/n/\S+", part.get_content())[0])


def fields(page: str) -> dict[str, str]:
    """Return what a page's form posts as it stands."""
    form = page.partition("<form")[2].partition("</form>")[0]
    return dict(re.findall(r'name="(\w+)" value="([^"]*)"', form))


def test_an_invitation_leads_to_a_consent_that_the_plan_counts(office: "Office") -> None:
    """Nobody without consent is planned for; a mail and its button make one who is, and who signs up."""
    office.import_people(["vera@example.org,Vera Example"])
    (office.home / "stall.csv").write_text("email\nben@example.org\nvera@example.org\n", encoding="utf-8")
    with office.up():
        asked = office.run(
            "lists", "invite", "people", "--csv", office.home / "stall.csv", "--yes", "--json"
        ).json
        assert (asked["invited"], asked["left_out"]) == (1, {"consent is there": 1})
        assert processes.until(lambda: len(office.mails()) == 1, seconds=60)
        page = opened(link(office, 0))
        assert office.run("lists", "policy", "people", "--json").json["enough"] == 1
        opened(link(office, 0), fields(page))
        policy = office.run("lists", "policy", "people", "--sign-up", "yes", "--yes", "--json").json
        assert (policy["members"], policy["enough"]) == (2, 2)
        assert "look into your mailbox" in opened(policy["sign_up_url"], {"address": "eva@example.org"})
        assert processes.until(lambda: len(office.mails()) == 2, seconds=60)
        assert office.run("lists", "--json").json[0]["members"] == 2
        opened(link(office, 1), fields(opened(link(office, 1))))
    assert office.run("lists", "policy", "people", "--json").json["enough"] == 3
    shown = office.run("people", "show", "ben@example.org", "--json").json["lists"][0]
    assert (shown["consent_basis"], shown["consent_source"]) == ("consent", "invitation by email")
    assert "I want to get emails from" in shown["consent_wording"]
    plan = office.run("send", "chechnya-report", "--list", "people", "--dry-run", "--json").json
    assert plan["recipients"] == 3
    assert office.recipients() == ["ben@example.org", "eva@example.org"]

"""A thousand hostile names through a real SMTP server: each mail goes to exactly its person, and says so."""

import csv
import email
import email.policy
import email.utils
import random
from typing import TYPE_CHECKING

import lxml.html

from worker.tables import lists, spreadsheets

if TYPE_CHECKING:
    from tests.acceptance.conftest import Office

_PIECES = [
    *(
        '"',
        "'",
        "\\",
        ",",
        ";",
        "<b@evil.example>",
        "<script>alert(1)</script>",
        "&amp;",
        "&",
        "(",
        ")",
        "@",
        ":",
    ),
    *(
        "{{7*7}}",
        "{% for x in y %}",
        "{#",
        "%s",
        "${x}",
        "=?utf-8?q?x?=",
        "\r\nBcc: evil@example.com",
        "\n",
        "\r",
    ),
    *(
        "\x00",
        "\u2028",
        "\u202eevil",
        "\u200b",
        "Анна",
        "محمد",
        "שרה",
        "李小龍",
        "Zoë",
        "👩🏽‍🚀",
        "ß",
        "İ",
        "  ",
    ),
    *(
        "Royal National Institute of Very Long Names, Fundraising and Communications Department",
        "O'Neill",
        "-",
        ".",
    ),
]


def names() -> list[str]:
    """A thousand names, the same ones each time."""
    dice = random.Random(20261122)  # noqa: S311 - a test's own
    return ["".join(dice.choices([*_PIECES, "Anna", " Bo "], k=dice.randint(1, 6))) for _ in range(1000)]


def test_each_of_a_thousand_hostile_names_gets_one_mail_of_their_own(office: "Office") -> None:
    """One envelope recipient each, `To` parses to exactly that person, nothing is injected or run."""
    file = office.home / "hostile.csv"
    with file.open("w", encoding="utf-8", newline="") as opened:
        writer = csv.writer(opened, quoting=csv.QUOTE_ALL)
        writer.writerow(["email", "name", "first_name"])
        writer.writerows([f"p{number}@example.org", name, name] for number, name in enumerate(names()))
    consent = ("--basis", "consent", "--source", "a form", "--when", "2025-01-01")
    done = office.run("lists", "import", file, "--list", "hostile", "--accept-valid", "--json", *consent).json
    assert done["accepted"] == 1000, done
    with office.up():
        office.run("send", "chechnya-report", "--list", "hostile", "--yes", "--wait")
    office.verify("chechnya-report-1")
    mails = office.mails()
    assert sorted(mail.recipients[0] for mail in mails) == sorted(
        f"p{number}@example.org" for number in range(1000)
    )
    for captured in mails:
        (recipient,) = captured.recipients
        _check(recipient, names()[int(recipient[1:].split("@")[0])], captured.data)


def _check(recipient: str, name: str, raw: bytes) -> None:
    old = email.message_from_bytes(raw, policy=email.policy.compat32)
    assert [address for _, address in email.utils.getaddresses([str(old["To"])])] == [recipient]
    mail = email.message_from_bytes(raw, policy=email.policy.default)
    assert [each.addr_spec for each in mail["To"].addresses] == [recipient]
    assert mail.get_all("Bcc") is None
    assert len(mail.get_all("To", [])) == 1
    text, html = (part.get_content() for part in mail.iter_parts())
    page = lxml.html.fromstring(html)
    assert page.xpath("//script") == []
    # The name stands in the greeting as the file gave it (less the quote that disarms a formula), neither
    # run nor escaped twice, in both parts.
    greeting = _words(f"Dear {lists.tidy(spreadsheets.uncell(name)) or 'friend'},")
    assert greeting in _words(page.text_content())
    assert greeting in _words(text)


def _words(text: str) -> str:
    return " ".join(text.split())

"""The copy of a mail on the web: the campaign's words, and nothing of any reader."""

import asyncio
import email
import email.policy
import re
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.types import ASGIApp

from worker import shelf
from worker.addresses import parse
from worker.content.editions import Copy, Edition, Form, Printer
from worker.content.messages import Identity
from worker.content.rendering import Organisation
from worker.copies import Copies
from worker.errors import Refused
from worker.sealing import Person
from worker.tokens import Marks, Purpose
from worker.web import Staff, create_app

TEMPLATES = Path(__file__).parents[2] / "templates"
FILES = {
    name: {path.name: path.read_text("utf-8") for path in (TEMPLATES / name).iterdir()}
    for name in ("look", "locale", "web")
}
MARKS = Marks(b"k" * 32)
CAMPAIGN = 7
APPEAL = """\
---
subject: A letter{% if town is defined %} to {{ town }}{% endif %}
preheader: Two minutes, {{ first_name | default("friend") }}
view_in_browser: true
actions:
  - kind: sign
    text: Sign, {{ first_name | default("friend") }}
    link: https://example.org/sign
    main: true
---
Dear {{ first_name | default("friend") }}{% if town is defined %} of {{ town }}{% endif %},
{% if name is defined %}and {{ name }},{% endif %}
[sign](https://example.org/all?t={{ town | default("all") }}). [Leave]({{ opt_out_url }}).
"""


def form(domain: str) -> Form:
    """Return the names of one form."""
    names = dict.fromkeys(("domain", "bounce_domain", "opt_out_domain"), domain)
    identity = Identity(
        f"a@{domain}", f"a@{domain}", **names, list_id=f"mail.{domain}", feedback_id="example"
    )
    return Form(identity, f"https://pages.{domain}")


EDITION = Edition(
    slug="rain",
    appeal={"en.md": APPEAL, "ru.md": APPEAL, "de.md": APPEAL.replace("view_in_browser: true\n", "")},
    look={**FILES["look"], **FILES["locale"]},
    organisation=Organisation("Example Equality", "1 Example Street", "", "", "https://example.org/privacy"),
    open=form("example.org"),
    discreet=form("letters.example.net"),
)


def frozen(edition: Edition, campaign: int) -> str:
    """Return the one campaign's edition, as the store does."""
    if campaign != CAMPAIGN:
        raise Refused("there is no such campaign")
    return edition.to_json()


def site(edition: Edition = EDITION) -> ASGIApp:
    """The pages, with nobody behind those of the opt-out."""
    nobody = cast("Any", None)
    copies = Copies(MARKS, lambda campaign: frozen(edition, campaign))
    files = {**FILES["web"], **FILES["locale"]}
    return create_app(Staff(nobody, nobody, nobody, nobody), files, further=[shelf.route(copies)], https=True)


SITE = site()


def get(path: str, app: ASGIApp = SITE, method: str = "GET") -> httpx.Response:
    """Ask for a page."""

    async def answer() -> httpx.Response:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="https://pages.example.org") as client:
            return await client.request(method, path)

    return asyncio.run(answer())


PRINTER = Printer(EDITION, MARKS, CAMPAIGN)


def links(person: Person, delivery: int = 1, printer: Printer = PRINTER) -> set[str]:
    """Return the links to a copy in one person's mail, of both parts; "" where a part has none."""
    parcel = printer.parcel(delivery, person, 0.0)
    assert parcel is not None
    mail = email.message_from_bytes(bytes(parcel.data), policy=email.policy.default)
    parts = [str(part.get_content()) for part in mail.iter_parts()]
    assert len(parts) == 2
    return {(re.findall(r"https://[^\s\"<>]+/c/[^\s\"<>]+", part) or [""])[0] for part in parts}


def anybody(language: str = "en", *, discreet: bool = False) -> Person:
    """Return somebody of whom nothing is known."""
    return Person(parse("sam@example.org"), {}, language, discreet)


values = st.text(st.characters(exclude_categories=["C", "Z"]), min_size=8, max_size=30)


@settings(deadline=None)  # the first mail and page are made, the others woven and remembered
@given(values, values, values, st.integers(1, 2**40))
def test_a_copy_holds_nothing_of_any_reader(first: str, town: str, name: str, delivery: int) -> None:
    """Neither a field, nor their address, nor a mark that leads to them; and all get the same link."""
    person = Person(
        parse("very-own@example.net"), {"first_name": f"Q{first}", "town": f"Q{town}", "name": f"Q{name}"}
    )
    (link,) = links(person, delivery)
    assert {link} == links(anybody(), 1)
    page = get(link).text
    for datum in (f"Q{first}", f"Q{town}", f"Q{name}", "very-own"):
        assert datum not in page
    assert "Dear friend" in page
    for mark in re.findall(r"[A-Za-z2-7]{32}", page):
        assert all(MARKS.read(purpose, mark) is None for purpose in Purpose)


@pytest.mark.parametrize(
    ("language", "lang", "said"),
    [("en", "en", "The link to unsubscribe is in the message itself"), ("ru", "ru", "веб-копия письма")],
)
def test_a_copy_says_what_it_is_in_the_language_of_the_mail(language: str, lang: str, said: str) -> None:
    """With the mail's own words, whoever asks for it; and no opt-out that could be nobody's or somebody's."""
    (link,) = links(anybody(language))
    page = get(link)
    assert page.status_code == 200
    assert f'<html lang="{lang}"' in page.text
    assert said in page.text
    assert "https://example.org/sign" in page.text
    assert "/o/" not in page.text
    assert "/c/" not in page.text
    assert '<meta name="robots" content="noindex, nofollow"' in page.text


def test_a_copy_runs_nothing_and_is_not_found_by_searching() -> None:
    """Under headers of its own where a mail needs them, and those of every page for the rest."""
    hostile = replace(EDITION, look={**EDITION.look, "layout.html": "<script>alert(1)</script>{{ body }}"})
    (link,) = links(anybody())
    headers = get(link, site(hostile)).headers
    policies = headers.get_list("content-security-policy")
    assert len(policies) == 1
    assert {"default-src 'none'", "style-src 'unsafe-inline'", "img-src data:"} <= set(
        policies[0].split("; ")
    )
    assert "allow-scripts" not in policies[0]
    assert "; sandbox " in policies[0]
    assert headers["x-robots-tag"] == "noindex, nofollow"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cache-control"] == "no-store"
    assert headers["x-frame-options"] == "DENY"
    assert "set-cookie" not in headers


def test_there_is_a_copy_only_where_one_was_asked_for() -> None:
    """Not of the discreet form, nor in a language whose author wants none, nor of a mail to look at."""
    assert links(anybody(discreet=True)) == {""}
    assert links(anybody("de")) == {""}
    for campaign, language in ((CAMPAIGN, 0), (CAMPAIGN, 3), (CAMPAIGN, 127), (0, 1), (8, 1)):
        mark = MARKS.mark(Purpose.COPY, Copy(campaign, language).packed())
        assert get(f"/c/{mark}").status_code == 404
    assert get(f"/c/{MARKS.mark(Purpose.COPY, Copy(CAMPAIGN, 1).packed())}").status_code == 200
    for wrong in (MARKS.mark(Purpose.OPT_OUT, CAMPAIGN), "a" * 32, "7", "%2e%2e"):
        assert get(f"/c/{wrong}").status_code == 404


def test_a_copy_can_only_be_read() -> None:
    """POST is refused, HEAD tells as much as GET."""
    (link,) = links(anybody())
    assert get(link, method="POST").status_code == 405
    assert get(link, method="HEAD").status_code == 200


def test_a_field_without_a_fallback_has_no_copy() -> None:
    """The page says that the link leads nowhere; `check` has said so before (fields.copy)."""
    asking = replace(EDITION, appeal={"en.md": APPEAL + "\n{{ shoe }}\n"})
    mark = MARKS.mark(Purpose.COPY, Copy(CAMPAIGN, 0).packed())
    assert get(f"/c/{mark}", site(asking)).status_code == 404

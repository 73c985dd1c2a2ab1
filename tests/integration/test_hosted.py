"""Pictures and files of a mail: in it or on our pages, the same for every reader, frozen with the content."""

import asyncio
import email
import email.policy
import io
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image
from starlette.applications import Starlette

from worker import onward
from worker.addresses import parse
from worker.content.editions import Copy, Edition, Form, Printer
from worker.content.enclosures import Enclosed
from worker.content.messages import Identity
from worker.content.rendering import Organisation
from worker.copies import Copies
from worker.hosted import Hosted
from worker.sealing import Person
from worker.store.audience import Rule
from worker.store.database import Database
from worker.store.plans import Draft, Plans
from worker.tokens import Marks, Purpose

TEMPLATES = Path(__file__).parents[2] / "templates"
LOOK = {
    path.name: path.read_text("utf-8") for name in ("look", "locale") for path in (TEMPLATES / name).iterdir()
}
MARKS = Marks(b"k" * 32)
APPEAL = """\
---
subject: Subject
preheader: Preheader
images: HOW
attachments: ["attachments/für alle.pdf", attachments/plan.ics]
headers: {Organization: Example Trüst}
actions:
  - {kind: sign, text: Sign, link: "https://example.org/sign", main: true}
---
Dear {{ name | default("friend") }},

![A crowd of 200 & more](images/crowd.png)
Leeds, in *May* & June
"""


def noise(width: int, height: int) -> bytes:
    """Return a picture that compresses badly."""
    made = io.BytesIO()
    Image.effect_noise((width, height), 90).convert("RGB").save(made, "PNG")
    return made.getvalue()


CROWD = noise(400, 200)
FILES = {"images/crowd.png": CROWD, "attachments/für alle.pdf": b"%PDF-1", "attachments/plan.ics": b"BEGIN"}


def form(domain: str) -> Form:
    """Return the names of one form."""
    names = dict.fromkeys(("domain", "bounce_domain", "opt_out_domain"), domain)
    identity = Identity(
        f"a@{domain}", f"a@{domain}", **names, list_id=f"mail.{domain}", feedback_id="example"
    )
    return Form(identity, f"https://pages.{domain}")


def edition(how: str) -> Edition:
    """Return the appeal with its pictures in the mail or on our pages."""
    return Edition(
        slug="rain",
        appeal={"en.md": APPEAL.replace("HOW", how)},
        look=LOOK,
        organisation=Organisation(
            "Example Equality", "1 Example Street", "", "", "https://example.org/privacy"
        ),
        open=form("example.org"),
        discreet=form("letters.example.net"),
        enclosed=Enclosed.read(FILES),
    )


def mail(made: Edition, campaign: int, name: str = "Ann", *, discreet: bool = False) -> Any:
    """Return one person's mail as a mail program reads it."""
    person = Person(parse(f"{name.lower()}@example.org"), {"name": name}, "en", discreet)
    parcel = Printer(made, MARKS, campaign).parcel(7, person, 0.0)
    assert parcel is not None
    return email.message_from_bytes(bytes(parcel.data), policy=email.policy.default)


def shape(message: Any) -> Any:
    """Return the tree of types."""
    if message.is_multipart():
        return (message.get_content_subtype(), *map(shape, message.iter_parts()))
    return message.get_content_type()


def html(message: Any) -> str:
    """Return the HTML part."""
    return str(message.get_body(("html",)).get_content())


@pytest.mark.parametrize("discreet", [False, True])
def test_an_embedded_picture_is_in_the_mail(*, discreet: bool) -> None:
    """Beside the HTML that shows it, under an id that names nobody; the files around both."""
    found = mail(edition("embedded"), 3, discreet=discreet)
    kinds = ("alternative", "text/plain", ("related", "text/html", "image/png"))
    files = () if discreet else ("application/pdf", "text/calendar")
    assert shape(found) == (kinds if discreet else ("mixed", kinds, *files))
    domain = "letters.example.net" if discreet else "example.org"
    picture = next(part for part in found.walk() if part.get_content_type() == "image/png")
    assert picture["content-id"] == f"<image1@{domain}>"
    assert picture.get_filename() == "image1.png"
    assert f'src="cid:image1@{domain}"' in html(found)
    assert Image.open(io.BytesIO(picture.get_content())).size == (400, 200)
    attached = [part for part in found.walk() if part.get_content_disposition() == "attachment"]
    assert [part.get_filename() for part in attached] == ([] if discreet else ["für alle.pdf", "plan.ics"])
    assert found["organization"] == (None if discreet else "Example Trüst")


def test_a_discreet_campaign_is_so_for_everybody() -> None:
    """Whoever is not marked gets the neutral form too, whole: names, links, files."""
    made = replace(edition("embedded"), all_discreet=True)
    assert Edition.from_json(made.to_json()) == made
    open_one = mail(edition("embedded"), 3)
    found = mail(made, 3)
    assert found["from"].addresses[0].addr_spec == "a@letters.example.net"
    assert found["subject"] != open_one["subject"]
    assert "example.org" not in str(found["list-unsubscribe"])
    assert "attachment" not in {part.get_content_disposition() for part in found.walk()}


def test_a_figure_says_the_same_in_both_parts() -> None:
    """Alternative text, caption and size."""
    found = mail(edition("embedded"), 3)
    assert re.search(r'<img [^>]*alt="A crowd of 200 &amp; more"[^>]*>', html(found))
    assert re.search(r'<img [^>]*width="400"[^>]*height="200"', html(found))
    assert "Leeds, in <em>May</em> &amp; June</td>" in html(found)
    text = found.get_body(("plain",)).get_content().replace("\r\n", "\n")
    assert "[A crowd of 200 & more]\nLeeds, in May & June\n" in text


def test_a_linked_picture_is_the_approved_one_and_asks_nobodys_name(database: Database) -> None:
    """On the form's own host, the same for every reader, kept by caches; forged marks find nothing."""
    plans = Plans(database, 100)
    made = edition("linked")
    draft = Draft("rain", made.to_json(), Rule((1,)), "d" * 64, "running", "op", "op", 0.0, "UTC", None)
    number = plans.record(draft, 1.0).id
    sources = {
        re.findall(r'<img [^>]*src="([^"]*)"', html(mail(made, number, name, discreet=discreet)))[0]
        for name in ("Ann", "Ben")
        for discreet in (False, True)
    }
    hosts = sorted(source.partition("/i/")[0] for source in sources)
    assert hosts == ["https://pages.example.org", "https://pages.letters.example.net"]
    assert shape(mail(made, number))[1] == ("alternative", "text/plain", "text/html")
    app = Starlette(routes=[onward.pictures_route(Hosted(MARKS, plans.frozen))])

    async def asked(token: str) -> httpx.Response:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://x.example.org") as client:
            return await client.get(f"/i/{token}")

    (mark,) = {source.partition("/i/")[2] for source in sources}
    answer = asyncio.run(asked(mark))
    assert (answer.status_code, answer.headers["content-type"]) == (200, "image/png")
    assert answer.content == made.enclosed.pictures["images/crowd.png"].data
    assert "immutable" in answer.headers["cache-control"]
    assert "set-cookie" not in answer.headers
    assert asyncio.run(asked(mark[::-1])).status_code == 404


def test_a_copy_on_the_web_has_its_pictures_within() -> None:
    """It loads nothing, and shows what the mail shows."""
    made = edition("linked")
    appeal = {"en.md": made.appeal["en.md"].replace("images:", "view_in_browser: yes\nimages:", 1)}
    copies = Copies(MARKS, lambda _campaign: replace(made, appeal=appeal).to_json())
    page = copies.read(MARKS.mark(Purpose.COPY, Copy(3, 0).packed()))
    assert page is not None
    picture = made.enclosed.pictures["images/crowd.png"]
    assert f'src="data:image/png;base64,{picture.encoded}"' in page


def test_mails_to_look_at_have_their_pictures_with_them() -> None:
    """A test mail belongs to no campaign that could show them."""
    assert shape(mail(edition("linked"), 0))[1] == (
        "alternative",
        "text/plain",
        ("related", "text/html", "image/png"),
    )


def test_what_is_frozen_comes_back_and_every_octet_counts() -> None:
    """The stored form gives the same edition, and another picture under the same name is another content."""
    made = edition("embedded")
    assert Edition.from_json(made.to_json()) == made
    other = replace(made, enclosed=Enclosed.read({**FILES, "images/crowd.png": noise(400, 200)}))
    assert other.to_json() != made.to_json()

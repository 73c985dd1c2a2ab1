"""What the benchmark sends, and to whom: an appeal with ten merge fields, 12 KB as sent; invented people.

Everybody who is measured sends this: Tocsin from the appeal's files, the others from the template that
the look makes of it (`Source`), so that each has the same text, the same CSS and the same fields to fill in.
"""

import secrets
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from jinja2 import Environment

from worker.addresses import parse
from worker.content import inlining
from worker.content.appeals import parse as parse_appeal
from worker.content.editions import Edition, Printer
from worker.content.look import Look, Press
from worker.content.sheets import lay_out
from worker.content.ways import Ways
from worker.sealing import Keyring, Person
from worker.tables.lists import Consent, Row

SLUG = "hearing"
#: The ten fields that each mail is filled in with, beside its own opt-out link.
FIELDS = (
    *("first_name", "last_name", "city", "constituency", "mp"),
    *("signatures", "reference", "amount", "gift_date", "bought"),
)
_PARAGRAPH = """\
The hearing was moved twice, without a reason given. Nobody was told where the files are kept, and the
interpreter was sent home before noon. We were there, and we wrote down every word that was spoken.
"""
APPEAL = f"""\
---
subject: "{{{{ first_name }}}}, the court decides on Monday"
preheader: Your letter can be on the desk before it opens.
sender: Letters For All
headline: Nine hearings, and still no verdict
reason: You get this message because you asked Letters For All to tell you when you can help.
question: How can you help?
actions:
  - kind: sign
    text: Sign as {{{{ signatures }}}} people did
    link: https://example.org/sign?ref={{{{ reference }}}}
    main: true
    button: Sign the letter
---

Dear {{{{ first_name }}}} {{{{ last_name }}}},

last Thursday the court heard the case for the ninth time. Those who came to the square stood in silence;
those who could not come, in {{{{ city }}}} and elsewhere, sent letters.

{_PARAGRAPH}

## What you can do in {{{{ constituency }}}}

**{{{{ mp }}}}** speaks for you, and has not been asked yet. You can read
[what the lawyers say](https://example.org/news/hearing?ref={{{{ reference }}}}) first.

{_PARAGRAPH}

{_PARAGRAPH}

{_PARAGRAPH}

The lawyers ask for one thing: that the judge reads what people write. Each letter is put on the file, and
each is counted. It takes two minutes.

Your gift of {{{{ amount }}}} on {{{{ gift_date }}}} paid for {{{{ bought }}}}. Thank you.
"""
_NAMES = (
    *(("Anna", "Berg"), ("Zoë", "O'Neil"), ("Анна", "Каренина"), ("Jo", "Smith & Sons"), ("Kim", "Lee")),
    *(("Maria", "de la Cruz"), ("Łukasz", "Nowak"), ("Tom", "Brown"), ("Ines", "Ruiz"), ("Sam", "Hill")),
)
_CITIES = ("Leeds", "Cardiff", "Perth", "Derry", "Exeter", "York", "Bath")
_WHEN = datetime(2025, 1, 1, tzinfo=UTC)


def address(number: int) -> str:
    """Return the address of one person, by number."""
    return f"person{number}@example.com"


def fields(number: int) -> Mapping[str, str]:
    """Return what is known of one person: three in ten have a name that ASCII cannot hold."""
    first, last = _NAMES[number % len(_NAMES)]
    city = _CITIES[number % len(_CITIES)]
    return {
        "first_name": first,
        "last_name": last,
        "city": city,
        "constituency": f"{city} North",
        "mp": f"M. P. Example{number % 650}",
        "signatures": f"{number + 1000:,}",
        "reference": f"r{number}",
        "amount": f"£{5 + number % 95}.00",
        "gift_date": f"{1 + number % 28} May 2026",
        "bought": "a day in court",
    }


def rows(count: int) -> Iterator[Row]:
    """Yield people as an import reads them."""
    consent = Consent("consent", "a form", "Yes.", _WHEN)
    for number in range(1, count + 1):
        yield Row(number, parse(address(number)), fields(number), "", False, consent)  # noqa: FBT003 - its own order


def opt_out_url(number: int) -> str:
    """Return the link that each mail ends with, in the others' mails: as long as ours, and different each."""
    return f"https://act.example.org/o/{number:032d}"


@dataclass(frozen=True)
class Source:
    """The appeal as the look lays it out: what other programs fill in. All are Jinja."""

    subject: str
    html: str  #: with its CSS in <style>
    text: str
    sender: str  #: plain

    def inlined(self) -> str:
        """Return the HTML with its CSS moved into the elements, for those who do not do that per mail."""
        words = {name: f"F{name.replace('_', '')}F" for name in (*FIELDS, "opt_out_url")}
        html = inlining.inline(Environment(autoescape=True).from_string(self.html).render(words))
        for name, word in words.items():
            html = html.replace(word, f"{{{{ {name} }}}}")
        return html


def source(edition: Edition) -> Source:
    """Lay an edition out, as Tocsin does at its first mail."""
    version = parse_appeal(edition.slug, edition.appeal).languages["en"]
    ways = Ways({}, None, lambda place: (place, 0, 0))  # links as written
    sheet = lay_out(Press(Look(edition.look)), edition.organisation, "en", version, ways, discreet=False)
    return Source(sheet.subject, sheet.html, sheet.text, sheet.sender)


def size(edition: Edition) -> int:
    """Return the mean size of a mail as Tocsin sends it, in octets."""
    printer = Printer(edition, Keyring.generate(secrets.token_bytes).marks(), 1)
    made = []
    for number in range(1, 101):
        person = Person(parse(address(number)), fields(number), "", False)  # noqa: FBT003 - its own order
        parcel = printer.parcel(number, person, time.time())
        assert parcel is not None
        made.append(len(parcel.data))
    return round(sum(made) / len(made))

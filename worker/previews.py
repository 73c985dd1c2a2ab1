"""The preview: one page with every mail of an appeal, as readers would see it, and what was found in it.

Pure but for the mails' own dates. Everything in a mail is hostile here: its HTML stands in sandboxed
frames, the rest is escaped, and the page's own policy lets nothing be fetched. Refuses: to choose whom to
show it for.
"""

import base64
import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from worker import gallery
from worker.content.checks.findings import Finding, Severity
from worker.content.checks.wire import CLIPPED_KB, NEAR_KB
from worker.frames import Scheme, frame
from worker.readers import Form, Trial
from worker.sealing import Person

#: How wide a phone and a desktop are, in CSS pixels.
WIDTHS: Final[Mapping[str, int]] = {"phone": 390, "desktop": 840}
_KB: Final = 1024
#: What a served page runs: it asks whether a file has changed, and then loads itself anew.
_WATCH: Final = """
const seen = document.documentElement.dataset.stamp;
setInterval(async () => {
  let stamp = "";
  try {
    const told = await fetch("stamp", { cache: "no-store" });
    stamp = told.ok ? await told.text() : "";
  } catch { }
  document.documentElement.classList.toggle("away", stamp === "");
  if (stamp !== "" && stamp !== seen) location.reload();
}, 700);
"""
_HASH: Final = base64.b64encode(hashlib.sha256(_WATCH.encode()).digest()).decode()


@dataclass(frozen=True, slots=True)
class Size:
    """How large a part is."""

    name: str
    octets: int
    #: whether mail programs cut it
    limited: bool = False

    @property
    def told(self) -> str:
        """The size as people say it."""
        return gallery.told(self.octets)

    @property
    def share(self) -> int:
        """How much of what is shown it fills, in hundredths."""
        return min(100, round(100 * self.octets / (CLIPPED_KB * _KB)))

    @property
    def level(self) -> str:
        """What the check would say of it."""
        if not self.limited or self.octets <= NEAR_KB * _KB:
            return "well"
        return "warning" if self.octets <= CLIPPED_KB * _KB else "error"


@dataclass(frozen=True, slots=True)
class Mail:
    """One mail to show: whose, and what is in it."""

    #: which of the appeal's mails
    form: Form
    #: who reads it, for people: "an invented reader" or an address
    reader: str
    #: the envelope's sender
    sender: str
    #: the line that mailbox lists show after the subject
    preheader: str
    #: its headers and parts
    card: gallery.Card

    @property
    def number(self) -> int:
        """Its place on the page, from 1."""
        return self.card.number

    @property
    def sizes(self) -> Sequence[Size]:
        """How large its parts are, decoded, and the whole as it leaves."""
        return (
            Size("HTML", len(self.card.html.encode()), limited=True),
            Size("Text", len(self.card.text.encode())),
            Size("Whole mail", len(self.card.captured.data)),
        )

    def frame(self, scheme: str, *, pictures: bool = True) -> str:
        """Return the HTML part for a frame."""
        return frame(self.card.html, Scheme(scheme), self.card.embedded, pictures=pictures)


@dataclass(frozen=True, slots=True)
class Preview:
    """What a page tells besides the mails."""

    #: the appeal's name
    appeal: str
    #: when it was made, for people
    made_at: str
    #: whether real people's data is in it
    personal: bool
    #: what was found, the worst first
    findings: Sequence[Finding]
    #: every mail of the appeal: what is in all of them need not be told one by one
    forms: tuple[str, ...] = ()
    #: further lines to tell at the top
    notes: Sequence[str] = ()

    @property
    def groups(self) -> Sequence[tuple[str, Sequence[Finding]]]:
        """Return what must be looked at, and what is only worth knowing, each under its heading."""
        notes = [one for one in self.findings if one.severity is Severity.NOTE]
        others = [one for one in self.findings if one.severity is not Severity.NOTE]
        return [("", others), (f"{len(notes)} note{'' if len(notes) == 1 else 's'}", notes)]

    def where(self, finding: Finding) -> str:
        """Return where something was found, for people."""
        return finding.part if finding.forms == self.forms else finding.where

    @property
    def verdict(self) -> str:
        """Return what the findings come to, in a few words."""
        counts = {each: sum(one.severity is each for one in self.findings) for each in Severity}
        told = [f"{count} {each}{'' if count == 1 else 's'}" for each, count in counts.items() if count]
        return ", ".join(told) or "nothing found"

    @property
    def level(self) -> str:
        """Return the worst severity found, or "well"."""
        return str(self.findings[0].severity) if self.findings else "well"


def mails(trial: Trial, forms: Iterable[Form], people: Sequence[Person] = ()) -> Iterator[Mail]:
    """Make the mails of these forms for an invented reader, or those that these people would get.

    Raises:
        Refused: there is no form for one of them, or they lack a field.
    """
    readers = [(person, person.address.spec) for person in people]
    if not readers:
        readers = [(trial.reader(form), "an invented reader") for form in forms]
    for number, (person, name) in enumerate(readers, 1):
        parcel, face = trial.mail(person), trial.face(person)
        form = trial.form_for(person)
        captured = gallery.Captured(str(form), parcel.sender, (parcel.recipient,), parcel.data)
        yield Mail(form, name, parcel.sender, face.preheader, gallery.card(number, captured))


def page(preview: Preview, shown: Sequence[Mail], template: str, *, stamp: str = "") -> str:
    """Write the page.

    Args:
        preview: what it tells besides.
        shown: in the order to show them; none where no mail could be made.
        template: its Jinja source (`templates/preview/index.html`).
        stamp: of the files it was made from, for a page that is served and loads itself anew; "" for a file.
    """
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    policy = (
        "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"
    )
    if stamp:
        policy += f"; script-src 'sha256-{_HASH}'; connect-src 'self'"
    return environment.from_string(template).render(
        preview=preview,
        mails=shown,
        policy=policy,
        stamp=stamp,
        watch=Markup(_WATCH),  # noqa: S704 - a constant of ours
        widths=WIDTHS,
        most=CLIPPED_KB,
        near=NEAR_KB,
    )

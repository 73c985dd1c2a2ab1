"""What a campaign sends, frozen: appeal, look, who asks and under which names; and the mails made from it.

Owns the one JSON form that is stored and digested, so that an edit on disk after the launch changes nothing.
Refuses: reading files or settings (the edge hands them in), and sending the open form to somebody discreet.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from email.utils import formatdate

from worker.content import headers
from worker.content.appeals import Appeal, AppealErrors, Finding, parse
from worker.content.enclosures import Enclosed, Enclosures
from worker.content.messages import Composer, Envelope, Identity
from worker.content.rendering import Look, Organisation, PlainContent, Renderer
from worker.post.parcels import Parcel
from worker.sealing import Person
from worker.tokens import Marks, Purpose

#: Where opt-out links lead under a form's web host (web.PATH).
OPT_OUT_PATH = "/o/"
#: Where copies of a mail are under the open form's web host (shelf.PATH).
COPY_PATH = "/c/"
#: Where links lead that are counted.
VISIT_PATH = "/v/"
#: Where pictures lie that are not in the mail itself.
PICTURE_PATH = "/i/"


@dataclass(frozen=True, slots=True)
class Form:
    """One way to appear: the open one, or the neutral one for people who must not be seen to get it."""

    identity: Identity
    base_url: str  #: of the pages, without a slash at the end


@dataclass(frozen=True, slots=True)
class Special:
    """What tells of health, belief, politics or sexuality (GDPR Art. 9), and stays inside a mail."""

    fields: tuple[str, ...] = ()  #: names of fields
    names: tuple[str, ...] = ()  #: what the lists are called that it goes to, and that tell


@dataclass(frozen=True, slots=True)
class Edition:
    """Everything that decides what a mail of one campaign says."""

    slug: str
    appeal: Mapping[str, str]  #: the appeal's files by name
    look: Mapping[str, str]  #: the look's files by name
    organisation: Organisation
    open: Form
    discreet: Form | None  #: None: discreet people are not written to
    all_discreet: bool = False  #: whether the discreet form is everybody's, for this campaign
    special: Special = Special()
    enclosed: Enclosed = field(default_factory=Enclosed)  #: pictures and files that the appeal names
    waived: tuple[str, ...] = ()  #: names of the errors found in it that an operator sends it in spite of

    def to_json(self) -> str:
        """Return the stored form; the same edition gives the same text."""
        return json.dumps(asdict(self), sort_keys=True, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> "Edition":
        """Read what `to_json` wrote."""
        facts = json.loads(text)
        return cls(
            slug=facts["slug"],
            appeal=facts["appeal"],
            look=facts["look"],
            organisation=Organisation(**facts["organisation"]),
            open=_form(facts["open"]),
            discreet=_form(facts["discreet"]) if facts["discreet"] else None,
            all_discreet=facts.get("all_discreet", False),
            special=Special(**{name: tuple(each) for name, each in facts.get("special", {}).items()}),
            enclosed=Enclosed.from_facts(facts["enclosed"]),
            waived=tuple(facts.get("waived", ())),
        )

    def renderer(
        self,
        campaign_ref: str = "c0",
        counted: Callable[[str, bool, int], str] | None = None,
        copied: Callable[[str], str] | None = None,
        placed: Callable[[str, bool, str], tuple[str, int, int]] | None = None,
    ) -> Renderer:
        """Parse the appeal and put it into the look; AppealErrors lists what is wrong in it."""
        appeal = parse(self.slug, self.appeal, self.organisation.languages.split())
        if missing := list(self._missing(appeal)):
            raise AppealErrors(self.slug, missing)
        look = Look(self.look)
        return Renderer(appeal, look, self.organisation, campaign_ref, counted, copied, placed)

    def within(self, _language: str, _discreet: bool, path: str) -> tuple[str, int, int]:  # noqa: FBT001 - a fact about the form
        """Return a picture as a part of the page itself (RFC 2397), for a copy that loads nothing."""
        picture = self.enclosed.pictures[path]
        return f"data:{picture.kind};base64,{picture.encoded}", picture.width, picture.height

    def _missing(self, appeal: Appeal) -> Iterator[Finding]:
        """Find the files that a version names and that are not in the appeal's folder."""
        there = {*self.enclosed.pictures, *self.enclosed.attachments}
        for language, version in appeal.languages.items():
            name = f"{language}.md"
            lines = self.appeal[name].splitlines()
            for path in (*version.pictures, *version.attachments):
                if path not in there:
                    line = next((number for number, line in enumerate(lines, 1) if path in line), 1)
                    yield Finding(name, line, f"there is no {path} in the appeal's folder")


@dataclass(frozen=True, slots=True)
class Copy:
    """A copy of a campaign's mail on the web, as the mark in its link names it."""

    campaign: int  #: its id
    language: int  #: which of the appeal's languages, in alphabetical order, from 0

    def packed(self) -> int:
        """Return the number that stands for it."""
        return self.campaign << 7 | self.language

    @classmethod
    def unpacked(cls, number: int) -> "Copy":
        """Read what `packed` wrote."""
        return cls(number >> 7, number & 127)


@dataclass(frozen=True, slots=True)
class Visit:
    """A link of a campaign's mail, as the mark of a counted link names it."""

    campaign: int  #: its id
    language: int  #: which of the appeal's languages, in alphabetical order, from 0
    discreet: bool
    link: int  #: its number in the mail, from 1

    def packed(self) -> int:
        """Return the number that stands for it."""
        return self.campaign << 16 | self.language << 9 | self.discreet << 8 | self.link

    @classmethod
    def unpacked(cls, number: int) -> "Visit":
        """Read what `packed` wrote."""
        return cls(number >> 16, number >> 9 & 127, bool(number >> 8 & 1), number & 255)


class Printer:
    """Makes the mails of one campaign from its edition."""

    def __init__(self, edition: Edition, marks: Marks, campaign: int = 0) -> None:
        """Prepare what every mail shares.

        `campaign` is its id; 0 is for mails to look at, whose links lead straight to their targets.
        """
        self._reference = f"c{campaign}"  # in Feedback-ID and in source codes; it names nobody
        self._campaign, self._marks, self._enclosed = campaign, marks, edition.enclosed
        self._all_discreet = edition.all_discreet
        counted = self._counted if campaign else None
        self._renderer = edition.renderer(self._reference, counted, self._copied, self._placed)
        self._forms = {
            discreet: form
            for discreet, form in ((False, edition.open), (True, edition.discreet))
            if form is not None
        }
        self._composers: dict[tuple[str, bool], Composer] = {}
        self._dates = _Dates()

    def parcel(self, delivery_id: int, person: Person, now: float) -> Parcel | None:
        """Return one person's mail and envelope; None when only a form that there is not would do.

        The same delivery always has the same Message-ID, return path and links (RFC 5322 section 3.6.4).
        """
        discreet = self._is_discreet(person)
        form = self._forms.get(discreet)
        if form is None:
            return None
        opt_out = self._marks.mark(Purpose.OPT_OUT, delivery_id)
        envelope = Envelope(
            recipient=person.address,
            name=person.name,
            message_mark=self._marks.mark(Purpose.MESSAGE, delivery_id),
            bounce_mark=self._marks.mark(Purpose.BOUNCE, delivery_id),
            opt_out_mark=opt_out,
            opt_out_url=form.base_url + OPT_OUT_PATH + opt_out,
        )
        content = self._renderer.render(person.language, discreet, values(person, envelope.opt_out_url))
        composer = self._composer(content.language, discreet)
        return Parcel(
            id=delivery_id,
            sender=composer.return_path(envelope),
            recipient=person.address.spec,
            data=composer.compose(content, envelope, self._dates.at(now)),
            envid=envelope.bounce_mark,
            smtputf8=person.address.needs_smtputf8,
        )

    def _counted(self, language: str, discreet: bool, link: int) -> str:  # noqa: FBT001 - a fact about the form
        """Return the link of ours that counts a link; the same for every reader of this form."""
        visit = Visit(self._campaign, self._renderer.languages.index(language), discreet, link)
        return (
            f"{self._forms[discreet].base_url}{VISIT_PATH}{self._marks.mark(Purpose.VISIT, visit.packed())}"
        )

    def _placed(self, language: str, discreet: bool, path: str) -> tuple[str, int, int]:  # noqa: FBT001 - a fact about the form
        """Tell where a picture is: in the mail, or on our pages, the same for every reader."""
        picture, form = self._enclosed.pictures[path], self._forms[discreet]
        if self._linked(language):
            number = self._campaign << 16 | [*self._enclosed.pictures].index(path)
            source = f"{form.base_url}{PICTURE_PATH}{self._marks.mark(Purpose.PICTURE, number)}"
        else:
            source = f"cid:{self._content_id(path, form)}"
        return source, picture.width, picture.height

    def _linked(self, language: str) -> bool:
        """Tell whether pictures lie on our pages; those of a mail to look at have no campaign to lie in."""
        return bool(self._campaign) and self._renderer.version(language).linked_images

    def _content_id(self, path: str, form: Form) -> str:
        return f"image{[*self._enclosed.pictures].index(path) + 1}@{form.identity.domain}"

    def _composer(self, language: str, discreet: bool) -> Composer:  # noqa: FBT001 - a fact about the form
        """Return what makes the mails of one version in one form; made once."""
        if (language, discreet) not in self._composers:
            version, form = self._renderer.version(language), self._forms[discreet]
            inside = () if self._linked(language) else version.pictures
            enclosures = Enclosures(
                [(self._content_id(path, form), self._enclosed.pictures[path]) for path in inside],
                # A mailbox's list shows their names before a mail is opened.
                [] if discreet else [self._enclosed.attachments[path] for path in version.attachments],
            )
            own = {} if discreet else version.headers
            further = "".join(f"{headers.text(name, value)}\r\n" for name, value in own.items())
            self._composers[language, discreet] = Composer(
                form.identity, self._reference, enclosures, further
            )
        return self._composers[language, discreet]

    def _copied(self, language: str) -> str:
        """Return where the copy in a language is: the same for every reader, and not to be guessed."""
        copy = Copy(self._campaign, self._renderer.languages.index(language))
        return f"{self._forms[False].base_url}{COPY_PATH}{self._marks.mark(Purpose.COPY, copy.packed())}"

    @property
    def fields(self) -> frozenset[str]:
        """The fields of a person that the appeal asks for, in any language."""
        return self._renderer.fields

    def fits(self, person: Person) -> bool:
        """Tell whether there is a form that this person may be sent."""
        return self._is_discreet(person) in self._forms

    def shown(self, person: Person, opt_out_url: str) -> PlainContent:
        """Return what a person would read, for a preview or a check."""
        discreet = self._is_discreet(person)
        return self._renderer.render_plain(person.language, discreet, values(person, opt_out_url))

    def skeletons(self, person: Person) -> int:
        """Return how many skeletons the form of this person has taken so far."""
        return self._renderer.skeletons(person.language, self._is_discreet(person))

    def _is_discreet(self, person: Person) -> bool:
        """Tell which form a person gets: their own choice, or the campaign's for everybody."""
        return person.discreet or self._all_discreet


def values(person: Person, opt_out_url: str) -> Mapping[str, str]:
    """Return what an appeal's Jinja may ask for about a person."""
    return {"name": person.name, **person.fields, "opt_out_url": opt_out_url}


class _Dates:
    """The Date header, made once a second (RFC 5322 section 3.3); UTC tells nothing of where we are."""

    def __init__(self) -> None:
        self._second = -1
        self._text = ""

    def at(self, now: float) -> str:
        if int(now) != self._second:
            self._second = int(now)
            # "+0000": UTC; "-0000" would say that we do not know our zone (RFC 5322 section 3.3).
            self._text = formatdate(self._second).replace("-0000", "+0000")
        return self._text


def _form(facts: Mapping[str, object]) -> Form:
    return Form(Identity(**facts["identity"]), str(facts["base_url"]))  # type: ignore[arg-type]  # our own JSON

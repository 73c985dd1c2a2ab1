"""Rendering: an appeal and a look into what one person is sent.

Two stages. The look is rendered once per language and form, with the author's Jinja hidden in it; that gives
the sources which the weavers fill in for each person in microseconds. Refuses: to let a charity's name or an
action's words be read as Jinja, and to show the open form where the discreet one was asked for.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial

from jinja2 import TemplateError

from worker.content import expressions
from worker.content.appeals import Appeal
from worker.content.look import Look, Press
from worker.content.markdown import Placing
from worker.content.sandbox import LANGUAGE
from worker.content.sheets import Organisation, Sheet, lay_out
from worker.content.versions import Version
from worker.content.ways import targets, ways
from worker.content.weaving import HtmlWeaver, LineWeaver, TextWeaver
from worker.errors import Refused
from worker.post.parcels import Wire

__all__ = ["Content", "Look", "Organisation", "PlainContent", "Renderer", "UnfillableError"]


@dataclass(frozen=True, slots=True, repr=False)
class Content:
    """What one person is sent, ready for a message."""

    #: which of the appeal's languages it is in
    language: str
    #: one line
    subject: str
    #: the display name it comes from, one line
    sender_name: str
    #: the HTML part, quoted-printable, CRLF
    html: Wire
    #: the text part, likewise
    text: Wire


@dataclass(frozen=True, slots=True, repr=False)
class PlainContent:
    """The same before it is encoded, for a preview."""

    #: which of the appeal's languages it is in
    language: str
    #: one line
    subject: str
    #: the display name it comes from, one line
    sender_name: str
    #: the line that mailbox lists show after the subject
    preheader: str
    #: the HTML part
    html: str
    #: the text part
    text: str


class UnfillableError(Refused):
    """The appeal's own Jinja fails on one person's values, as in `{{ age + 1 }}` where an age is a text."""


#: What the author's Jinja can raise. Its own message may hold the person's value, and would reach the log.
_FAULTS = (TemplateError, ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)


def _unfillable(error: Exception) -> UnfillableError:
    """Translate what the author's Jinja raised; only its kind is told."""
    return UnfillableError(
        f"the appeal's text cannot be filled in for this person ({type(error).__name__})",
        remedy="try the expressions in its {{ }} and {% %} with a preview",
    )


class Renderer:
    """One appeal in one look, for any number of people. Forms are made when first asked for, then kept."""

    def __init__(
        self,
        appeal: Appeal,
        look: Look,
        organisation: Organisation,
        campaign: str = "c0",
        counted: Callable[[str, bool, int], str] | None = None,
        copied: Callable[[str], str] | None = None,
        placed: Callable[[str, bool, str], tuple[str, int, int]] | None = None,
    ) -> None:
        """Take the appeal, the look, who asks, and what the links and pictures of this campaign need.

        Args:
            appeal: what is said.
            look: how.
            organisation: who asks.
            campaign: its opaque name.
            counted: makes the link of ours that counts a link, from language, form (discreet or not) and
                number; None where none is to be counted.
            copied: returns where the copy in a language is on the web; None where there is none.
            placed: tells where a picture is, and its width and height, from language, form and path; None
                where nobody will look.

        Raises:
            LookError: the look is not whole.
            CatalogueError: the look has no words for one of the appeal's languages.
        """
        self._appeal = appeal
        self._press = Press(look)
        # All now: a language without words is to be told before anybody is written to.
        for language in appeal.languages:
            self._press.words(language)
        self._organisation, self._campaign = organisation, campaign
        self._counted, self._copied, self._placed = counted, copied, placed
        self._forms: dict[tuple[str, bool], _Form] = {}

    @cached_property
    def fields(self) -> frozenset[str]:
        """The fields of a person that the appeal uses, in any language."""
        texts = (text for version in self._appeal.languages.values() for text in version.texts())
        return frozenset().union(*map(expressions.fields, texts))

    def render(self, language: str, discreet: bool, values: Mapping[str, str]) -> Content:  # noqa: FBT001 - a fact about the person
        """Return what one person is sent.

        Args:
            language: the reader's; the appeal's nearest one is used.
            discreet: whether nothing may tell before it is opened.
            values: fields of the person, and `opt_out_url`.

        Raises:
            MissingField: the appeal uses a field that this person lacks, without a fallback.
            UnfillableError: the appeal does something with a field that this person's value does not allow.
        """
        form = self._form(language, discreet)
        present = _present(values, form.language)
        try:
            return Content(
                language=form.language,
                subject=form.subject.weave(present),
                sender_name=form.sender,
                html=form.html.weave(present),
                text=form.text.weave(present),
            )
        except _FAULTS as error:
            raise _unfillable(error) from None

    def render_plain(self, language: str, discreet: bool, values: Mapping[str, str]) -> PlainContent:  # noqa: FBT001 - a fact about the person
        """Return the same unencoded, and by the slow road: Jinja, then premailer."""
        form = self._form(language, discreet)
        present = _present(values, form.language)
        try:
            return PlainContent(
                language=form.language,
                subject=form.subject.weave(present),
                sender_name=form.sender,
                preheader=form.preheader.weave(present),
                html=form.html.plain(present),
                text=form.text.plain(present),
            )
        except _FAULTS as error:
            raise _unfillable(error) from None

    def skeletons(self, language: str, discreet: bool) -> int:  # noqa: FBT001 - a fact about the person
        """Return how many skeletons a form has taken so far; one for each reader means that it is slow."""
        form = self._form(language, discreet)
        return max(form.html.skeletons, form.text.skeletons)

    @property
    def languages(self) -> Sequence[str]:
        """The appeal's languages, in alphabetical order."""
        return sorted(self._appeal.languages)

    def version(self, language: str) -> Version:
        """Return what the appeal says in one of its languages."""
        return self._appeal.languages[language]

    def targets(self, language: str, *, discreet: bool) -> Sequence[str]:
        """Return where the links of one of the appeal's languages lead, in the order of their numbers."""
        return list(targets(self._appeal.languages[language], self._campaign, discreet=discreet).values())

    def copy(self, language: str) -> str:
        """Return the copy on the web of one of the appeal's languages: nobody's, with fallbacks for fields.

        Raises:
            LookupError: there is to be none in this language.
            MissingField: a field has no fallback.
            UnfillableError: as for `render`.
        """
        version = self._appeal.languages[language]
        if not version.view_in_browser:
            raise LookupError(language)
        there = ways(version, self._campaign, None, self._placing(language, discreet=False), discreet=False)
        there = replace(there, on_web=True)
        sheet = lay_out(self._press, self._organisation, language, version, there, discreet=False)
        try:
            # An author's own opt-out link leads nowhere.
            return HtmlWeaver(sheet.html).plain(_present(dict.fromkeys(expressions.RESERVED, "#"), language))
        except _FAULTS as error:
            raise _unfillable(error) from None

    def _placing(self, language: str, *, discreet: bool) -> Placing:
        return partial(self._placed, language, discreet) if self._placed else _nowhere

    def _form(self, language: str, discreet: bool) -> "_Form":  # noqa: FBT001 - a fact about the person
        chosen = self._appeal.language_for(language)
        if (chosen, discreet) not in self._forms:
            version = self._appeal.languages[chosen]
            counted = partial(self._counted, chosen, discreet) if self._counted else None
            placed = self._placing(chosen, discreet=discreet)
            there = ways(version, self._campaign, counted, placed, discreet=discreet)
            if self._copied and version.view_in_browser and not discreet:
                there = replace(there, copy=self._copied(chosen))
            sheet = lay_out(self._press, self._organisation, chosen, version, there, discreet=discreet)
            self._forms[chosen, discreet] = _Form(sheet)
        return self._forms[chosen, discreet]


def _nowhere(path: str) -> tuple[str, int, int]:
    """Stand in for a picture's place where only words are asked for."""
    return path, 1, 1


class _Form:
    """One sheet with the weavers that fill it in."""

    def __init__(self, sheet: Sheet) -> None:
        self.language = sheet.language
        self.sender = sheet.sender
        self.subject = LineWeaver(sheet.subject)
        self.preheader = LineWeaver(sheet.preheader)
        self.html = HtmlWeaver(sheet.html)
        self.text = TextWeaver(sheet.text)


def _present(values: Mapping[str, str], language: str) -> dict[str, object]:
    """Leave out empty values, so that `default("friend")` stands in for them too; add the language."""
    present: dict[str, object] = {name: value for name, value in values.items() if value}
    present[LANGUAGE] = language
    return present

"""From what an operator asks for to a plan: content checked, people counted, nothing written.

Owns the questions that must be answered before anybody is mailed. Refuses: an appeal that somebody on the
lists could not be sent, and a time that cannot be.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from worker import calendar, preflight
from worker.campaigns import Campaigns, Plan, by_reason
from worker.content import appeals
from worker.content.editions import Edition, Printer
from worker.content.rendering import UnfillableError
from worker.content.weaving import MissingField
from worker.errors import Refused, WrongUse
from worker.readers import Trial
from worker.sealing import Keyring, Person
from worker.store.audience import Kind, Rule
from worker.store.people import People
from worker.store.policies import Policies

#: What a person's name is made of.
_NAMES = frozenset({"name", "first_name", "last_name"})
#: Stands for the link of a mail that is only tried out.
_NO_LINK = "https://example.org/o/preview"


@dataclass(frozen=True, slots=True)
class Order:
    """What an operator asks for."""

    appeal: str
    lists: Sequence[str]  #: slugs
    at: str | None = None  #: local time; None = now
    time_zone: str = "UTC"
    not_after: str | None = None  #: local time; None = the default number of hours after the start
    limit: int | None = None
    waive: Sequence[str] = ()  #: names of errors to send it in spite of
    discreet: bool = False  #: the discreet form for everybody


class Planner:
    """Makes plans."""

    def __init__(
        self,
        people: People,
        policies: Policies,
        campaigns: Campaigns,
        keyring: Keyring,
        *,
        edition: Callable[[str], Edition],
        clock: Callable[[], float],
        not_after_hours: float,
    ) -> None:
        """Take the adapters; `edition` freezes an appeal's files as they are now."""
        self._people = people
        self._policies = policies
        self._campaigns = campaigns
        self._keyring = keyring
        self._edition = edition
        self._clock = clock
        self._not_after_hours = not_after_hours

    def plan(self, order: Order) -> Plan:
        """Check and count; AppealErrors, WrongUse or Refused say what stands in the way."""
        waivers = preflight.waivers(order.waive)
        edition = self._edition(order.appeal)
        lists = tuple(each.id for each in self._people.find_lists(order.lists))
        edition = replace(
            edition,
            all_discreet=order.discreet or self._policies.any_discreet(lists),
            special=replace(edition.special, names=self._policies.special_names(lists)),
        )
        if edition.all_discreet and edition.discreet is None:
            raise Refused(
                "discreet mail has no names to leave under", remedy="Set the [discreet] table in tocsin.toml."
            )
        rule = Rule(lists, order.limit, topics=appeals.parse(edition.slug, edition.appeal).topics)
        now = self._clock()
        start = calendar.moment(order.at, order.time_zone, now) if order.at else now
        end = self._end(order, start)
        kinds = self._campaigns.kinds(rule)
        tried = self._try(edition, [kind for kind in kinds if not kind.reason])
        if tried.lacking:
            told = ", ".join(f"{name} ({count} of them)" for name, count in tried.lacking.items())
            raise Refused(
                f"some people on these lists lack what the appeal asks for: {told}",
                remedy=preflight.LACKING.mend,
            )
        findings = preflight.examine(Trial(edition))
        waived = preflight.require(findings, waivers, order.appeal)
        return Plan(
            appeal=order.appeal,
            edition=replace(edition, waived=waived).to_json(),
            rule=rule,
            start_at=start,
            time_zone=order.time_zone,
            not_after=end,
            counts=_less(by_reason(kinds), tried.no_form),
            findings=findings,
            waived=waived,
        )

    def lacking(self, appeal: str, lists: Sequence[str]) -> Mapping[str, int]:
        """Return how many people on these lists lack each field that the appeal gives no fallback for."""
        rule = Rule(tuple(each.id for each in self._people.find_lists(lists)))
        kinds = [kind for kind in self._campaigns.kinds(rule) if not kind.reason]
        return self._try(self._edition(appeal), kinds).lacking

    def _end(self, order: Order, start: float) -> float:
        if order.not_after is None:
            return start + self._not_after_hours * 3600
        end = calendar.moment(order.not_after, order.time_zone, self._clock())
        if end <= start:
            raise WrongUse("--not-after is not after the start", remedy="Give a later time.")
        return end

    def _try(self, edition: Edition, kinds: Sequence[Kind]) -> "Tried":
        """Make one mail for each kind of recipient."""
        printer = Printer(edition, self._keyring.marks())
        counts = Counter[int]()
        for kind in kinds:
            counts[kind.example] += kind.count
        people = (
            (Person.from_bytes(self._keyring.open(number, sealed)), counts[number])
            for number, sealed in self._campaigns.records(list(counts))
        )
        return try_out(printer, people)


@dataclass(frozen=True, slots=True)
class Tried:
    """What came of making a mail for each kind of recipient."""

    lacking: Mapping[str, int]  #: people who lack a field that the appeal uses without a fallback, by field
    no_form: int  #: people who may only get the discreet form, where there is none


def try_out(printer: Printer, people: Iterable[tuple[Person, int]]) -> Tried:
    """Try one mail for each kind of person: which of the fields asked for they have, language, form.

    Args:
        printer: makes the mails.
        people: one of each shape, and how many are like them.
    """
    asked = printer.fields | _NAMES
    alike: dict[tuple[frozenset[str], str, bool], tuple[Person, int]] = {}
    for person, like_them in people:
        kind = (asked.intersection(person.fields), person.language, person.discreet)
        first, count = alike.get(kind, (person, 0))
        alike[kind] = (first, count + like_them)
    lacking: Counter[str] = Counter()
    no_form = 0
    for person, count in alike.values():
        if not printer.fits(person):  # they are not written to, so what they lack matters to nobody
            no_form += count
            continue
        for field in _lacked(printer, person):
            lacking[field] += count
    return Tried(dict(lacking), no_form)


def _lacked(printer: Printer, person: Person) -> Iterator[str]:
    """Yield every field without a fallback that a person lacks: with each, the mail is tried anew."""
    given = dict[str, str]()
    while True:
        try:
            printer.shown(replace(person, fields={**person.fields, **given}), _NO_LINK)
        except MissingField as error:
            if error.field in given:  # an expression asks for a part of it
                return
            yield error.field
            given[error.field] = f"[{error.field}]"
        except UnfillableError:
            if not given:  # what we have put in proves nothing
                raise
            return
        else:
            return


def _less(counts: Mapping[str, int], no_form: int) -> Mapping[str, int]:
    """Count those for whom there is no form as left out, as the dispatch will."""
    if not no_form:
        return counts
    return {**counts, "": counts[""] - no_form, "no discreet form": no_form}

"""Plan, approve, launch, pause, resume, cancel, retry, verify: what an operator does with a campaign.

Owns which move is allowed when and what is said when it is not. Refuses: rendering, SMTP, and any count that
does not come from the store.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from worker.content.checks.findings import Finding
from worker.deeds import Action, Deed, Fact
from worker.deliveries import OPEN, State
from worker.errors import Refused
from worker.store.audience import Kind, Rule
from worker.store.docket import Docket, Reopened
from worker.store.plans import Campaign, Draft, Plans
from worker.store.tallies import Tallies

#: Deliveries written in one launch transaction; the first slices are smaller: the first mail leaves soon.
SLICE = 10_000
FIRST_SLICE = 2_000
#: Seconds that one launch task may take before it hands on to the next, so that the tick is never late.
LAUNCH_SECONDS = 5.0
#: Bells rung and not yet answered, at most: enough for many workers, few enough to see a lost one.
MOST_RUNG = 64
#: A bell unanswered for so long, while the queue is empty, was lost.
LOST_BELL_SECONDS = 5.0
#: A bell unanswered for so long is rung again whatever the queue holds.
STALE_BELL_SECONDS = 900.0


class Doorbell(Protocol):
    """What tells the workers that there is work; losing a ring loses nothing but a moment."""

    def launch(self, campaign_id: int) -> None:
        """Ask for a launch to be begun or continued."""

    def ring(self, batch_ids: Sequence[int]) -> None:
        """Ask for batches to be sent."""

    def waiting(self) -> int:
        """Return how many rings nobody has heard yet."""


@dataclass(frozen=True, slots=True)
class Plan:
    """A campaign before it is one: everything an operator must see and a colleague approves."""

    appeal: str
    edition: str  #: frozen content, as JSON
    rule: Rule
    start_at: float  #: UTC seconds
    time_zone: str
    not_after: float | None
    counts: Mapping[str, int]  #: people by reason; "" = would be written to
    findings: Sequence[Finding] = ()  #: what was found in its mails; errors among them are waived
    waived: tuple[str, ...] = ()  #: the names of these errors, frozen with the content

    @property
    def recipients(self) -> int:
        """Return how many would be written to."""
        return self.counts.get("", 0)

    @property
    def left_out(self) -> Mapping[str, int]:
        """Return how many would not, by reason."""
        return {reason: count for reason, count in self.counts.items() if reason}

    @property
    def digest(self) -> str:
        """Return what an approval names: SHA-256 of the content, the audience rule and the schedule."""
        parts = (self.edition, self.rule.to_json(), repr(self.start_at), repr(self.not_after))
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Proof:
    """Whether a campaign adds up, and the sum that shows it."""

    campaign: Campaign
    audience: int  #: everybody considered
    by_state: Mapping[str, int]

    @property
    def open(self) -> int:
        """Return how many deliveries may still change by themselves."""
        return sum(self.by_state.get(state, 0) for state in OPEN)

    @property
    def holds(self) -> bool:
        """Return whether audience = sent + bounced + skipped + expired + unconfirmed, with nothing open."""
        launched = self.campaign.launched_at is not None or self.campaign.state == "cancelled"
        return launched and not self.open and sum(self.by_state.values()) == self.audience


def by_reason(kinds: Sequence[Kind]) -> Mapping[str, int]:
    """Sum people up by reason; "" = would be written to."""
    counts: dict[str, int] = {}
    for kind in kinds:
        counts[kind.reason] = counts.get(kind.reason, 0) + kind.count
    return counts


class Campaigns:
    """The campaigns, as an operator moves them."""

    def __init__(
        self,
        plans: Plans,
        docket: Docket,
        tallies: Tallies,
        doorbell: Doorbell,
        *,
        clock: Callable[[], float],
        two_people: bool,
    ) -> None:
        """Take the adapters; `two_people`: whoever plans a campaign cannot approve it."""
        self._plans = plans
        self._docket = docket
        self._tallies = tallies
        self._doorbell = doorbell
        self._clock = clock
        self._two_people = two_people

    def find(self, name: str) -> Campaign:
        """Return the campaign of that name."""
        found = self._plans.find(name)
        if found is None:
            raise Refused(f"there is no campaign called {name}", remedy="See `tocsin status`.")
        return found

    def all(self) -> Sequence[Campaign]:
        """Return every campaign, newest first."""
        return self._plans.all()

    def kinds(self, rule: Rule) -> Sequence[Kind]:
        """Count everybody on the lists by shape and reason."""
        return self._plans.kinds(rule)

    def count(self, rule: Rule) -> Mapping[str, int]:
        """Return how many people stand under each reason; "" = would be written to."""
        return by_reason(self.kinds(rule))

    def records(self, ids: Sequence[int]) -> Iterator[tuple[int, bytes]]:
        """Yield (id, sealed record) of these people, in any order."""
        return self._plans.records(ids)

    def start(self, plan: Plan, operator: str) -> Campaign:
        """Write a campaign down; it starts when its time comes, or waits for a second person's approval."""
        if not plan.recipients:
            reasons = ", ".join(f"{count} {reason}" for reason, count in plan.left_out.items()) or "nobody"
            raise Refused(f"nobody would be written to ({reasons} on these lists)")
        draft = Draft(
            appeal=plan.appeal,
            edition=plan.edition,
            rule=plan.rule,
            digest=plan.digest,
            state="awaiting" if self._two_people else "scheduled",
            created_by=operator,
            approved_by=None if self._two_people else operator,
            start_at=plan.start_at,
            time_zone=plan.time_zone,
            not_after=plan.not_after,
        )
        facts: dict[str, Fact] = {
            "recipients": plan.recipients,
            "left_out": dict(plan.left_out),
            "digest": plan.digest,
            "state": draft.state,
            **({"waived": list(plan.waived)} if plan.waived else {}),
        }
        deed = self._deed(operator, Action.SEND, "", **facts)
        campaign = self._plans.record(draft, self._clock(), deed)
        self._start_if_due(campaign)
        return self.find(campaign.name)

    def approve(self, name: str, operator: str, digest: str) -> Campaign:
        """Approve exactly what the digest names; the first eight characters are enough."""
        campaign = self.find(name)
        if campaign.state != "awaiting":
            raise Refused(f"{name} does not await approval: it is {campaign.state}")
        if operator == campaign.created_by:
            raise Refused(
                f"{name} was planned by {operator}: somebody else approves it",
                remedy='Ask a colleague, or set sending.approval = "one".',
            )
        if len(digest) < 8 or not campaign.digest.startswith(digest):  # noqa: PLR2004 - 32 bits tell two apart
            raise Refused(
                f"that is not the digest of {name}", remedy=f"Look at it again: tocsin status {name}"
            )
        deed = self._deed(operator, Action.APPROVE, name, digest=campaign.digest)
        self._plans.move(campaign.id, ["awaiting"], "scheduled", deed, approved_by=operator)
        self._start_if_due(self.find(name))
        return self.find(name)

    def pause(self, name: str, operator: str) -> Campaign:
        """Let nothing new begin; safe to repeat."""
        going = ["running", "scheduled", "paused"]
        deed = self._deed(operator, Action.PAUSE, name)
        return self._moved(going, "paused", deed, notice="paused by hand")

    def resume(self, name: str, operator: str) -> Campaign:
        """Go on exactly where it stopped."""
        # Back to scheduled: the tick starts it, or goes on with its launch, when its time has come.
        moved = self._moved(["paused"], "scheduled", self._deed(operator, Action.RESUME, name), notice="")
        self._start_if_due(moved)
        return self.find(name)

    def cancel(self, name: str, operator: str) -> Campaign:
        """End it: what has not begun is skipped, for good."""
        going = ["awaiting", "scheduled", "running", "paused"]
        deed = self._deed(operator, Action.CANCEL, name)
        campaign = self._moved(going, "cancelled", deed, notice="", finished_at=deed.at)
        self._docket.cancel(campaign.id, self._clock())
        return campaign

    def retry(self, name: str, states: Sequence[State], not_after: float | None, operator: str) -> Reopened:
        """Queue again exactly those that ended in these states and may still be written to."""
        campaign = self.find(name)
        if campaign.state == "cancelled":
            raise Refused(f"{name} was cancelled", remedy="Plan it anew with `tocsin send`.")
        action = Action.RESEND if list(states) == [State.UNCONFIRMED] else Action.RETRY
        deed = self._deed(operator, action, name, states=[str(one) for one in states], not_after=not_after)
        found = self._docket.reopen(campaign.id, states, deed.at, deed)
        if found.opened:
            going = ["finished", "running", "paused"]
            values: dict[str, object] = {} if not_after is None else {"not_after": not_after}
            self._plans.move(campaign.id, going, "running", None, notice="", **values)
            self.ring()
        return found

    def accept(self, name: str, operator: str) -> int:
        """Take a person's word that what is unconfirmed arrived; returns how many deliveries."""
        deed = self._deed(operator, Action.ACCEPT, name)
        return self._docket.accept(self.find(name).id, deed.at, deed)

    def verify(self, name: str) -> Proof:
        """Add a campaign up."""
        campaign = self.find(name)
        by_state: dict[str, int] = {}
        for (state, _), count in self._tallies.tally(campaign.id).items():
            by_state[state] = by_state.get(state, 0) + count
        audience = campaign.audience if campaign.audience is not None else sum(by_state.values())
        return Proof(campaign, audience, by_state)

    # -- what the clock does -----------------------------------------------------------------------

    def begin(self, campaign: Campaign) -> bool:
        """Start a scheduled campaign whose time has come; True for the one caller who did."""
        return self._plans.move(campaign.id, ["scheduled"], "running")

    def launch(self, campaign_id: int) -> None:
        """Write deliveries slice by slice and ring for them; goes on where an earlier launch stopped."""
        campaign = self._plans.get(campaign_id)
        started = self._clock()
        size = FIRST_SLICE
        while self._plans.slice(campaign, size, self._clock()):
            self.ring()
            size = min(2 * size, SLICE)
            if self._clock() - started > LAUNCH_SECONDS:
                self._doorbell.launch(campaign_id)
                return

    def ring(self) -> int:
        """Ring for batches that are due, as many as the queue should hold; returns how many."""
        now = self._clock()
        # Bells that rang and were not heard although the queue is empty are lost (a flushed Redis);
        # while it is not empty they are only waiting, and to ring again would pile up doubles.
        unheard = self._doorbell.waiting()
        lost_before = now - (LOST_BELL_SECONDS if not unheard else STALE_BELL_SECONDS)
        free = MOST_RUNG - (self._docket.rung(lost_before) if unheard else 0)
        found = self._docket.ring(now, limit=max(free, 0), lost_before=lost_before) if free > 0 else []
        if found:
            self._doorbell.ring(found)
        return len(found)

    def _start_if_due(self, campaign: Campaign) -> None:
        if campaign.state == "scheduled" and campaign.start_at <= self._clock() and self.begin(campaign):
            self._doorbell.launch(campaign.id)

    def _moved(self, came_from: Sequence[str], to: str, deed: Deed, **values: object) -> Campaign:
        """Move the campaign that the deed is about; Refused where it is in another state."""
        campaign = self.find(deed.subject)
        if not self._plans.move(campaign.id, came_from, to, deed, **values):
            raise Refused(f"cannot {deed.action} {campaign.name}: it is {campaign.state}")
        return self.find(campaign.name)

    def _deed(self, operator: str, action: Action, name: str, **facts: Fact) -> Deed:
        return Deed(self._clock(), operator, action, name, facts)


class Alarms:
    """Writes down what stops a campaign by our own fault, and that it goes again."""

    def __init__(self, plans: Plans) -> None:
        """Take the campaigns' rows."""
        self._plans = plans

    def stop(self, campaign_id: int, notice: str) -> None:
        """Pause the campaign and say why."""
        self._plans.move(campaign_id, ["running"], "paused", notice=notice)

    def warn(self, campaign_id: int, notice: str) -> None:
        """Say why it stands still though it runs."""
        self._plans.note(campaign_id, notice)

    def clear(self, campaign_id: int) -> None:
        """It goes again."""
        self._plans.note(campaign_id, "")

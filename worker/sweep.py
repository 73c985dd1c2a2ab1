"""The tick: find what is due, what was never begun, and what somebody left behind.

Owns recovery. Everything it does is safe to do twice, so two beats are harmless. Refuses: guessing. What a
journal cannot tell for certain becomes `unconfirmed`.
"""

from collections.abc import Callable
from pathlib import Path

import structlog

from worker import journal
from worker.campaigns import Campaigns, Doorbell
from worker.errors import Unavailable
from worker.replica import Copies
from worker.store.ledger import Lease, Ledger
from worker.store.plans import Plans

log = structlog.get_logger()

#: An owner on another machine, silent for so long past its lease, is taken for lost (seconds).
LOST_OWNER_SECONDS = 60.0
#: The empty journal of a process that ended is removed after so long (seconds).
STALE_JOURNAL_SECONDS = 3600.0


class Sweep:
    """One look over everything that may have been left lying."""

    def __init__(
        self,
        plans: Plans,
        ledger: Ledger,
        campaigns: Campaigns,
        doorbell: Doorbell,
        journals: Path,
        clock: Callable[[], float],
        *,
        copies: Copies | None = None,
    ) -> None:
        """Take the adapters, the folder of this machine's journals, and the copies of all machines'."""
        self._plans = plans
        self._ledger = ledger
        self._campaigns = campaigns
        self._doorbell = doorbell
        self._journals = journals
        self._clock = clock
        self._copies = copies

    def run(self) -> None:
        """Start, recover, ring, finish."""
        now = self._clock()
        for campaign in self._plans.due(now):
            if campaign.state == "scheduled" and self._campaigns.begin(campaign):
                log.info("campaign_started", campaign=campaign.id)
            self._doorbell.launch(campaign.id)
        held = self._ledger.held()
        for lease, owner in held:
            self._look_after(lease, owner, now)
        journal.tidy(self._journals, {owner for _, owner in held}, now - STALE_JOURNAL_SECONDS)
        for campaign_id in self._plans.unfinish():
            log.warning("campaign_goes_on", campaign=campaign_id)
        if rung := self._campaigns.ring():
            log.info("batches_rung", count=rung)
        for name in self._plans.finish_whole(now):
            log.info("campaign_finished", campaign=name)

    def recover(self) -> None:
        """Settle what processes that died on this machine had in hand: only here are their journals.

        Every new process asks this first, because the tick may run on another machine.
        """
        now = self._clock()
        for lease, owner in self._ledger.held():
            hand = journal.inspect(self._journals, owner)
            if hand is not None and not hand.alive:
                self._recover(lease, owner, hand, now)

    def _look_after(self, lease: Lease, owner: str, now: float) -> None:
        hand = journal.inspect(self._journals, owner)
        if hand is not None and not hand.alive:
            self._recover(lease, owner, hand, now)
        elif lease.until >= now:
            return
        elif hand is None and now - lease.until > LOST_OWNER_SECONDS:
            self._recover(lease, owner, journal.Hand(alive=False, trusted=False), now)
        elif self._ledger.release(lease, now):
            # Alive but silent, or on another machine: the rest of its batch goes on without it.
            log.warning("lease_overdue", batch=lease.batch_id, lease=lease.id)

    def _recover(self, lease: Lease, owner: str, hand: journal.Hand, now: float) -> None:
        """Settle the hand of an owner that is gone."""
        held = self._ledger.in_hand(lease)
        if held and not hand.trusted and self._copies is not None:
            try:
                hand = self._copied(self._copies, owner) or hand
            except Unavailable as error:  # it may be back by the next tick
                log.warning("copy_not_read", lease=lease.id, why=str(error))
                return
        # A journal that a reboot may have cut short proves what nothing undoes, but not what it leaves out.
        never_begun = held - hand.begun - hand.known.keys() if hand.trusted else set[int]()
        settled, requeued, doubtful = self._ledger.recover(lease, list(hand.known.values()), never_begun, now)
        if settled or requeued or doubtful:
            log.warning(
                "lease_recovered",
                batch=lease.batch_id,
                lease=lease.id,
                settled=settled,
                requeued=requeued,
                unconfirmed=doubtful,
            )
        if all(other != owner for _, other in self._ledger.held()):
            journal.discard(self._journals, owner)
            if self._copies is not None and (held or hand.trusted):  # else it may live, between two batches
                self._copies.forget(owner)

    @staticmethod
    def _copied(copies: Copies, owner: str) -> journal.Hand | None:
        """Take an owner's second copy away from it, and return what it says, if it can be trusted."""
        lines = copies.take(owner)
        return None if lines is None else journal.inspect_copy(lines)

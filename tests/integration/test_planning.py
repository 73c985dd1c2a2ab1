"""A plan says before anybody is mailed who would be, who would not, and what stands in the way."""

import secrets
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from worker import settings, workspace
from worker.campaigns import Plan
from worker.errors import Refused, WrongUse
from worker.imports import Importer, Rejects, Target
from worker.planning import Order
from worker.tables.lists import Consent, read
from worker.wiring import Wiring

Planned = Callable[..., Plan]
_APPEAL = """\
---
subject: "News{subject}"
preheader: "Read on"
actions:
  - kind: read
    text: "Read it"
    link: "https://example.org/read"
    main: true
---
Dear {{{{ first_name | default("friend") }}}}, {body}
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A workspace without discreet names."""
    workspace.make(tmp_path / "office")
    return tmp_path / "office"


@pytest.fixture
def planned(home: Path) -> Planned:
    """Import rows and plan an appeal to them."""

    def run(rows: Sequence[str], *, subject: str = "", body: str = "here.", **order: object) -> Plan:
        folder = home / "templates" / "appeals" / "news"
        folder.mkdir(exist_ok=True)
        (folder / "en.md").write_text(_APPEAL.format(subject=subject, body=body), encoding="utf-8")
        wiring = Wiring(settings.load(home, {}), Bells())
        wiring.database.upgrade()
        importer = Importer(
            wiring.people,
            wiring.suppressions,
            wiring.bars,
            wiring.keyring,
            random=secrets.token_bytes,
            clock=wiring.clock,
        )
        text = "\n".join(["email,first_name,discreet,town,basis,source,when", *rows, ""])
        importer.run(
            read([text.encode()], defaults=Consent()),
            Target("one", "One"),
            Rejects(home / "r"),
            lambda _n: None,
        )
        plan = wiring.planner.plan(Order("news", ["one"], **order))  # type: ignore[arg-type]  # test options
        wiring.database.close()
        return plan

    return run


class Bells:
    """A doorbell that nobody hears."""

    def launch(self, campaign_id: int) -> None:
        """Ring for nothing."""

    def ring(self, batch_ids: Sequence[int]) -> None:
        """Ring for nothing."""

    def waiting(self) -> int:
        """Nothing waits."""
        return 0


ANNA = "anna@example.org,Anna,no,Leeds,consent,form,2025-01-01"
BO = "bo@example.org,,no,,consent,form,2025-01-01"
CY = "cy@example.org,Cy,yes,York,consent,form,2025-01-01"
DI = "di@example.org,Di,no,Hull,,,"


def test_the_plan_counts_everybody_by_reason(planned: Planned) -> None:
    """Recipients and each kind of left-out add up to the list."""
    plan = planned([ANNA, BO, CY, DI])
    assert plan.counts == {"": 2, "no discreet form": 1, "no consent": 1}
    assert plan.recipients == 2


def test_a_discreet_campaign_needs_names_to_leave_under(planned: Planned) -> None:
    """Nobody who asked for a campaign in the discreet form gets the open one instead."""
    with pytest.raises(Refused, match="no names to leave under"):
        planned([ANNA], discreet=True)


def test_a_field_that_somebody_lacks_stops_the_plan_with_the_count(planned: Planned) -> None:
    """Before anybody is mailed, each field with everybody who lacks it, counting only those who would be."""
    ed, flo = (one.replace(",Leeds", ",") for one in (ANNA.replace("anna", "ed"), CY.replace("York", "")))
    with pytest.raises(Refused, match=r"first_name \(1 of them\), town \(2 of them\)$") as caught:
        planned([ANNA, BO, DI, ed, flo], body="{{ first_name }} in {{ town | upper }}, {{ town }}.")
    assert "default" in caught.value.remedy


def test_a_field_that_only_left_out_people_lack_stops_nothing(planned: Planned) -> None:
    """Nobody without consent is mailed, so what they lack matters to nobody."""
    assert planned([ANNA, DI.replace("Hull", "")], body="in {{ town }}.").recipients == 1


def test_the_digest_names_content_audience_and_schedule(planned: Planned) -> None:
    """Any change to what an approval approves is another digest."""
    at = {"at": "2030-01-01 09:00"}
    one = planned([ANNA], **at)
    assert planned([ANNA], **at).digest == one.digest
    others = [
        planned([ANNA], subject="!", **at),
        planned([ANNA], limit=5, **at),
        planned([ANNA], at="2030-01-01 09:01"),
        planned([ANNA], not_after="2030-01-02 09:00", **at),
    ]
    assert len({plan.digest for plan in [one, *others]}) == 5


def test_a_deadline_before_the_start_is_refused(planned: Planned) -> None:
    """--not-after comes after the start."""
    with pytest.raises(WrongUse, match="not after the start"):
        planned([ANNA], at="2030-01-02 09:00", not_after="2030-01-01 09:00")


def test_an_unknown_list_and_an_unknown_appeal_are_named(home: Path) -> None:
    """A slip in a name is told at once."""
    wiring = Wiring(settings.load(home, {}), Bells())
    wiring.database.upgrade()
    with pytest.raises(Refused, match="no list called nobody"):
        wiring.planner.plan(Order("chechnya-report", ["nobody"]))
    with pytest.raises(Refused, match="no appeal called nothing"):
        wiring.planner.plan(Order("nothing", ["nobody"]))
    wiring.database.close()

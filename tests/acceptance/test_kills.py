"""Whatever dies in mid-campaign, nobody is lost and nobody is mailed twice (long: `bench/kills.py`)."""

from collections import Counter
from pathlib import Path

import kills
import pytest


@pytest.mark.parametrize("store", ["sqlite", "postgresql"])
def test_whatever_dies_nobody_is_lost_or_mailed_twice(
    store: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """A kill of each kind, a sender stopped past its lease: ledger and mail server agree on each person."""
    database = store
    if store == "postgresql":
        database = str(request.getfixturevalue("postgres_url")).replace("+psycopg", "")
    # First what takes longest to come back, so that the rest of the kills falls into it.
    kinds = ("freeze", "links", "child", "redis", "worker", "control", "parent", "beat")
    plan = kills.Plan(
        recipients=3000,
        kills=len(kinds),
        kinds=kinds,
        in_turn=True,
        batch=100,
        chunk=50,
        lease=3.0,
        slice=2.0,
        frozen=5.0,
        reply_delay=0.015,  # so that many a kill finds a mail whose answer is on its way
        limit=240.0,
    )
    found = kills.run(plan, tmp_path, database)
    assert found.problems == []
    assert found.kills == Counter(kinds)
    assert found.unconfirmed <= found.links
    assert found.states["sent"] + found.unconfirmed == plan.recipients
    assert found.taken == found.states["sent"] + found.unconfirmed_taken

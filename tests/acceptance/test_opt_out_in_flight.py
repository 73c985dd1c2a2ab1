"""A "no" said while the mail goes out at full speed is kept (measured at length: `bench/optouts.py`)."""

from pathlib import Path

import optouts


def test_who_says_no_in_mid_campaign_gets_no_mail(postgres_url: str, tmp_path: Path) -> None:
    """Real POSTs, real senders: no mail comes a second after its answer; the rest is whole, once each."""
    # The mail server sets the pace, 320 a second over all connections: on the fastest machine too there are
    # five seconds in which to say no, and a sender that forgot to ask would have a hand to last it for two.
    plan = optouts.Plan(
        recipients=1600,
        workers=1,
        processes=2,
        connections=4,
        reply_delay=0.025,
        batch=400,
        chunk=400,
        lease=60,
        slice=20,
        limit=120,
    )
    found = optouts.run(plan, tmp_path, postgres_url.replace("+psycopg", ""), opt_outs=80)
    assert found.problems == []
    assert found.broken == 0
    assert found.saved + found.after_answer + found.too_late == found.opt_outs
    assert found.saved > found.opt_outs / 3
    assert found.saved_in_hand > 0

"""A "no" said while the mail goes out at full speed is kept (measured at length: `bench/optouts.py`)."""

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

_BENCH = Path(__file__).resolve().parents[2] / "bench"


@pytest.fixture(scope="module")
def optouts() -> Iterator[ModuleType]:
    """The harness of the measurement."""
    before = list(sys.path)
    spec = importlib.util.spec_from_file_location("optouts", _BENCH / "optouts.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclasses look themselves up there
    spec.loader.exec_module(module)
    yield module
    sys.path[:] = before


def test_who_says_no_in_mid_campaign_gets_no_mail(
    optouts: ModuleType, postgres_url: str, tmp_path: Path
) -> None:
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

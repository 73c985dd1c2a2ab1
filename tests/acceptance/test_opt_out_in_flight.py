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


@pytest.mark.parametrize("store", ["sqlite", "postgresql"])
def test_who_says_no_in_mid_campaign_gets_no_mail(
    optouts: ModuleType, store: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Real POSTs, real senders: no mail comes a second after its answer; the rest is whole, once each."""
    database = store
    if store == "postgresql":
        database = str(request.getfixturevalue("postgres_url")).replace("+psycopg", "")
    plan = optouts.Plan(recipients=5000, reply_delay=0.0, batch=250, chunk=250, lease=60, slice=20, limit=240)
    found = optouts.run(plan, tmp_path, database, opt_outs=150)
    assert found.problems == []
    assert found.broken == 0
    assert found.saved + found.after_answer + found.too_late == found.opt_outs
    assert found.saved > 0

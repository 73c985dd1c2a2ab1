"""The pace is one for all workers, and Redis keeps the time."""

import threading
import time
from collections.abc import Iterator

import pytest
import redis

from worker import broker
from worker.errors import Unavailable
from worker.throttle import Throttle


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator["redis.Redis"]:
    """A private Redis."""
    with broker.running(tmp_path_factory.mktemp("state")) as private:
        made = redis.Redis(unix_socket_path=str(private.socket))
        yield made
        made.close()


@pytest.fixture(autouse=True)
def _fresh(client: "redis.Redis") -> None:
    client.flushdb()


def made(client: "redis.Redis", relay: float = 0.0, **providers: float) -> Throttle:
    """A throttle with one relay."""
    return Throttle(client, {"main": relay}, providers)


def age(client: "redis.Redis", kind: str, name: str, seconds: float) -> None:
    """Let a bucket's past be so much longer ago, by moving what it remembers."""
    key = f"tocsin:pace:{kind}:{name}"
    for field in ("at", "rest", "since", "booked"):
        found = client.hget(key, field)
        if found is not None:
            client.hset(key, field, f"{float(found) - seconds:.6f}")


def test_no_limit_grants_everything(client: "redis.Redis") -> None:
    """0 a second means as fast as it goes."""
    assert made(client).take("main", {"google": 500, "other": 7}).counts == {"google": 500, "other": 7}


@pytest.mark.parametrize("rate", [5.0, 40.0, 2000.0])
def test_several_workers_together_keep_the_pace_to_two_parts_in_a_hundred(
    client: "redis.Redis", rate: float
) -> None:
    """Four takers, one bucket: in all they get the rate times the time, give or take a tenth of a second.

    Takers that come when they were told to come; the time is Redis's, so that a slow machine cannot fail it.
    """
    granted: list[tuple[float, int]] = []
    until = time.monotonic() + 3.0

    def run(relay: float, providers: dict[str, float]) -> None:
        throttle = Throttle(client, {"main": relay}, providers)
        while time.monotonic() < until:
            grant = throttle.take("main", {"google": 50})
            seconds, micros = client.time()
            granted.append((seconds + micros / 1e6, grant.counts.get("google", 0)))
            time.sleep(grant.relay_wait or grant.waits.get("google", 0.0))

    for limits in ((rate, {}), (0.0, {"google": rate})):
        client.flushdb()
        granted.clear()
        until = time.monotonic() + 3.0
        threads = [threading.Thread(target=run, args=limits) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        taken = sorted(granted)
        took = taken[-1][0] - taken[0][0]
        assert abs(sum(count for _, count in taken) - rate * took) <= rate * took * 0.02 + 1 + rate * 0.1


def test_an_empty_bucket_answers_with_the_wait(client: "redis.Redis") -> None:
    """The wait is how long one mail takes at this pace."""
    throttle = made(client, relay=2.0)
    assert throttle.take("main", {"other": 5}).counts == {"other": 1}
    grant = throttle.take("main", {"other": 1})
    assert grant.counts == {}
    assert 0.3 < grant.relay_wait <= 0.5


def test_one_provider_waits_and_the_others_do_not(client: "redis.Redis") -> None:
    """Each has its own bucket, whatever the relay."""
    throttle = Throttle(client, {"main": 0.0, "second": 0.0}, {"google": 2.0})
    assert throttle.take("main", {"google": 9, "other": 9}).counts == {"google": 1, "other": 9}
    grant = throttle.take("second", {"google": 9, "other": 9})
    assert grant.counts == {"other": 9}
    assert 0.3 < grant.waits["google"] <= 0.5
    assert grant.relay_wait == 0


def test_a_slow_provider_is_served_before_those_without_a_limit(client: "redis.Redis") -> None:
    """The relay has little to give: whoever may send at any time must not take it all."""
    throttle = made(client, relay=10.0, google=1.0)
    assert throttle.take("main", {"other": 9, "google": 9}).counts == {"google": 1}


def test_a_rest_holds_for_everyone_and_the_longer_one_stays(client: "redis.Redis") -> None:
    """One worker is told to leave the relay alone; all wait, and a report says why."""
    made(client).rest_relay("main", 30, "down (421)")
    made(client).rest_relay("main", 5, "shorter")
    grant = made(client).take("main", {"other": 1})
    assert grant.counts == {}
    assert 25 < grant.relay_wait <= 30
    assert 25 < made(client).resting()["main"] <= 30
    assert [(one.kind, one.name, one.why) for one in made(client).strains()] == [
        ("relay", "main", "down (421)")
    ]
    assert Throttle(client, {"second": 0.0}, {}).take("second", {"other": 1}).counts == {"other": 1}
    age(client, "relay", "main", 31)
    assert made(client).resting() == {}
    assert made(client).take("main", {"other": 1}).counts == {"other": 1}


def test_a_provider_that_rests_waits_alone(client: "redis.Redis") -> None:
    """Its mail is given a wait, the rest goes."""
    made(client).rest_provider("yahoo", 7200, "yahoo-tss04 (421)")
    grant = made(client).take("main", {"yahoo": 3, "other": 3})
    assert grant.counts == {"other": 3}
    assert 7100 < grant.waits["yahoo"] <= 7200


def test_a_refused_pace_is_halved_and_grows_back_slowly(client: "redis.Redis") -> None:
    """Half after the rest, a tenth more each minute, then whole again; said five times at once, it is one."""
    throttle = made(client, google=40.0)
    throttle.take("main", {"google": 1})
    client.hset("tocsin:pace:provider:google", "seen", "30")
    for _ in range(5):
        throttle.slow_provider("google", 60, "rate-limit (421 4.7.28)")
    assert 50 < throttle.take("main", {"google": 1}).waits["google"] <= 60
    age(client, "provider", "google", 61)
    (strain,) = throttle.strains()
    assert (strain.rest, strain.why) == (0, "rate-limit (421 4.7.28)")
    assert 14 < strain.pace < 15.5
    age(client, "provider", "google", 300)
    (strain,) = throttle.strains()
    assert 22 < strain.pace < 25.5
    age(client, "provider", "google", 600)
    assert throttle.strains() == []
    age(client, "provider", "google", 10)
    assert throttle.take("main", {"google": 50}).counts == {"google": 5}


def test_a_provider_without_a_limit_learns_one(client: "redis.Redis") -> None:
    """The pace of late is what was too fast."""
    throttle = made(client, google=0.0)
    throttle.take("main", {"google": 1000})  # a hundred a second over ten seconds
    throttle.slow_provider("google", 1, "rate-limit")
    age(client, "provider", "google", 2)
    (strain,) = throttle.strains()
    assert 45 < strain.pace < 51
    throttle.forgive("google")
    assert throttle.strains() == []
    assert throttle.take("main", {"google": 500}).counts == {"google": 500}


def test_a_booked_turn_comes_after_those_before_it(client: "redis.Redis") -> None:
    """Batches that wait for a slow provider are told to come back one after another."""
    throttle = made(client, google=10.0)
    assert throttle.book("google", 100) == pytest.approx(0.0, abs=0.1)
    assert throttle.book("google", 100) == pytest.approx(10.0, abs=0.2)
    assert throttle.book("google", 1) == pytest.approx(20.0, abs=0.2)
    assert throttle.book("other", 1) == 0


def test_connections_are_shared_and_those_of_the_dead_come_back(client: "redis.Redis") -> None:
    """Never more than the relay allows in all; who keeps silent for ten seconds loses his."""
    throttle = made(client)
    assert throttle.links("main", "a", 4, 10) == 4
    assert throttle.links("main", "b", 4, 10) == 4
    assert throttle.links("main", "c", 4, 10) == 2
    assert throttle.links("main", "d", 4, 10) == 0
    assert throttle.links("main", "a", 4, 10) == 4
    assert throttle.links("main", "b", 0, 10) == 0
    assert throttle.links("main", "d", 4, 10) == 4
    client.hset("tocsin:links:main", "a", "4 1")  # long ago
    assert throttle.links("main", "c", 4, 10) == 4


def test_no_redis_is_unavailable_not_unlimited(tmp_path_factory: pytest.TempPathFactory) -> None:
    """When nobody can say how fast, nobody sends."""
    folder = tmp_path_factory.mktemp("none")
    away = redis.Redis(unix_socket_path=f"{folder}/s")
    with pytest.raises(Unavailable):
        made(away).take("main", {"other": 1})
    away.close()

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


def test_no_limit_grants_everything(client: "redis.Redis") -> None:
    """0 a second means as fast as it goes."""
    assert Throttle(client, "main", 0).take(500).count == 500


def test_several_workers_together_keep_the_pace(client: "redis.Redis") -> None:
    """Four takers share one bucket: what they get in all is the rate times the time, and a quarter second."""
    rate, granted = 400.0, [0, 0, 0, 0]
    began = time.monotonic()
    until = began + 1.5

    def run(number: int) -> None:
        throttle = Throttle(client, "main", rate)
        while time.monotonic() < until:
            grant = throttle.take(20)
            granted[number] += grant.count
            time.sleep(min(grant.wait, 0.05))

    threads = [threading.Thread(target=run, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    took = time.monotonic() - began
    assert sum(granted) <= rate * took + rate * 0.25 + 1
    assert sum(granted) >= rate * 1.5 * 0.8


def test_an_empty_bucket_answers_with_the_wait(client: "redis.Redis") -> None:
    """The wait is how long one mail takes at this pace."""
    throttle = Throttle(client, "main", 2.0)
    assert throttle.take(5).count == 1
    assert throttle.take(1).count == 0
    assert 0.3 < throttle.take(1).wait <= 0.5


def test_a_rest_holds_for_everyone_and_the_longer_one_stays(client: "redis.Redis") -> None:
    """One worker is told to slow down; all wait."""
    Throttle(client, "main", 0).rest(30)
    Throttle(client, "main", 0).rest(5)
    grant = Throttle(client, "main", 0).take(1)
    assert grant.count == 0
    assert 25 < grant.wait <= 30
    assert Throttle(client, "other", 0).take(1).count == 1


def test_no_redis_is_unavailable_not_unlimited(tmp_path_factory: pytest.TempPathFactory) -> None:
    """When nobody can say how fast, nobody sends."""
    folder = tmp_path_factory.mktemp("none")
    away = redis.Redis(unix_socket_path=f"{folder}/s")
    with pytest.raises(Unavailable):
        Throttle(away, "main", 10).take(1)
    away.close()

"""Guesses are counted by network in a real Redis, without an address and in nobody's way."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from worker import broker
from worker.errors import Unavailable
from worker.turnstile import MOST, WINDOW, Turnstile, network_of


@pytest.fixture
def redis_client(tmp_path: Path) -> Iterator["redis.Redis"]:
    """A private Redis."""
    with broker.running(tmp_path) as private, redis.Redis(unix_socket_path=str(private.socket)) as client:
        yield client


def hashed(network: str) -> bytes:
    """Hash as a key ring does, in its way."""
    return hashlib.blake2b(network.encode(), digest_size=16, key=b"k").digest()


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.77", "192.0.2.0/24"),
        ("2001:db8:1:2:3::4", "2001:db8:1::/48"),
        ("::ffff:192.0.2.77", "192.0.2.0/24"),
        ("fe80::1%eth0", "fe80::/48"),
        ("", ""),
        ("testclient", ""),
        ("1.2.3.4, 5.6.7.8", ""),
    ],
)
def test_what_a_network_is(address: str, network: str) -> None:
    """One customer's addresses are one network; what is no address is none."""
    assert network_of(address) == network


def test_a_network_has_so_many_guesses(redis_client: "redis.Redis") -> None:
    """A whole network shares its guesses, others have theirs, Redis holds no address, and all of it ends."""
    one, other = (Turnstile(lambda: redis_client, hashed) for _ in range(2))
    assert [one.guessed(f"192.0.2.{number % 250}") for number in range(MOST)] == [0] * MOST
    assert 0 < other.guessed("192.0.2.255") <= WINDOW
    assert other.guessed("198.51.100.1") == 0
    keys: Any = redis_client.keys("tocsin:turnstile:*")
    assert len(keys) == 2
    assert not [key for key in keys if b"192.0" in key or b"198.51" in key]
    assert all(0 < int(redis_client.ttl(key)) <= WINDOW for key in keys)  # type: ignore[arg-type]  # redis types both kinds of client as one


@pytest.mark.parametrize("fault", [Unavailable("it has not come up"), redis.ConnectionError("gone")])
def test_without_redis_everybody_passes_and_it_is_asked_again_later(fault: Exception) -> None:
    """An opt-out page does not need the queue; while it is away it is not asked at every guess."""
    asked = []

    def connect() -> "redis.Redis":
        asked.append(1)
        raise fault

    turnstile = Turnstile(connect, hashed)
    assert [turnstile.guessed("192.0.2.1") for _ in range(MOST + 5)] == [0] * (MOST + 5)
    assert len(asked) == 1

"""How fast: a token bucket in Redis, shared by all workers, that answers with a wait.

Owns the pace and the rest of a relay. Refuses: to guess while Redis is away (it says so, and the sender
waits), and to sleep: the caller decides what to do meanwhile.
"""

from dataclasses import dataclass

import redis

from worker.errors import Unavailable

# One round trip, atomic. Redis's own clock, so that workers whose clocks differ still agree.
# The bucket holds a quarter of a second's worth: bursts stay small enough for a relay that counts by second.
_TAKE = """
local rest = redis.call('PTTL', KEYS[2])
if rest > 0 then return {0, rest} end
local rate, want = tonumber(ARGV[1]), tonumber(ARGV[2])
if rate <= 0 then return {want, 0} end
local now = redis.call('TIME')
local micros = now[1] * 1000000 + now[2]
local depth = math.max(1, rate * 0.25)
local state = redis.call('HMGET', KEYS[1], 'tokens', 'at')
local gained = (micros - tonumber(state[2] or micros)) * rate / 1e6
local tokens = math.min(depth, tonumber(state[1] or depth) + gained)
local given = math.min(want, math.floor(tokens))
redis.call('HSET', KEYS[1], 'tokens', tostring(tokens - given), 'at', string.format('%.0f', micros))
redis.call('PEXPIRE', KEYS[1], 60000)
if given > 0 then return {given, 0} end
return {0, math.ceil((1 - tokens) / rate * 1000)}
"""


@dataclass(frozen=True, slots=True)
class Grant:
    """How many may begin now, or how long to wait before asking again."""

    count: int
    wait: float  #: seconds; 0 when something was granted


class Throttle:
    """The pace of one relay over all workers."""

    def __init__(self, client: "redis.Redis", relay: str, per_second: float) -> None:
        """Take a client, the relay's name in keys, and mails a second (0 = as fast as it goes)."""
        self._client = client
        self._keys = (f"tocsin:pace:{relay}", f"tocsin:rest:{relay}")
        self._rate = per_second
        self._take = client.register_script(_TAKE)

    def take(self, want: int) -> Grant:
        """Ask for up to `want` mails."""
        try:
            given, wait = self._take(keys=self._keys, args=[self._rate, want])
        except redis.RedisError as error:
            raise Unavailable("Redis does not answer, so the pace is not known") from error
        return Grant(int(given), wait / 1000)

    def rest(self, seconds: float) -> None:
        """Let the relay rest for all workers; a longer rest that stands already is kept."""
        try:
            left = self._client.pttl(self._keys[1])
            if left < seconds * 1000:
                self._client.set(self._keys[1], 1, px=int(seconds * 1000))
        except redis.RedisError as error:
            raise Unavailable("Redis does not answer, so the relay cannot rest") from error

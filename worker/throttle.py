"""How fast: token buckets in Redis, shared by all workers, that answer with a wait.

Owns the pace and the rest of each relay and of each mailbox provider, and what a provider's refusals taught.
Refuses: to guess while Redis is away (it says so, and the sender waits), and to sleep: the caller decides
what to do meanwhile.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import redis

from worker.errors import Unavailable

# Every script is one round trip, atomic, and by Redis's own clock, so that workers whose clocks differ agree.
#
# A bucket is a hash: tokens, as of `at`; `seen`, the pace of late (mails a second, fading over ten seconds);
# `rest`, until when nothing may begin; `slow`, the pace after a refusal, from `since` on growing by a tenth
# a minute until it reaches `goal`; `booked`, until when the pace is promised to batches that wait; `why`.
# A bucket holds a tenth of a second's worth and one more: bursts stay small enough for a server that counts
# by the second, and a taker who comes a little late loses nothing.
_BUCKET = """
local time = redis.call('TIME')
local now = time[1] + time[2] / 1e6
local function open(key, rate)
  local found = redis.call('HMGET', key, 'tokens', 'at', 'seen', 'rest', 'slow', 'since', 'goal', 'booked')
  local b = {key = key, rate = tonumber(rate)}
  local at = tonumber(found[2] or now)
  local gone = math.max(0, now - at)
  b.seen = tonumber(found[3] or 0) * math.exp(-gone / 10)
  b.rest = math.max(0, tonumber(found[4] or 0) - now)
  b.slow, b.since, b.goal = tonumber(found[5] or 0), tonumber(found[6] or 0), tonumber(found[7] or 0)
  b.booked = tonumber(found[8] or 0)
  if b.slow > 0 then
    local grown = b.slow * 1.1 ^ (math.max(0, now - b.since) / 60)
    if grown >= b.goal then
      b.slow = 0
      redis.call('HDEL', key, 'slow', 'since', 'goal', 'why')
    else
      b.rate = (b.rate > 0) and math.min(b.rate, grown) or grown
    end
  end
  b.tokens = math.min(1 + b.rate * 0.1, tonumber(found[1] or 1) + gone * b.rate)
  b.left = (b.rate > 0) and math.floor(b.tokens) or math.huge
  b.wait = (b.rate > 0) and (1 - b.tokens) / b.rate or 0
  return b
end
local function spend(b, count)
  redis.call('HSET', b.key, 'tokens', string.format('%.6f', b.tokens - (b.rate > 0 and count or 0)),
    'at', string.format('%.6f', now), 'seen', string.format('%.6f', b.seen + count / 10))
  redis.call('PEXPIRE', b.key, 86400000)
end
"""

# The limited providers first: the others would take all that the relay has to give.
_TAKE = (
    _BUCKET
    + """
local relay = open(KEYS[1], ARGV[1])
if relay.rest > 0 then return {math.ceil(relay.rest * 1000)} end
if relay.left < 1 then return {math.ceil(relay.wait * 1000)} end
local spent, answer, buckets = 0, {0}, {}
for place = 2, #KEYS do
  local b = open(KEYS[place], ARGV[place * 2 - 2])
  b.want = tonumber(ARGV[place * 2 - 1])
  buckets[place - 1] = b
end
local function give(b)
  b.given = (b.rest > 0) and 0 or math.min(b.want, b.left, relay.left - spent)
  spent = spent + b.given
end
for _, b in ipairs(buckets) do if b.rate > 0 then give(b) end end
for _, b in ipairs(buckets) do if b.rate <= 0 then give(b) end end
for place, b in ipairs(buckets) do
  if b.given > 0 then spend(b, b.given) end
  answer[place * 2] = b.given
  answer[place * 2 + 1] = (b.given > 0) and 0 or math.ceil(math.max(b.rest, b.wait) * 1000)
end
if spent > 0 then spend(relay, spent) end
return answer
"""
)

# Half the pace of late, once in ten seconds: the answers to what was in flight all say the same.
_SLOW = (
    _BUCKET
    + """
local b = open(KEYS[1], ARGV[1])
local rest = now + math.max(b.rest, tonumber(ARGV[2]))
local line = {'rest', string.format('%.6f', rest), 'why', ARGV[3], 'at', string.format('%.6f', now),
  'tokens', '0', 'seen', string.format('%.6f', b.seen)}
if b.slow <= 0 or now > b.since + 10 then
  local pace = (b.rate > 0) and math.min(b.rate, b.seen) or b.seen
  local goal = (tonumber(ARGV[1]) > 0) and tonumber(ARGV[1]) or math.max(1, 2 * pace)
  for _, one in ipairs({'slow', string.format('%.6f', math.max(pace / 2, 1 / 6)),
    'since', string.format('%.6f', rest), 'goal', string.format('%.6f', goal)}) do
    line[#line + 1] = one
  end
end
redis.call('HSET', KEYS[1], unpack(line))
redis.call('PEXPIRE', KEYS[1], math.ceil((rest - now) * 1000) + 86400000)
"""
)

_REST = (
    _BUCKET
    + """
local b = open(KEYS[1], 0)
if b.rest >= tonumber(ARGV[1]) then return end
redis.call('HSET', KEYS[1], 'rest', string.format('%.6f', now + ARGV[1]), 'why', ARGV[2])
redis.call('PEXPIRE', KEYS[1], math.ceil(ARGV[1] * 1000) + 86400000)
"""
)

_BOOK = (
    _BUCKET
    + """
local b = open(KEYS[1], ARGV[1])
if b.rate <= 0 then return math.ceil(b.rest * 1000) end
local from = math.max(now + b.rest, b.booked)
redis.call('HSET', KEYS[1], 'booked', string.format('%.6f', from + ARGV[2] / b.rate))
redis.call('PEXPIRE', KEYS[1], math.ceil((from - now + ARGV[2] / b.rate) * 1000) + 86400000)
return math.ceil((from - now) * 1000)
"""
)

_LOOK = (
    _BUCKET
    + """
local answer = {}
for place, key in ipairs(KEYS) do
  local b = open(key, ARGV[place])
  local why = redis.call('HGET', key, 'why') or ''
  answer[place] = {tostring(b.rest), tostring(b.slow > 0 and b.rate or 0), why}
end
return answer
"""
)

# Who holds how many connections, each until a time: a process that dies gives its own back by keeping silent.
_LINKS = """
local now = tonumber(redis.call('TIME')[1])
local others, held = 0, redis.call('HGETALL', KEYS[1])
for place = 1, #held, 2 do
  local count, till = string.match(held[place + 1], '(%d+) (%d+)')
  if tonumber(till) < now then
    redis.call('HDEL', KEYS[1], held[place])
  elseif held[place] ~= ARGV[1] then
    others = others + count
  end
end
local given = math.max(0, math.min(tonumber(ARGV[2]), tonumber(ARGV[3]) - others))
if given > 0 then
  redis.call('HSET', KEYS[1], ARGV[1], given .. ' ' .. (now + 10))
else
  redis.call('HDEL', KEYS[1], ARGV[1])
end
redis.call('EXPIRE', KEYS[1], 60)
return given
"""


@dataclass(frozen=True, slots=True)
class Grant:
    """How many may begin now, or how long to wait before asking again."""

    counts: Mapping[str, int] = field(default_factory=dict)  #: by provider, those above 0
    waits: Mapping[str, float] = field(default_factory=dict)  #: by provider, seconds; those with nothing
    relay_wait: float = 0.0  #: seconds; above 0 nobody gets anything, because the relay itself waits


@dataclass(frozen=True, slots=True)
class Strain:
    """A relay or provider that does not go at its full pace, for a report."""

    kind: str  #: "relay" or "provider"
    name: str
    rest: float  #: seconds until anything begins again; 0 = it goes
    pace: float  #: mails a second it goes at after a refusal; 0 = its ordinary one
    why: str  #: a slug and reply code


class Throttle:
    """The pace of each relay and provider over all workers."""

    def __init__(
        self, client: "redis.Redis", relays: Mapping[str, float], providers: Mapping[str, float]
    ) -> None:
        """Take a client, and mails a second by relay and by provider (0 or none = as fast as it goes)."""
        self._client = client
        self._relays = relays
        self._providers = providers
        self._take, self._slow, self._rest, self._book, self._look, self._links = (
            client.register_script(text) for text in (_TAKE, _SLOW, _REST, _BOOK, _LOOK, _LINKS)
        )

    def take(self, relay: str, wants: Mapping[str, int]) -> Grant:
        """Ask for up to so many mails by provider, all over one relay."""
        keys = [_relay(relay), *map(_provider, wants)]
        args: list[float] = [self._relays[relay]]
        for provider, count in wants.items():
            args += [self._providers.get(provider, 0.0), count]
        relay_wait, *found = self._ask(self._take, keys, args)
        if relay_wait:
            return Grant(relay_wait=relay_wait / 1000)
        by_provider = list(zip(wants, found[::2], found[1::2], strict=True))
        return Grant(
            {provider: count for provider, count, _ in by_provider if count},
            {provider: max(wait, 1) / 1000 for provider, count, wait in by_provider if not count},
        )

    def slow_provider(self, provider: str, rest: float, why: str) -> None:
        """Let a provider rest, then go at half its pace, which grows back slowly."""
        self._ask(self._slow, [_provider(provider)], [self._providers.get(provider, 0.0), rest, why])

    def slow_relay(self, relay: str, rest: float, why: str) -> None:
        """Let a relay rest, then go at half its pace, which grows back slowly."""
        self._ask(self._slow, [_relay(relay)], [self._relays[relay], rest, why])

    def rest_provider(self, provider: str, seconds: float, why: str) -> None:
        """Let a provider rest for all workers; a longer rest that stands already is kept."""
        self._ask(self._rest, [_provider(provider)], [seconds, why])

    def rest_relay(self, relay: str, seconds: float, why: str) -> None:
        """Let a relay rest for all workers; a longer rest that stands already is kept."""
        self._ask(self._rest, [_relay(relay)], [seconds, why])

    def forgive(self, provider: str) -> None:
        """Take back what was learnt of a provider: it was the relay that could not keep up."""
        self._asked(
            lambda: self._client.hdel(_provider(provider), "rest", "slow", "since", "goal", "booked", "why")
        )

    def book(self, provider: str, count: int) -> float:
        """Promise a batch its turn at a provider's pace: seconds until there is room for `count` mails.

        A hint, so that batches that wait do not all come back at once; the bucket remains the law.
        """
        return (
            float(self._ask(self._book, [_provider(provider)], [self._providers.get(provider, 0.0), count]))
            / 1000
        )

    def resting(self) -> Mapping[str, float]:
        """Return the relays that rest, with the seconds that are left."""
        return {one.name: one.rest for one in self._strains(self._relays, {}) if one.rest > 0}

    def strains(self) -> Sequence[Strain]:
        """Return what does not go at its full pace."""
        return [one for one in self._strains(self._relays, self._providers) if one.rest > 0 or one.pace > 0]

    def links(self, relay: str, owner: str, want: int, most: int) -> int:
        """Return how many connections a process may hold to a relay, renewed by asking again within 10 s.

        Args:
            relay: its name.
            owner: the process.
            want: how many it would like; 0 gives them back.
            most: how many all processes may hold together.
        """
        return int(self._ask(self._links, [f"tocsin:links:{relay}"], [owner, want, most]))

    def _strains(self, relays: Mapping[str, float], providers: Mapping[str, float]) -> Sequence[Strain]:
        keys = [*map(_relay, relays), *map(_provider, providers)]
        names = [*(("relay", one) for one in relays), *(("provider", one) for one in providers)]
        found = self._ask(self._look, keys, [*relays.values(), *providers.values()])
        return [
            Strain(kind, name, float(rest), float(pace), bytes(why).decode("utf-8", "replace"))
            for (kind, name), (rest, pace, why) in zip(names, found, strict=True)
        ]

    def _ask(self, script: Any, keys: Sequence[str], args: Sequence[object]) -> Any:  # noqa: ANN401 - Redis answers anything
        return self._asked(lambda: script(keys=keys, args=args))

    @staticmethod
    def _asked(call: Callable[[], Any]) -> Any:  # noqa: ANN401 - likewise
        try:
            return call()
        except redis.RedisError as error:
            raise Unavailable("Redis does not answer, so the pace is not known") from error


def _relay(name: str) -> str:
    return f"tocsin:pace:relay:{name}"


def _provider(name: str) -> str:
    return f"tocsin:pace:provider:{name}"

"""The fleet's turns, one at a time: what leaves together."""

import socket
import ssl

from worker.post.connections import Connection
from worker.post.endpoints import Endpoint, Timeouts
from worker.post.errands import Errand
from worker.post.fleet import Fleet
from worker.post.parcels import Offer, Parcel

TIMEOUTS = Timeouts(connect=20, command=20, data=20, block=20, final=20, idle=20, drain=5)


def test_a_go_on_heard_while_others_are_supplied_takes_the_next_envelope_along() -> None:
    """A link that hears 354 in the middle of a turn gets its next parcel in that turn, not after its dot."""
    ours, theirs = socket.socketpair()
    fleet = Fleet(
        Endpoint("relay.example", 25, security="plain", timeouts=TIMEOUTS), ssl.create_default_context()
    )
    work = [Parcel(number, "b@example.org", f"p{number}@example.com", b"Body.\r\n") for number in (1, 2)]
    errand = Errand(lambda: work.pop(0), lambda _: None, lambda *_: None, 5)
    try:
        fleet._adopt(ours, Offer(pipelining=True))
        link: Connection = next(iter(fleet._links))
        fleet._advance(errand, [link])
        theirs.sendall(b"250 ok\r\n250 ok\r\n354 go\r\n")  # heard only after the link was asked in this turn
        fleet._advance(errand, [link])
        theirs.settimeout(20)
        written = theirs.recv(65536)
        assert b"Body.\r\n.\r\nMAIL FROM:" in written
    finally:
        fleet.close()
        theirs.close()

"""How far in the future a time may lie that the database's clock, or a host's, has written.

A clock that was wrong for a moment leaves times that a right clock does not reach for long: a lease, a back-off or a
poll a year away. A time further ahead than any that Headrace sets is ignored when it is read: the lease counts as
lapsed, the alert and the provider as due. That costs a repetition, which the unique key and the alert's key make
harmless.
"""

from __future__ import annotations

__all__ = ["LONGEST_WAIT", "furthest"]

LONGEST_WAIT = 86_400.0
"""Seconds: the longest that a server, a receiver or a back-off puts anything off (see
`headrace.reading.fetch.http`)."""
LEASES = 10
"""Another host may have a longer lease in its file than this one: so many times as long is believed."""
SHORTEST = 3_600.0  # seconds: nobody's lease is doubted below it


def furthest(lease: float, wait: float = 0.0) -> float:
    """Seconds from now up to which what is leased for `lease` seconds, or put off for `wait`, is believed to be."""
    return max(SHORTEST, LEASES * lease, 2 * wait)

"""What the tests of the flag share: flag services in memory, and what is decided."""

from __future__ import annotations

from collections.abc import Callable

from openfeature import api
from openfeature.provider.in_memory_provider import InMemoryFlag, InMemoryProvider

from headrace.options.choices import Mode
from headrace.options.flag import FLAG, Decision, decide

__all__ = [
    "chosen",
    "memory",
    "register",
    "serve",
]

# from SDK 0.10 on set_provider starts a thread; before, it waited, and there was no other
register: Callable[..., None] = getattr(api, "set_provider_and_wait", api.set_provider)


def memory(value: object) -> InMemoryProvider:
    return InMemoryProvider({FLAG: InMemoryFlag("it", {"it": value})})


def serve(value: object, domain: str | None = None) -> None:
    register(memory(value), domain)


def chosen(explicit: Mode | None = None, provider: str = "usgs", table: str = "quakes") -> Decision:
    return decide(explicit, provider, table)

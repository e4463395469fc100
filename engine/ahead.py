"""Work ahead of the consumer: the next item is made in a thread while the last one is used."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

__all__ = ["ahead"]

T = TypeVar("T")


def ahead(items: Iterator[T]) -> Iterator[T]:
    """The same items in the same order, one of them in the making. What making one raises is raised in its place.

    `items` runs in one other thread from its first item to its last, also when the consumer stops early.
    """
    with ThreadPoolExecutor(1, thread_name_prefix="headrace-prepare") as maker:
        coming = maker.submit(next, items, None)
        while (item := coming.result()) is not None:
            coming = maker.submit(next, items, None)
            yield item

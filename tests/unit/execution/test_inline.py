"""Sequential mode's workers: one thread speaks to the store, another gathers what it will be given next."""

from __future__ import annotations

import threading
from typing import Any

import pyarrow as pa
import pytest
from support.pools import commit_order

from headrace.execution import workers
from headrace.execution.orders import CommitOrder
from headrace.execution.tasks import Gathered, gather
from headrace.execution.workers import InlineWorkers
from headrace.storage.records import Committed, Counts

PATIENCE = 60.0


class Slow:
    """A store whose first commit ends when the second slice has been gathered."""

    def __init__(self, second_gathered: threading.Event) -> None:
        self.events = self  # the part of a store that commits
        self._second_gathered = second_gathered
        self.in_time: list[bool] = []
        self.seen: list[pa.RecordBatch] = []

    def commit(self, piece: Any) -> Committed:
        self.in_time.append(self._second_gathered.wait(PATIENCE))
        self.seen.append(piece.events)
        return Committed(1, Counts(read=1))


def test_the_next_slice_is_gathered_while_one_is_committed(monkeypatch: pytest.MonkeyPatch) -> None:
    second_gathered, ready = threading.Event(), pa.RecordBatch.from_pydict({"key": [7]})

    def told(order: CommitOrder) -> Gathered:
        if str(order) == str(commit_order(2)):
            second_gathered.set()
        return Gathered(ready, gather(order).spans)

    monkeypatch.setattr(workers, "gather", told)
    store = Slow(second_gathered)
    with InlineWorkers(store) as inline:  # type: ignore[arg-type]  # commits are all that is asked of it
        tasks = [inline.commit(commit_order(number)) for number in (1, 2)]
        assert [task.result().counts.read for task in tasks] == [1, 1]
    assert store.in_time == [True, True]
    assert store.seen == [ready, ready], "what was gathered ahead is what is committed"


def test_what_goes_wrong_in_gathering_is_raised_by_its_own_task(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(order: CommitOrder) -> Gathered:
        if str(order) == str(commit_order(1)):
            raise ValueError("no room")
        return gather(order)

    monkeypatch.setattr(workers, "gather", fails)
    done = threading.Event()
    done.set()
    with InlineWorkers(Slow(done)) as inline:  # type: ignore[arg-type]  # likewise
        first, second = (inline.commit(commit_order(number)) for number in (1, 2))
        with pytest.raises(ValueError, match="no room"):
            first.result()
        assert second.result().counts.read == 1

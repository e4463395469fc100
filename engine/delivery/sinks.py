"""Receivers of alerts without a network: lines on standard output, and a function of the user's."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any, TextIO

from headrace.delivery.dispatcher import Sent, message
from headrace.storage.outbox import StoredAlert

__all__ = ["FunctionSink", "LineSink"]


class LineSink:
    """Alerts as JSON lines in `stream`. They are delivered when the stream has taken them."""

    at_once = 500

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def send(self, alerts: Sequence[StoredAlert]) -> Sequence[Sent]:
        """Write a line each. Raises `BrokenPipeError` when nobody reads any more."""
        self._stream.writelines(f"{message(alert)}\n" for alert in alerts)
        self._stream.flush()
        return [Sent("taken")] * len(alerts)


class FunctionSink:
    """A function that gets each alert as a dict (`headrace.delivery.dispatcher.message`). If it raises an error, the
    alert is sent again later.

    Alerts are sent one at a time, so that a function that ends the process affects no other alert.
    """

    at_once = 1

    def __init__(self, function: Callable[[dict[str, Any]], object]) -> None:
        self._function = function

    def send(self, alerts: Sequence[StoredAlert]) -> Sequence[Sent]:
        """Call the function for each."""
        return [self._called(alert) for alert in alerts]

    def _called(self, alert: StoredAlert) -> Sent:
        try:
            self._function(json.loads(message(alert)))
        except Exception as error:  # noqa: BLE001 - whatever the user's code raises, the alert is not delivered
            return Sent("later", f"{type(error).__name__}: {error}")
        return Sent("taken")

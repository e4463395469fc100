"""What ``headrace alerts …`` does: open the outbox, act, print the result, return the exit code."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, get_args

from headrace.delivery.dispatcher import Delivered, Dispatcher, Sink
from headrace.delivery.sinks import FunctionSink, LineSink
from headrace.delivery.webhook import Webhook, signing_key
from headrace.errors import ConfigurationError, UsageError
from headrace.events.enrich import load_function
from headrace.loading.database import open_existing
from headrace.observability.command import Watching, watched
from headrace.options.load import database_url
from headrace.options.option import parse_seconds
from headrace.partitioning.identity import id_text
from headrace.runtime.interrupt import StopSignal, stopping
from headrace.runtime.reopening import Renewed
from headrace.storage.outbox import AlertState, PrunedState, StoredAlert
from headrace.storage.store import Store

__all__ = ["Receiver", "deliver", "discard", "listed", "prune", "retry"]

KEY_VARIABLE = "HEADRACE_WEBHOOK_KEY"
OPEN: tuple[AlertState, ...] = ("pending", "dead")


@dataclass(frozen=True, slots=True)
class Receiver:
    """Who gets the alerts: a function, a webhook, or else standard output. Times are the command line's text."""

    webhook: str | None = None
    function: str | None = None
    unsigned: bool = False
    timeout: str = "10s"
    at_once: int = 8

    @contextmanager
    def sink(self, lease: float) -> Iterator[Sink]:
        """The open sink. Raises `ConfigurationError` for what cannot be."""
        if self.function:
            sys.path.insert(0, "")  # as for --enrich: the user's module lies where the user stands
            yield FunctionSink(load_function(self.function))
        elif self.webhook:
            timeout = parse_seconds(self.timeout)
            if not 0 < timeout < lease:
                raise ConfigurationError(
                    "a POST must end before the lease does, or another dispatcher repeats it", hint="raise --lease"
                )
            with Webhook(self.webhook, self._key(), timeout=timeout, at_once=self.at_once) as webhook:
                yield webhook
        else:
            yield LineSink(sys.stdout)

    def _key(self) -> bytes | None:
        key = os.environ.get(KEY_VARIABLE)
        if not key and not self.unsigned:
            raise ConfigurationError(
                f"{KEY_VARIABLE} is not set, the key to sign with",
                hint="set it to a secret that the receiver knows, or use --unsigned",
            )
        return signing_key(key) if key and not self.unsigned else None


def deliver(
    receiver: Receiver,
    told: Mapping[str, Any],
    *,
    table: str | None,
    rules: Sequence[str],
    every: str | None,
    most_attempts: int,
    lease: str,
) -> int:
    """``headrace alerts deliver``."""
    seconds = parse_seconds(lease)
    pause = None if every is None else parse_seconds(every)
    if pause == 0:
        raise ConfigurationError("--every needs a pause", hint="for example --every 5s")
    with (
        watched(Watching.of(told)),
        _opened(database_url(told["to"]), forever=pause is not None) as store,
        receiver.sink(seconds) as sink,
        stopping(lambda: None) as stop,
    ):
        dispatcher = Dispatcher(store, sink, most_attempts=most_attempts, lease=seconds, table=table, rules=rules)
        done = dispatcher.drain(stop) if pause is None else dispatcher.run(pause, stop)
    # on standard output the alerts themselves are the result
    _say(told["output"], done, sys.stderr if isinstance(sink, LineSink) else sys.stdout)
    return _exit_code(stop, done)


@contextmanager
def _opened(url: str, *, forever: bool) -> Iterator[Store | Renewed[Store]]:
    """The database, open; for who delivers `forever` as often as the database fails."""
    if forever:
        with Renewed(lambda: open_existing(url)) as store:
            yield store
    else:
        with open_existing(url) as store:
            yield store


def listed(to: str | None, table: str | None, rules: Sequence[str], state: str | None, limit: int, output: str) -> int:
    """``headrace alerts list``."""
    with open_existing(database_url(to)) as store:
        alerts = store.outbox.find(states=_states(state), table=table, rules=rules, limit=limit)
    if output == "json":
        print(json.dumps({"alerts": [_as_object(alert) for alert in alerts]}, ensure_ascii=False))
    else:
        print("\n".join(map(_as_line, alerts)) or "no alerts")
    return 0


def retry(
    to: str | None, ids: Sequence[int], table: str | None, rules: Sequence[str], *, everything: bool, output: str
) -> int:
    """``headrace alerts retry``."""
    with open_existing(database_url(to)) as store:
        chosen = _chosen(store, ids, table, rules, ("dead",), named=("dead", "discarded"), everything=everything)
        changed = store.outbox.retry(chosen)
    print(json.dumps({"pending": changed}) if output == "json" else f"{changed:,} alerts pending again")
    return 0


def discard(
    to: str | None, ids: Sequence[int], table: str | None, rules: Sequence[str], *, everything: bool, output: str
) -> int:
    """``headrace alerts discard``."""
    with open_existing(database_url(to)) as store:
        chosen = _chosen(store, ids, table, rules, OPEN, named=OPEN, everything=everything)
        changed = store.outbox.discard(chosen)
    print(json.dumps({"discarded": changed}) if output == "json" else f"{changed:,} alerts discarded")
    return 0


def prune(
    to: str | None, older_than: str, table: str | None, rules: Sequence[str], *, discarded: bool, output: str
) -> int:
    """``headrace alerts prune``."""
    seconds = parse_seconds(older_than)
    states: Sequence[PrunedState] = ("delivered", "discarded") if discarded else ("delivered",)
    with open_existing(database_url(to)) as store:
        pruned = store.outbox.prune(seconds, states=states, table=table, rules=rules)
    print(json.dumps({"pruned": pruned}) if output == "json" else f"{pruned:,} alerts deleted")
    return 0


def _chosen(
    store: Store,
    ids: Sequence[int],
    table: str | None,
    rules: Sequence[str],
    states: Sequence[AlertState],
    *,
    named: Sequence[AlertState],
    everything: bool,
) -> list[int]:
    """The numbers of the alerts meant: those named, or those of a table or a rule in one of `states`."""
    if not (ids or table or rules or everything):
        raise UsageError("no alert was named", hint="give alert numbers, --rule, --table or --all")
    if not ids:
        return [alert.alert_id for alert in store.outbox.find(states=states, table=table, rules=rules)]
    numbers = {alert.alert_id for alert in store.outbox.find(ids=ids, states=named, table=table, rules=rules)}
    if missing := sorted(set(ids) - numbers):
        raise UsageError(
            f"no {' or '.join(named)} alert has the number {', '.join(map(str, missing))}",
            hint="`headrace alerts list --state all` shows every one with its state",
        )
    return sorted(numbers)


def _states(state: str | None) -> Sequence[AlertState]:
    return OPEN if state is None else [known for known in get_args(AlertState) if state in (known, "all")]


def _as_object(alert: StoredAlert) -> dict[str, object]:
    plain = {**asdict(alert), "event_id": id_text(alert.event_id), "payload": json.loads(alert.payload)}
    return {name: value.isoformat() if hasattr(value, "isoformat") else value for name, value in plain.items()}


def _as_line(alert: StoredAlert) -> str:
    tried = f"  ({alert.attempts} attempts, {alert.error})" if alert.error else ""
    what = f"{alert.table} {id_text(alert.event_id)}{' (a newer version)' if alert.revision else ''}"
    return f"{alert.alert_id:>8}  {alert.state:<9}  {alert.rule}: {what}{tried}"


def _say(output: str, done: Delivered, stream: object) -> None:
    print(json.dumps(done.to_dict()) if output == "json" else done.to_text(), file=stream)  # type: ignore[call-overload]


def _exit_code(stop: StopSignal, done: Delivered) -> int:
    return stop.exit_code if stop.is_set() else done.exit_code

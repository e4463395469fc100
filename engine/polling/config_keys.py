"""Every key that ``headrace.toml`` may have: the options of a load, and the keys that only this file knows.

headrace.options.declared ──┐
keys of this module ────────┴──► tables ──► the check of a file, in `headrace.polling.config_file`
                                      └──► docs/headrace.schema.json, for editors and other programs
"""

from __future__ import annotations

from headrace.options.declared import COMMAND, LOAD
from headrace.options.option import COUNT, FLAG, FUNCTION, SIZE, SPAN, TABLE, TEXTS_BY_NAME, Option
from headrace.reading.choices import SILENT_SECONDS

__all__ = ["ALERT", "FETCH", "PACE", "PARALLEL", "PROVIDER", "RUN", "SOURCES", "TOP"]


def _options(table: str) -> dict[str, Option]:
    """The options of a load or of a command that are keys of `table`."""
    return {name: option for name, option in {**LOAD, **COMMAND}.items() if option.file == table}


SOURCES: dict[str, Option] = {
    "url": Option(
        help="An address to fetch: http, https or s3.", example="https://feed.example/events.csv", secret=True
    ),
    "path": Option(help="A file, a folder or a pattern, relative to the folder of this file.", example="drop/*.csv"),
    "function": Option(
        help="Your own source: it is called without arguments and yields dicts or Arrow.",
        kind=FUNCTION,
        example="feeds:buoys",
    ),
}
FETCH: dict[str, Option] = {
    "headers": Option(
        help="Headers that are sent with each request.",
        kind=TEXTS_BY_NAME,
        default={},
        example={"Authorization": "Bearer ${TOKEN}"},
        secret=True,
    ),
    "timeout": Option(
        help="A download fails when no byte arrives for this long.", kind=SPAN, default=f"{SILENT_SECONDS}s"
    ),
    "deadline": Option(help="A download fails when it is not complete after this long.", kind=SPAN, default="10m"),
    "max_size": Option(help="A larger download fails.", kind=SIZE, default="256MiB"),
}
PACE: dict[str, Option] = {
    "interval": Option(help="The time between two polls.", kind=SPAN, default="5m"),
    "slowest": Option(
        help="The longest time between two polls of a provider that is empty or fails.", kind=SPAN, default="6h"
    ),
}
PROVIDER: dict[str, Option] = {
    **SOURCES,
    **FETCH,
    "active": Option(help="Whether the provider is polled at all.", kind=FLAG, default=True),
    **PACE,
    **_options("providers"),
}
ALERT: dict[str, Option] = {
    "name": Option(help="The name of the rule.", example="large"),
    "where": Option(help="An SQL predicate over new events.", example="frp > 500"),
    "function": Option(help="Your function from a record batch to a mask.", kind=FUNCTION, example="rules:large"),
    "revisions": Option(
        help='Whether newer versions raise alerts of their own; needs revisions = "update".', kind=FLAG, example=True
    ),
}
RUN: dict[str, Option] = {
    "every": Option(
        help="The time between the beginnings of two rounds.", kind=SPAN, otherwise="one round", example="5m"
    ),
    "downloads": Option(help="How many downloads may be in progress at a time.", kind=COUNT, default=4),
    "lease": Option(
        help="A host's claim on a provider lapses after this long without a sign of life.", kind=SPAN, default="60s"
    ),
    "keep_alerts": Option(
        help="Delivered alerts are deleted after this long.", kind=SPAN, otherwise="never deleted", example="90d"
    ),
    **_options("run"),
}
PARALLEL = _options("parallel")
TOP: dict[str, Option] = {
    "database": Option(help=LOAD["to"].help, example="${HEADRACE_DATABASE_URL}", secret=True),
    "run": Option(help="How headrace run works.", kind=TABLE, example={"every": "5m"}),
    "parallel": Option(help="How parallel mode works, once the flag turns it on.", kind=TABLE, example={"workers": 2}),
    "defaults": Option(
        help="Keys that hold for every provider that does not have them itself.", kind=TABLE, example={"interval": "5m"}
    ),
    "providers": Option(help="A table for each provider: [providers.NAME].", kind=TABLE, example={}),
}

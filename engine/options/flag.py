"""The feature flag that decides whether a run is parallel: ``ENABLE_PARALLEL_CHUNK_PROCESSING``.

An explicit mode beats a flag service (OpenFeature), which beats the environment, which beats the default ``off``.

| value | effect |
|---|---|
| ``off``, ``false``, ``0``, ``no`` | sequential |
| ``shadow`` | sequential, and the parallel way runs beside it for comparison |
| ``canary``, ``canary:10``, ``canary:2.5`` | parallel for that percentage of the providers (10 unless said) |
| ``on``, ``true``, ``1``, ``yes`` | parallel |

`decide` keeps nothing between two calls, so a run that asks again at every chunk follows the flag as it moves.
"""

from __future__ import annotations

import logging
import os
import re
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

from xxhash import xxh3_64_intdigest

from headrace.errors import ConfigurationError
from headrace.options.choices import Mode

if TYPE_CHECKING:
    from openfeature.flag_evaluation import FlagEvaluationDetails

__all__ = ["FLAG", "Decision", "DecisionSource", "decide", "in_canary"]

DecisionSource = Literal["argument", "flag service", "environment", "default"]

FLAG = "ENABLE_PARALLEL_CHUNK_PROCESSING"

_DOMAIN = "headrace"
_SHADOW = "shadow"
# The percentage of the providers that a value makes parallel.
_SHARES = {
    **dict.fromkeys(("off", "false", "0", "no", _SHADOW), 0.0),
    "canary": 10.0,
    **dict.fromkeys(("on", "true", "1", "yes"), 100.0),
}
_CANARY = re.compile(r"canary:(\d+(?:\.\d+)?)", re.ASCII)

_log = logging.getLogger("headrace.flags")
# Error codes of the flag service's present outage that the log has: one warning each, not one a chunk.
_reported: set[str] = set()


@dataclass(frozen=True, slots=True)
class Decision:
    """How to process, and why: `source` is who decided, `flag` the text it decided by, as found (``canary:10``)."""

    mode: Mode
    shadow: bool
    source: DecisionSource
    flag: str


def decide(explicit: Mode | None, provider: str, table: str) -> Decision:
    """The mode for one provider's events on their way to one table; `explicit` is ``--mode`` or ``mode=``.

    Raises `ConfigurationError` for a value that means nothing, wherever it came from.
    """
    if explicit is not None:
        return _argument(explicit)
    text, source = _find(provider, table)
    parallel = in_canary(provider, _share(text, source))
    return Decision("parallel" if parallel else "sequential", text.lower() == _SHADOW, source, text)


def in_canary(provider: str, share: float) -> bool:
    """Whether `provider` is among the `share` percent: ``xxh3_64(provider as UTF-8) / 2**64 < share / 100``.

    The same providers on every machine and in every run, and a larger share only adds to them.
    """
    # the formula without its divisions: in floats the largest hashes round to 1.0 and would miss a share of 100
    return xxh3_64_intdigest(provider.encode()) * 100 < share * 2**64


def _argument(explicit: Mode) -> Decision:
    if explicit not in get_args(Mode):  # a caller without a type checker
        raise ConfigurationError(f"there is no mode {explicit!r}", hint=f"one of {', '.join(get_args(Mode))}")
    return Decision(explicit, shadow=False, source="argument", flag=explicit)


def _find(provider: str, table: str) -> tuple[str, DecisionSource]:
    """The flag's text and who said it. Blank text counts as no answer."""
    if text := _service(provider, table).strip():
        return text, "flag service"
    if text := os.environ.get(FLAG, "").strip():
        return text, "environment"
    return "off", "default"


def _share(text: str, source: DecisionSource) -> float:
    """The percentage of the providers that `text` makes parallel."""
    known = _SHARES.get(text.lower())
    if known is not None:
        return known
    match = _CANARY.fullmatch(text.lower())
    if match is None or float(match[1]) > 100:  # noqa: PLR2004 - percent
        raise ConfigurationError(
            f"{text!r} is not a value of this flag",
            where=f"{FLAG} ({source})",
            hint="off, shadow, canary, canary:2.5 (percent of the providers, 0 to 100) or on",
        )
    return float(match[1])


def _service(provider: str, table: str) -> str:
    """What the flag service says, ``""`` if there is none or it has no answer."""
    # Services register inside this process: while nobody has imported the SDK there can be none, and to import it
    # just to find that out would cost every start some 40 ms.
    if "openfeature" not in sys.modules:
        return ""
    try:
        details = _ask(provider, table)
    except ImportError:  # another package of that name space was imported
        _report("NO_SDK", "pip install 'headrace[openfeature]'")
        return ""
    if details.error_code is not None:
        _report(details.error_code.name, details.error_message)
        return ""
    _reported.clear()
    if isinstance(details.value, bool):
        return "" if details.reason == "DISABLED" else str(details.value).lower()
    return details.value


def _ask(provider: str, table: str) -> FlagEvaluationDetails[str] | FlagEvaluationDetails[bool]:
    """The service's answer. Its value is ``""``, our default, where the service fell back on what it was handed.

    That default, and not the reason, tells an answer from none: a service that answers with its own pre-configured
    value says ``DEFAULT`` just as the SDK's no-op provider does.
    """
    from openfeature import api  # noqa: PLC0415 - imported when there can be a service, see _service
    from openfeature.evaluation_context import EvaluationContext  # noqa: PLC0415 - likewise

    client = api.get_client(_DOMAIN)
    context = EvaluationContext(targeting_key=provider, attributes={"provider": provider, "table": table})
    details = client.get_string_details(FLAG, "", context)
    if details.error_code is not None and details.error_code.name == "TYPE_MISMATCH":
        return client.get_boolean_details(FLAG, False, context)
    return details


def _report(code: str, message: str | None) -> None:
    """Say once an outage that the service is passed over. That it does not know the flag is no failure."""
    if code == "FLAG_NOT_FOUND" or code in _reported:
        return
    _reported.add(code)
    _log.warning("the flag service did not answer for %s (%s: %s): the environment decides", FLAG, code, message)

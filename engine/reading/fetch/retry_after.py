"""The header ``Retry-After``: the wait that a server asks for, in seconds or as a date."""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

__all__ = ["retry_after"]


def retry_after(text: str | None, most: float) -> float:
    """Seconds from now, at most `most`; 0 if `text` is neither a number nor a date. urllib3's own parser accepts at
    most six hours.
    """
    try:
        moment = parsedate_to_datetime(text or "")
    except ValueError:
        said = (text or "").strip()
        return min(float(said), most) if said.isdecimal() else 0.0
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return min(max((aware - datetime.now(UTC)).total_seconds(), 0.0), most)

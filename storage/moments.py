"""Times and dates as numbers and as text, whatever the year: databases hold more of them than Python's calendar does.

    '2024-01-01 07:00:00-05'   PostgreSQL, in whatever zone the session has  ─┐
    '0250-10-15 19:33:20 BC'                                                  ├─► microseconds since 1970 UTC ─► text
    '-0249-10-15 19:33:20.000000'   SQLite, as Arrow writes it                ─┘

The text is ISO 8601 with as many digits as the year needs: the year 250 BC is ``-0249``. A time without a zone is UTC.
``infinity`` and ``-infinity`` stand behind and before every time.
"""

from __future__ import annotations

import re

__all__ = ["BEFORE_ALL", "BEHIND_ALL", "date_text", "days_of", "moment_text", "moment_us", "read_date", "read_moment"]

BEHIND_ALL = 2**63 - 1
BEFORE_ALL = -(2**63)
_ENDLESS = {"infinity": BEHIND_ALL, "-infinity": BEFORE_ALL}
_US_PER_SECOND = 1_000_000
_US_PER_DAY = 86_400 * _US_PER_SECOND
_MOMENT = re.compile(
    r"(?P<year>[+-]?\d{4,7})-(?P<month>\d\d)-(?P<day>\d\d)"
    r"(?:[ T](?P<hour>\d\d):(?P<minute>\d\d)(?::(?P<second>\d\d)(?:\.(?P<fraction>\d{1,6}))?)?)?"
    r" ?(?P<zone>Z|[+-]\d\d(?::?\d\d(?::?\d\d)?)?)?(?P<era> BC)?"
)
_DAYS_BEFORE_1970 = 719_468  # from 0000-03-01, where the leap day is a year's last
_DAYS_IN_400_YEARS = 146_097


def moment_us(text: str) -> int | None:
    """The microseconds since 1970 UTC of a time as a database writes it, ``None`` for what is none."""
    if text in _ENDLESS:
        return _ENDLESS[text]
    found = _MOMENT.fullmatch(text)
    days = None if found is None else _days(found)
    if found is None or days is None:
        return None
    hour, minute, second = (int(found[name] or 0) for name in ("hour", "minute", "second"))
    seconds = (hour * 60 + minute) * 60 + second - _offset(found["zone"])
    return days * _US_PER_DAY + seconds * _US_PER_SECOND + int((found["fraction"] or "").ljust(6, "0"))


def days_of(text: str) -> int | None:
    """The days since 1970 of a date as a database writes it, ``None`` for what is none."""
    if text in _ENDLESS:
        return _ENDLESS[text]
    found = _MOMENT.fullmatch(text)
    return None if found is None or found["hour"] or found["zone"] else _days(found)


def moment_text(us: int) -> str:
    """The time as text, in UTC."""
    if us in (BEFORE_ALL, BEHIND_ALL):
        return "infinity" if us > 0 else "-infinity"
    days, rest = divmod(us, _US_PER_DAY)
    seconds, micros = divmod(rest, _US_PER_SECOND)
    fraction = f".{micros:06}" if micros else ""
    clock = f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"
    return f"{date_text(days)}T{clock}{fraction}+00:00"


def date_text(days: int) -> str:
    """The date as text."""
    if days in (BEFORE_ALL, BEHIND_ALL):
        return "infinity" if days > 0 else "-infinity"
    # the way from days to a date by eras of 400 years, as in the C++ library's calendar
    era, day_of_era = divmod(days + _DAYS_BEFORE_1970, _DAYS_IN_400_YEARS)
    year_of_era = (day_of_era - day_of_era // 1_460 + day_of_era // 36_524 - day_of_era // 146_096) // 365
    day_of_year = day_of_era - (365 * year_of_era + year_of_era // 4 - year_of_era // 100)
    month_from_march = (5 * day_of_year + 2) // 153
    day = day_of_year - (153 * month_from_march + 2) // 5 + 1
    month = month_from_march + 3 if month_from_march < 10 else month_from_march - 9  # noqa: PLR2004 - January is the tenth
    year = year_of_era + era * 400 + (month <= 2)  # noqa: PLR2004 - January and February
    return f"{'-' if year < 0 else ''}{abs(year):04}-{month:02}-{day:02}"


def read_moment(text: str) -> str:
    """A time as a database writes it in the form of `moment_text`; anything else as it is."""
    us = moment_us(text)
    return text if us is None else moment_text(us)


def read_date(text: str) -> str:
    """A date as a database writes it in the form of `date_text`; anything else as it is."""
    days = days_of(text)
    return text if days is None else date_text(days)


def _days(found: re.Match[str]) -> int | None:
    """Days since 1970; ``None`` where there is no such day."""
    year, month, day = int(found["year"]), int(found["month"]), int(found["day"])
    if found["era"]:
        year = 1 - year
    days = _days_since_1970(year, month, day) if 1 <= month <= 12 and 1 <= day <= 31 else None  # noqa: PLR2004
    written = found["month"], found["day"]
    return days if days is not None and tuple(date_text(days).rsplit("-", 2)[1:]) == written else None


def _days_since_1970(year: int, month: int, day: int) -> int:
    year -= month <= 2  # noqa: PLR2004 - January and February end the year before
    era, year_of_era = divmod(year, 400)
    day_of_year = (153 * ((month + 9) % 12) + 2) // 5 + day - 1
    day_of_era = year_of_era * 365 + year_of_era // 4 - year_of_era // 100 + day_of_year
    return era * _DAYS_IN_400_YEARS + day_of_era - _DAYS_BEFORE_1970


def _offset(zone: str | None) -> int:
    """Seconds east of UTC."""
    if zone is None or zone == "Z":
        return 0
    digits = zone[1:].replace(":", "").ljust(6, "0")
    seconds = int(digits[:2]) * 3600 + int(digits[2:4]) * 60 + int(digits[4:])
    return -seconds if zone[0] == "-" else seconds

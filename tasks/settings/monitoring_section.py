"""The monitor, retrain and schedule sections of params.yaml: what is checked, when it is trained again, what runs by
itself. Also spans of time such as 12h, 7d, 1mo.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, available_timezones

from cronsim import CronSim, CronSimError
from pydantic import AfterValidator, BeforeValidator, Field, field_validator

from windvane.tasks.settings.data_section import SettingsSection

_DURATION_UNITS = {"h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}


def keep_if_parsed(parse: Callable[[Any], object]) -> Callable[[Any], Any]:
    """A check for pydantic: the value as written, once `parse` has read it without a ValueError."""

    def check(value: Any) -> Any:
        if value is not None:
            parse(value)
        return value

    return check


def parse_duration(text: str, *, none: bool = False) -> timedelta:
    """The span that `text` names. Raises ValueError for anything else; for none at all (0d) unless `none` allows it."""
    found = re.fullmatch(r"(\d{1,6})([hdw])", text.strip())
    if found is None or (int(found[1]) == 0 and not none):
        raise ValueError(f"{text!r} is no span of time. Write hours, days or weeks, such as 12h, 365d or 52w")
    return int(found[1]) * _DURATION_UNITS[found[2]]


def parse_months(text: str) -> int | None:
    """How many calendar months `text` names (1mo, 3mo), or None: they have no one length."""
    found = re.fullmatch(r"([1-9]\d{0,2})mo", text.strip())
    return None if found is None else int(found[1])


def parse_delay(text: str) -> timedelta:
    """As parse_duration, of a span that may be none at all (0d)."""
    return parse_duration(text, none=True)


DurationText = Annotated[str, AfterValidator(keep_if_parsed(parse_duration))]
DelayText = Annotated[str, AfterValidator(keep_if_parsed(parse_delay))]
PolicyName = Literal["staleness", "regret", "performance", "drift", "schedule", "never"]
_ENV = re.compile(r"\$\{\w+\}")


@dataclass(frozen=True)
class WindowLength:
    """How production is cut into windows: so many `rows`, or so many calendar `months`, or a `span`. One of the three."""

    rows: int | None = None
    months: int | None = None
    span: timedelta | None = None


@dataclass(frozen=True)
class LapBudget:
    """At most so many laps within any `span`."""

    laps: int
    span: timedelta


def parse_window_length(value: object) -> WindowLength:
    """`7d`, `24h`, `1mo`, or a number of rows. Raises ValueError."""
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise ValueError("is no window. Write a span such as 24h, 7d or 1mo, or a number of rows")
    text = str(value).strip()
    if text.isdecimal():
        if int(text) < 1:
            raise ValueError("is no window. Write a number of rows, at least 1, or a span such as 7d or 1mo")
        return WindowLength(rows=int(text))
    if (months := parse_months(text)) is not None:
        return WindowLength(months=months)
    try:
        return WindowLength(span=parse_duration(text))
    except ValueError:
        raise ValueError(f"{text!r} is no window. Write a span such as 24h, 7d or 1mo, or a number of rows") from None


def parse_lap_budget(text: object) -> LapBudget:
    """`4/30d`: four laps in thirty days. Raises ValueError."""
    found = re.fullmatch(r"(\d{1,4})/(\w+)", str(text).strip())
    try:
        if found is not None:
            return LapBudget(int(found[1]), parse_duration(found[2]))
    except ValueError:
        pass
    raise ValueError(
        f"{str(text)!r} is no budget. Write how many laps in which span, such as 4/30d, or null for no limit"
    )


class MonitorSettings(SettingsSection):
    """What a check of production covers, how seldom it may cry wolf, and who is notified."""

    window: Annotated[str | int, BeforeValidator(keep_if_parsed(parse_window_length))] = "1mo"
    false_alarms: float = Field(0.01, gt=0, le=0.2)
    interval: float = Field(0.9, gt=0, lt=1)
    label_delay: DelayText = "0d"
    webhook: str | None = None

    @field_validator("webhook")
    @classmethod
    def _address(cls, value: str | None) -> str | None:
        # With such an address one may write to the channel behind it; on this machine it is no secret.
        if value is None or _ENV.search(value):
            return value
        place = urlsplit(value)
        if not place.scheme or not place.hostname:
            raise ValueError("is no address. Write ${NAME}, and export NAME with the address of the webhook")
        if place.hostname not in ("localhost", "127.0.0.1", "::1"):
            raise ValueError("holds an address that is a secret. Write ${NAME}, and export NAME in the environment")
        return value

    @property
    def cut(self) -> WindowLength:
        """`window`, read."""
        return parse_window_length(self.window)

    @property
    def delay(self) -> timedelta:
        """`label_delay`, read: windows younger than that count as unlabelled."""
        return parse_delay(self.label_delay)


def parse_history(value: str) -> tuple[str, int | None]:
    """The word of `retrain.history` and its windows, None for `expanding`. Raises ValueError."""
    found = re.fullmatch(r"expanding|(trailing|combined):([1-9]\d{0,3})", value)
    if found is None:
        raise ValueError(
            f"{value!r} is unknown. Write expanding (all rows), trailing:N (those of the last N windows) or "
            "combined:N (the mean of both)"
        )
    return (value, None) if found[1] is None else (found[1], int(found[2]))


class RetrainSettings(SettingsSection):
    """When a lap is worth it, what it learns from, and how often there may be one."""

    policy: PolicyName = "regret"
    cost: float = Field(0.5, ge=0)
    history: Annotated[str, AfterValidator(keep_if_parsed(parse_history))] = "expanding"
    cooldown: DelayText = "1d"
    budget: Annotated[str | None, BeforeValidator(keep_if_parsed(parse_lap_budget))] = "4/30d"
    probation: int = Field(2, ge=0, le=100)

    @property
    def trailing(self) -> int | None:
        """Windows whose rows alone are trained on; None: all rows are."""
        word, windows = parse_history(self.history)
        return windows if word == "trailing" else None

    @property
    def combined(self) -> int | None:
        """Windows whose rows train a second model; None: there is none."""
        word, windows = parse_history(self.history)
        return windows if word == "combined" else None

    @property
    def rest(self) -> timedelta:
        """`cooldown`, read."""
        return parse_delay(self.cooldown)

    @property
    def limit(self) -> LapBudget | None:
        """`budget`, read."""
        return None if self.budget is None else parse_lap_budget(self.budget)


def find_next_tick(cron: str, after: datetime, zone: tzinfo) -> datetime:
    """When a cron expression ticks next by a zone's clocks, with that zone: later than `after`, an aware moment."""
    return next(CronSim(cron, after.astimezone(zone)))


def _suggest_zones(given: str) -> str:
    """IANA names like the one that was given: of the same city, or spelt nearly so."""
    names = {name.casefold(): name for name in sorted(available_timezones())}
    word = given.strip().replace(" ", "_").casefold()
    near = [name for key, name in names.items() if word and word in (key, key.rpartition("/")[2])]
    near = near or [names[key] for key in difflib.get_close_matches(word, names, n=3, cutoff=0.8)]
    cities = {key.rpartition("/")[2]: name for key, name in names.items()}
    near = near or [cities[key] for key in difflib.get_close_matches(word.rpartition("/")[2], cities, n=3, cutoff=0.7)]
    return f"Did you mean {' or '.join(near[:3])}?" if near else "Write an IANA name, such as Europe/Berlin or UTC"


class ScheduleSettings(SettingsSection):
    """What `windvane up` starts by itself, as cron expressions by the clocks of `timezone`; null: not by itself."""

    train: str | None = None
    monitor: str | None = "0 * * * *"
    timezone: str = "UTC"

    @property
    def zone(self) -> ZoneInfo:
        """`timezone`, read."""
        return ZoneInfo(self.timezone)

    @field_validator("timezone")
    @classmethod
    def _known_zone(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (KeyError, ValueError, OSError):  # a folder of the database, such as Europe, is an OSError
            raise ValueError(f"{value!r} is no time zone. {_suggest_zones(value)}") from None
        return value

    @field_validator("train", "monitor")
    @classmethod
    def _cron(cls, value: str | None) -> str | None:
        if value is None:
            return value
        try:
            if len(value.split()) != 5:
                raise CronSimError("it needs five fields")
            next(CronSim(value, datetime(2024, 1, 1, tzinfo=UTC)))
        except (CronSimError, StopIteration) as e:
            raise ValueError(
                f"{value!r} is no cron expression ({e or 'it never comes'}). Write minute, hour, day, month, weekday, such as 0 * * * *"
            ) from None
        return value

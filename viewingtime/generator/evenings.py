"""What one profile watches, day after day: made up, but as the rules would have booked it.

Pure: no ORM, no clock; everything that is left to chance comes from the `rng`. Within a day
instants are whole microseconds since its start, amounts of time whole microseconds.
"""

import random
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from functools import lru_cache
from itertools import accumulate, pairwise
from typing import Final, NamedTuple

from parentalcontrols.viewing_day import ViewingDay, is_weekend
from viewingtime.ledger import TAIL, Viewer
from viewingtime.models import GRANT_MINUTES

_MICROSECOND: Final = timedelta(microseconds=1)
_SECOND: Final = 1_000_000
_MINUTE: Final = 60 * _SECOND
_HOUR: Final = 60 * _MINUTE
_TAIL: Final = TAIL // _MICROSECOND

#: When people watch, in hours of the local clock.
_KIDS_HOURS: Final = {False: ((6.5, 8.0), (15.0, 20.0)), True: ((7.5, 12.0), (14.0, 20.5))}
_ADULT_HOURS: Final = {False: ((12.0, 13.0), (19.5, 23.5)), True: ((9.0, 12.0), (15.0, 23.5))}
#: The most of such a stretch that is watched.
_FILLED: Final = 0.85

_DAY_OFF: Final = 0.12
_WEEKEND_WEIGHT: Final = 1.6
#: Chances of a day with a limit: that it is used up, lifted, or extended before it begins.
_USED_UP: Final = 0.25
_LIFTED: Final = 0.03
_EXTENDED: Final = 0.04
_EXTENSIONS: Final = (*GRANT_MINUTES[:2], *GRANT_MINUTES)
_FROM_AFAR: Final = 0.6
#: Chances of a session: that the next one follows at once, that the player vanishes.
_FOLLOWED: Final = 0.15
_VANISHES: Final = 0.12
#: Of a long one: that a pause in it is longer than what counts of one.
_LONG_PAUSE: Final = 0.2
_LONG: Final = 20 * _MINUTE
_OVER_THE_RESET: Final = 0.3


class Film(NamedTuple):
    """A title's id and whether it is educational."""

    id: str
    is_educational: bool


class Catalogue(NamedTuple):
    """What there is to watch, at least one title, and which of it is educational, maybe none."""

    films: Sequence[Film]
    educational: Sequence[Film]

    @classmethod
    def of(cls, films: Sequence[Film]) -> "Catalogue":
        """The catalogue of these titles."""
        return cls(films, [film for film in films if film.is_educational])


class Device(NamedTuple):
    """A player of the household."""

    id: str
    type: str


class Seen(NamedTuple):
    """One session, closed."""

    film: Film
    device: Device
    started: int
    last_beat: int
    ended: int
    reason: str
    total: int
    is_exempt: bool


class Given(NamedTuple):
    """Extra time from a parent; `minutes` None = unlimited."""

    minutes: int | None
    at: int
    is_remote: bool


@dataclass(frozen=True, slots=True)
class Habits:
    """Under which rules somebody watches, what, and where; at least one title and device."""

    viewer: Viewer
    films: Sequence[Film]
    devices: Sequence[Device]

    @property
    def exempt_films(self) -> list[Film]:
        """What may be watched when the time is used up."""
        return [film for film in self.films if self.viewer.exempts(film.is_educational)]


@dataclass(slots=True)
class Day:
    """What became of a viewing day: its sessions in order, and its balance."""

    day: ViewingDay
    limit: int | None
    used: int = 0
    educational: int = 0
    granted: int = 0
    is_unlimited: bool = False
    sessions: list[Seen] = field(default_factory=list)
    grants: list[Given] = field(default_factory=list)

    @property
    def remaining(self) -> int | None:
        """What is left; None = unlimited."""
        if self.limit is None or self.is_unlimited:
            return None
        return self.limit + self.granted - self.used


def days_of(
    habits: Habits, *, dates: Sequence[date], sessions: int, rng: random.Random
) -> Iterator[Day]:
    """The days on which somebody watched, with so many sessions in all.

    `dates` are consecutive viewing days that are over; days off are left out.
    """
    counts = _spread(sessions, dates, rng)
    goes_on: Seen | None = None
    for place, (day, count) in enumerate(zip(dates, counts, strict=True)):
        if not count:
            continue
        is_followed = place + 1 < len(counts) and counts[place + 1] > 0
        made = _Making(habits, habits.viewer.schedule.bounds(day), count, rng).made(
            goes_on=goes_on, runs_over=is_followed and rng.random() < _OVER_THE_RESET
        )
        goes_on = made.sessions[-1] if made.sessions[-1].reason == "reset" else None
        yield made


def _spread(sessions: int, dates: Sequence[date], rng: random.Random) -> list[int]:
    """How many sessions each day has: none on days off, more at weekends, all of them in sum."""
    weights = [
        0.0
        if rng.random() < _DAY_OFF
        else (0.6 + 0.8 * rng.random()) * (_WEEKEND_WEIGHT if is_weekend(day) else 1.0)
        for day in dates
    ]
    if not any(weights):
        weights[-1] = 1.0
    sums = list(accumulate(weights))
    ends = [round(sessions * part / sums[-1]) for part in sums]
    return [end - before for before, end in pairwise([0, *ends])]


@lru_cache(maxsize=128)
def _hours(reset_hour: int, is_kids: bool, weekend: bool) -> tuple[tuple[int, int], ...]:
    """When people watch, since the start of a day of 24 hours, in order."""
    found = []
    for first, last in (_KIDS_HOURS if is_kids else _ADULT_HOURS)[weekend]:
        start = (first - reset_hour) % 24
        end = start + last - first
        if end > 24:
            found += [(0.0, end - 24), (start, 24.0)]
        else:
            found.append((start, end))
    return tuple((round(start * _HOUR), round(end * _HOUR)) for start, end in sorted(found))


def _windows(viewer: Viewer, day: ViewingDay, length: int) -> list[tuple[int, int]]:
    """When people watch in that day, which daylight saving may have made shorter."""
    hours = _hours(viewer.schedule.segments[-1].reset_hour, viewer.is_kids, is_weekend(day.date))
    return [(start, min(end, length)) for start, end in hours if start < length] or [(0, length)]


class _Placed(NamedTuple):
    """Where a session lies: `room` is what is free behind it."""

    start: int
    length: int
    room: int
    is_followed: bool


class _Making:
    """A day in the making: how long everything is, where it lies, and what is booked for it."""

    def __init__(self, habits: Habits, day: ViewingDay, count: int, rng: random.Random) -> None:
        self.habits = habits
        self.viewer = habits.viewer
        self.rng = rng
        self.length = (day.ends_at - day.starts_at) // _MICROSECOND
        self.windows = _windows(self.viewer, day, self.length)
        limit = self.viewer.limit(day.date)
        self.day = Day(day, None if limit is None else limit // _MICROSECOND)
        size, chance = len(habits.films), rng.random
        self.films = [habits.films[int(chance() * size)] for _ in range(count)]

    def made(self, *, goes_on: Seen | None, runs_over: bool) -> Day:
        """The day, whose first session may go on from the day before, the last into the next."""
        starts_at_once = goes_on is not None
        if goes_on is not None:
            self.films[0] = goes_on.film
            # One session does not last the whole day.
            runs_over = runs_over and len(self.films) > 1
        runs_over = runs_over and self.windows[-1][1] == self.length
        self._grant_before()
        placed = self._placed(self._lengths(), starts_at_once, runs_over)
        if self.day.grants:
            given = self.day.grants[0]
            at = max(0, placed[0].start - int(self.rng.random() * 10 * _MINUTE))
            self.day.grants[0] = given._replace(at=at)
        self._watch(placed, goes_on.device if goes_on is not None else None, runs_over)
        return self.day

    def _grant_before(self) -> None:
        """Lifts or extends the limit on some days."""
        day, chance = self.day, self.rng.random()
        if day.limit is None or chance >= _LIFTED + _EXTENDED:
            return
        if chance < _LIFTED:
            day.is_unlimited = True
            day.grants.append(Given(None, 0, self.rng.random() < _FROM_AFAR))
        else:
            self._extend(0, 0)

    def _extend(self, overrun: int, at: int) -> None:
        """A grant: an overrun is forgiven first."""
        minutes = _EXTENSIONS[int(self.rng.random() * len(_EXTENSIONS))]
        self.day.granted += overrun + minutes * _MINUTE
        self.day.grants.append(Given(minutes, at, self.rng.random() < _FROM_AFAR))

    def _lengths(self) -> list[int]:
        """How long the sessions would last; what counts fits into the day's time, or uses it up."""
        chance, exempts = self.rng.random, self.viewer.exempts
        lengths = [(4 + 50 * chance() * chance()) * _MINUTE for _ in self.films]
        exempt = [exempts(film.is_educational) for film in self.films]
        learning = sum(length for length, free in zip(lengths, exempt, strict=True) if free)
        counted = sum(lengths) - learning
        time = self.day.remaining
        if time is None:
            share = min(1.0, 4 * _HOUR / counted) if counted else 1.0
        elif chance() < _USED_UP and counted > time / 2:
            share = 1.02 * time / counted
        else:
            share = min(1.0, time * (0.3 + 0.65 * chance()) / counted) if counted else 1.0
        free_share = min(1.0, 2 * _HOUR / learning) if learning else 1.0
        return [
            max(1, int(length * (free_share if free else share)))
            for length, free in zip(lengths, exempt, strict=True)
        ]

    def _placed(
        self, lengths: Sequence[int], starts_at_once: bool, runs_over: bool
    ) -> list[_Placed]:
        """The sessions one after the other, within the hours in which people watch."""
        chance = self.rng.random
        edges = list(accumulate(end - start for start, end in self.windows))
        spots = sorted(chance() * edges[-1] for _ in lengths)
        if starts_at_once:
            spots[0] = 0.0
        if runs_over:
            spots[-1] = edges[-1]
        placed: list[_Placed] = []
        first = 0
        for (start, end), edge in zip(self.windows, edges, strict=True):
            last = len(spots) if edge == edges[-1] else bisect_left(spots, edge)
            here = lengths[first:last]
            if not here:
                continue
            most = _FILLED * (end - start)
            if sum(here) > most:
                share = most / sum(here)
                here = [max(1, int(length * share)) for length in here]
            follows = [False, *(chance() < _FOLLOWED for _ in here[1:])]
            if runs_over and last == len(spots):
                follows[-1] = False
            gaps = [0.0 if at_once else 0.1 + chance() for at_once in follows]
            unit = (end - start - sum(here)) / (sum(gaps) + 0.1 + chance())
            free_from = start
            starts = []
            for gap, length in zip(gaps, here, strict=True):
                starts.append(free_from + int(gap * unit))
                free_from = starts[-1] + length
            starts.append(end)
            follows.append(False)
            placed += [
                _Placed(starts[n], length, starts[n + 1] - starts[n] - length, follows[n + 1])
                for n, length in enumerate(here)
            ]
            first = last
        if starts_at_once:
            moved = placed[0]
            room = moved.room + moved.start
            placed[0] = moved._replace(start=0, room=room, is_followed=False)
        if runs_over:
            moved = placed[-1]
            placed[-1] = moved._replace(start=self.length - moved.length, room=0)
        return placed

    def _watch(self, placed: Sequence[_Placed], device: Device | None, runs_over: bool) -> None:
        """Books the sessions in order, as beats would have."""
        day, films, devices = self.day, self.films, self.habits.devices
        chance, exempts = self.rng.random, self.viewer.exempts
        last = len(films) - 1
        for place, (start, length, room, is_followed) in enumerate(placed):
            film = films[place]
            if device is None:
                device = devices[int(chance() * len(devices))]
            is_exempt = exempts(film.is_educational)
            next_device: Device | None = None
            time = None if is_exempt else day.remaining
            if time is not None and length >= time:
                overrun = min(int(chance() * _SECOND), length - time)
                total = time + overrun
                reason, last_beat, ended = "exhausted", start + total, start + total
                day.used += total
                self._after_the_last_minute(place, overrun, ended, room + length - total)
            else:
                total = length
                if is_exempt:
                    day.educational += total
                else:
                    day.used += total
                reason, last_beat, ended = "stopped", start + total, start + total
                if is_followed:
                    if films[place + 1].id != film.id and chance() < 0.6:
                        reason, next_device = "title_changed", device
                    elif len(devices) > 1:
                        reason = "superseded"
                        last_beat = ended - int(chance() * min(_TAIL, length))
                        next_device = self._other(device)
                elif runs_over and place == last:
                    reason = "reset"
                    last_beat = ended - int(chance() * min(_TAIL, length))
                elif length > _TAIL and chance() < _VANISHES:
                    reason, last_beat = "stale", ended - _TAIL
                elif length > _LONG and chance() < _LONG_PAUSE:
                    last_beat = ended = ended + int(chance() * min(room, 30 * _MINUTE))
            day.sessions.append(
                Seen(film, device, start, last_beat, ended, reason, total, is_exempt)
            )
            device = next_device

    def _after_the_last_minute(self, place: int, overrun: int, at: int, room: int) -> None:
        """The time is used up: whoever watches on has more from a parent, or something to learn."""
        exempts = self.viewer.exempts
        later = range(place + 1, len(self.films))
        if all(exempts(self.films[n].is_educational) for n in later):
            return
        learning = self.habits.exempt_films
        if learning and self.rng.random() < 0.5:
            for n in later:
                self.films[n] = learning[int(self.rng.random() * len(learning))]
        else:
            self._extend(overrun, at + int(self.rng.random() * min(room, 10 * _MINUTE)))

    def _other(self, device: Device) -> Device:
        """Another device than this one."""
        others = [one for one in self.habits.devices if one.id != device.id]
        return others[int(self.rng.random() * len(others))]

"""Families move in, and everybody in them watches at the same time."""

import random
import secrets
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar
from uuid import UUID

from viewingtime.player import evening
from viewingtime.player.child import Child, Device, Pace
from viewingtime.player.evening import Member, Plot
from viewingtime.player.reckoning import OwnClock, Rules, Title
from viewingtime.player.report import Watched
from viewingtime.player.service import GivenUpError, Line, Surprises

#: How many families register at a time: the hashing of passwords is made to be slow.
REGISTRATIONS_AT_ONCE = 8
#: How many read at a time what was counted.
READERS_AT_ONCE = 8
#: Seconds between two looks at how far everybody is.
LOOK_SECONDS = 0.25
#: The least limit there is, in minutes.
LEAST_LIMIT_MINUTES = 15
#: When an adult's viewing day starts, by UTC.
ADULT_RESET_HOUR = 6
#: What comes before and after an evening takes less than this.
MOVING_IN = timedelta(minutes=10)
#: As `date.weekday` counts.
SATURDAY = 5
T = TypeVar("T")
_DEVICES = ("tv", "tablet", "mobile", "web")


@dataclass(frozen=True, slots=True)
class Run:
    """What is to be played; times in seconds. `titles` is not empty."""

    base_url: str
    families: int
    seconds: float
    longest_beat: float
    titles: Sequence[Title]
    seed: int


@dataclass(frozen=True, slots=True)
class Progress:
    """How far it has come: `done` of `out_of` units in a stage, and the beats answered so far."""

    stage: str
    done: float
    out_of: float
    unit: str
    beats: int


Watch = Callable[[Progress], None]


class Evening:
    """One run. The main thread watches; every profile plays in a thread of its own."""

    def __init__(self, run: Run) -> None:
        self.surprises = Surprises()
        self._run = run
        self._clock = OwnClock()
        self._pace = Pace(run.longest_beat, threading.Event())
        # No two runs meet the same accounts.
        self._name = secrets.token_hex(4)

    def check(self) -> None:
        """Raises NoServiceError when there is nothing to play with."""
        line = self._line()
        try:
            line.check()
        finally:
            line.close()

    def play(self, watch: Watch) -> list[Watched]:
        """Plays to the end, or until Ctrl-C; answers what everybody watched.

        `watch` is told of the progress several times a second.
        """
        children = self._move_in(watch)
        self._play(children, watch)
        # Afterwards and by few: the last beats of the others shall not wait in line for this.
        with ThreadPoolExecutor(max_workers=READERS_AT_ONCE) as threads:
            reading = [threads.submit(child.watched) for child in children]
            for done in _ticks(reading):
                watch(Progress("reading", done, len(children), "people", _beats(children)))
        return [watched for future in reading if (watched := self._result(future)) is not None]

    def _play(self, children: Sequence[Child], watch: Watch) -> None:
        offsets = evening.start_offsets(len(children), beat=self._run.longest_beat)
        # The last to start is one beat later than the first.
        out_of = self._run.seconds + self._run.longest_beat
        begun_at = self._clock.now()
        with ThreadPoolExecutor(max_workers=max(1, len(children))) as threads:
            playing = [
                threads.submit(child.play, begun_at + timedelta(seconds=offset))
                for child, offset in zip(children, offsets, strict=True)
            ]
            try:
                for _ in _ticks(playing):
                    seconds = (self._clock.now() - begun_at).total_seconds()
                    watch(Progress("playing", min(seconds, out_of), out_of, "s", _beats(children)))
            except KeyboardInterrupt:
                # Everybody says goodbye to the service, and the table shows what there is.
                self._pace.stop.set()
                wait(playing)
        for future in playing:
            self._result(future)

    def _result(self, future: Future[T]) -> T | None:
        try:
            return future.result()
        except GivenUpError:
            return None
        except Exception as error:
            # One player that falls over must not take everybody's table with it.
            self.surprises.note(f"the player itself failed ({error!r})", is_fault=True)
            return None

    # Moving in

    def _move_in(self, watch: Watch) -> list[Child]:
        """All families; those that could not be set up are among the surprises."""
        numbers = range(1, self._run.families + 1)
        with ThreadPoolExecutor(max_workers=REGISTRATIONS_AT_ONCE) as threads:
            families = [threads.submit(self._family, number) for number in numbers]
            try:
                for done in _ticks(families):
                    watch(Progress("moving in", done, len(families), "families", 0))
            except KeyboardInterrupt:
                for family in families:
                    family.cancel()
                raise
        return [child for family in families for child in self._result(family) or ()]

    def _family(self, number: int) -> list[Child]:
        line = self._line()
        try:
            # Sent once only: a repeated registration would find its own e-mail taken.
            tokens = line.call(
                "POST",
                "auth/register",
                {
                    "email": f"family-{self._name}-{number}@play.example",
                    "password": secrets.token_urlsafe(16),
                },
                is_open=True,
                repeats=False,
            )
            line.sign_in(tokens.body)
            members = evening.household(
                number,
                seconds=self._run.seconds,
                has_regular_titles=any(not title.is_educational for title in self._run.titles),
                has_adults=not self._meets_an_adults_reset(),
            )
            return [self._child(line, number, member) for member in members]
        finally:
            line.close()

    def _meets_an_adults_reset(self) -> bool:
        """Whether an adult's viewing day, which nobody can move, may end during the run."""
        now = self._clock.now()
        reset = now.replace(hour=ADULT_RESET_HOUR, minute=0, second=0, microsecond=0)
        if reset < now:
            reset += timedelta(days=1)
        return reset - now < timedelta(seconds=self._run.seconds) + MOVING_IN

    def _child(self, line: Line, family: int, member: Member) -> Child:
        profile = line.call(
            "POST", "auth/profiles", {"name": member.name, "is_kids": member.is_kids}
        )
        profile_id = UUID(profile.body["id"])
        rules = (
            self._configured(line, profile_id, member) if member.is_kids else Rules(is_kids=False)
        )
        # A string, because that is what a seed can be made of.
        chance = random.Random(f"{self._run.seed}/{family}/{member.name}")  # nosec B311
        titles = [
            title
            for title in self._run.titles
            if member.plot is not Plot.EXHAUSTING or not title.is_educational
        ]
        kinds = chance.sample(_DEVICES, k=2)
        return Child(
            family=family,
            member=member,
            profile_id=profile_id,
            rules=rules,
            devices=[Device(f"{kind}-{profile_id}", kind, line.sibling()) for kind in kinds],
            steps=evening.plan(member.plot, seconds=self._run.seconds, chance=chance),
            titles=chance.sample(titles, k=len(titles)),
            pace=self._pace,
            clock=self._clock,
            surprises=self.surprises,
        )

    def _configured(self, line: Line, profile_id: UUID, member: Member) -> Rules:
        """Moves the reset out of the evening's way; answers the rules that are in force."""
        now = self._clock.now()
        reset_hour = (now.hour + 12) % 24
        wanted: dict[str, Any] = {"reset_hour": reset_hour, "timezone": "UTC"}
        if member.plot is Plot.EXHAUSTING:
            wanted["weekday_limit_minutes"] = LEAST_LIMIT_MINUTES
            wanted["weekend_limit_minutes"] = LEAST_LIMIT_MINUTES
        config = line.call(
            "PUT", "parental-controls/profiles/{id}/viewing-time", wanted, of=profile_id
        ).body
        is_weekend = (now - timedelta(hours=reset_hour)).weekday() >= SATURDAY
        limit = config["weekend_limit_minutes" if is_weekend else "weekday_limit_minutes"]
        return Rules(
            is_kids=True,
            limit=None if limit is None else timedelta(minutes=limit),
            educational_exempt=config["educational_exempt"],
        )

    def _line(self) -> Line:
        return Line(self._run.base_url, clock=self._clock, surprises=self.surprises)


def _ticks(futures: Collection[Future[T]]) -> Iterator[int]:
    """Tells several times a second how many are done, until all are."""
    going_on: set[Future[T]] = set(futures)
    while going_on:
        going_on = wait(going_on, timeout=LOOK_SECONDS).not_done
        yield len(futures) - len(going_on)


def _beats(children: Sequence[Child]) -> int:
    return sum(child.beats for child in children)

"""Fills a database with households and what they watched, or profiles that are there already.

Only viewing days that are over are filled: the running one of every profile stays empty, and no
session is open.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Final
from uuid import NAMESPACE_URL, UUID, uuid5

from django.db import connection

from parentalcontrols.models import Account, Profile, Title
from parentalcontrols.profiles import config_of
from viewingtime import ledgers
from viewingtime.generator.copying import ANALYZE, Rows
from viewingtime.generator.evenings import Catalogue, Film, days_of
from viewingtime.generator.households import Household, Person, habits_of, households
from viewingtime.ledger import ADULT, Viewer
from viewingtime.models import ViewingSession, ViewingTimeBalance

#: About so many sessions are made in memory and written in one transaction.
CHUNK_SESSIONS: Final = 40_000
#: The same for households, which may have none.
CHUNK_HOUSEHOLDS: Final = 10_000
#: More than these a child cannot watch in a day, however short they are.
MOST_SESSIONS_A_DAY: Final = 1000
#: Of each child, where the caller does not say how many children there are.
USUAL_SESSIONS_A_DAY: Final = 4
#: Titles to choose from; a catalogue may have many more.
MOST_TITLES: Final = 1000

#: What is watched where there is no catalogue: name and whether it is educational.
_TITLES: Final = (
    *(("The Lighthouse Keeper's Cat", False), ("Night Train to Nowhere", False)),
    *(("Captain Walnut", False), ("Four Wheels and a Dragon", False)),
    *(("The Moon Is Out", False), ("Umbrella Weather", False), ("Ghosts of Pier Nine", False)),
    *(("Left Shoe, Right Shoe", False), ("The Great Soup War", False)),
    *(("How Bridges Stand", True), ("A Year in the Pond", True), ("Counting Stars", True)),
)


class NotPossible(Exception):
    """Nothing was written; the sentence says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is to be made; `adults` is their share of the sessions, 0 to 0.9."""

    sessions: int
    kids: int
    days: int = 30
    adults: float = 0.1
    seed: int = 1
    prefix: str = "generated"

    def email(self, number: int) -> str:
        """Of a household; they are numbered from 1."""
        return f"{self.prefix}-{self.seed}-{number}@example.com"


@dataclass(frozen=True, slots=True)
class Generated:
    """How many rows were written."""

    households: int = 0
    kids: int = 0
    sessions: int = 0
    grants: int = 0


def generate(plan: Plan, progress: Callable[[int], object] = lambda sessions: None) -> Generated:
    """Writes households with their history, whole ones in each transaction.

    `progress` is told how many sessions were added. What was written before an interruption
    stays. Raises `NotPossible`.
    """
    if plan.sessions > plan.kids * plan.days * MOST_SESSIONS_A_DAY:
        raise NotPossible(
            f"That would be more than {MOST_SESSIONS_A_DAY} sessions for each child and day: "
            "take more profiles or more days."
        )
    if Account.objects.filter(email=plan.email(1)).exists():
        raise NotPossible(
            f"{plan.email(1)} exists: this seed and prefix have been used here. Take others."
        )
    catalogue, now = _catalogue(), _now()
    written = Generated()
    chunks = _chunks(plan, catalogue, now)
    # While the server takes in one chunk, a thread makes the next; it never asks the database.
    with ThreadPoolExecutor(1) as maker:
        coming = maker.submit(next, chunks, None)
        while (chunk := coming.result()) is not None:
            coming = maker.submit(next, chunks, None)
            chunk.write()
            written = _added(written, chunk)
            progress(len(chunk.sessions))
    _analyze()
    return written


def fill(profiles: Sequence[Profile], *, sessions: int, days: int, seed: str) -> int:
    """Gives each of the profiles so many sessions in the last days; answers how many in all.

    They have none yet, and no balance. One transaction; a seed is good for one call alone.
    """
    catalogue, now = _catalogue(), _now()
    rows = Rows()
    for place, profile in enumerate(profiles):
        rng = random.Random(f"fill/{seed}/{place}")
        viewer = ledgers.viewer_of(config_of(profile)) if profile.is_kids else ADULT
        person = Person(
            id=profile.id.hex,
            account_id=profile.account_id.hex,
            is_kids=profile.is_kids,
            habits=habits_of(viewer, catalogue, rng),
        )
        _add_history(rows, person, sessions=sessions, days=days, now=now, rng=rng)
    rows.write()
    return len(rows.sessions)


def is_booked(account_id: UUID) -> bool:
    """Whether anything is booked for a household."""
    return (
        ViewingSession.objects.filter(profile__account_id=account_id).exists()
        or ViewingTimeBalance.objects.filter(profile__account_id=account_id).exists()
    )


def _chunks(plan: Plan, catalogue: Catalogue, now: datetime) -> Iterator[Rows]:
    """The rows of some households at a time."""
    rows = Rows()
    kids_before = 0
    for household in households(
        kids=plan.kids,
        has_adults=plan.adults > 0,
        catalogue=catalogue,
        seed=f"{plan.prefix}/{plan.seed}",
    ):
        kids = kids_before + sum(person.is_kids for person in household.people)
        # To the session what was asked for, however the shares are rounded.
        sessions = plan.sessions * kids // plan.kids - plan.sessions * kids_before // plan.kids
        kids_before = kids
        since = now - timedelta(days=plan.days) - household.age
        rows.add_household(household, plan.email(household.number), since)
        for person, share in _shares(household, sessions, plan.adults):
            _add_history(rows, person, sessions=share, days=plan.days, now=now, rng=household.rng)
        if len(rows.sessions) >= CHUNK_SESSIONS or len(rows.accounts) >= CHUNK_HOUSEHOLDS:
            yield rows
            rows = Rows()
    yield rows


def _shares(household: Household, sessions: int, adults: float) -> Iterator[tuple[Person, int]]:
    """How many of a household's sessions each of its people has."""
    children = [person for person in household.people if person.is_kids]
    for_adults = round(sessions * adults)
    left = sessions - for_adults
    for place, child in enumerate(children):
        share = left // (len(children) - place)
        left -= share
        yield child, share
    for person in household.people:
        if not person.is_kids:
            yield person, for_adults


def _add_history(
    rows: Rows, person: Person, *, sessions: int, days: int, now: datetime, rng: random.Random
) -> None:
    if not sessions:
        return
    dates = _days_before(person.habits.viewer, now, days)
    for made in days_of(person.habits, dates=dates, sessions=sessions, rng=rng):
        rows.add_day(person, made, rng)


def _days_before(viewer: Viewer, now: datetime, days: int) -> list[date]:
    """The viewing days that are over, the last one last."""
    running = viewer.schedule.viewing_day(now).date
    return [running - timedelta(days=ago) for ago in range(days, 0, -1)]


def _added(written: Generated, rows: Rows) -> Generated:
    return Generated(
        households=written.households + len(rows.accounts),
        kids=written.kids + len(rows.configs),
        sessions=written.sessions + len(rows.sessions),
        grants=written.grants + len(rows.grants),
    )


def _catalogue() -> Catalogue:
    """What can be started; some titles are made where there are none."""
    running = Title.objects.filter(withdrawn_at=None).order_by("title", "id")
    flags = list(running.values_list("id", "is_educational")[:MOST_TITLES])
    if not flags:
        made = Title.objects.bulk_create(
            # Ids that follow from the names: the same seed makes the same rows here, too.
            Title(id=uuid5(NAMESPACE_URL, name), title=name, is_educational=is_educational)
            for name, is_educational in _TITLES
        )
        flags = [(title.id, title.is_educational) for title in made]
    return Catalogue.of([Film(id_.hex, is_educational) for id_, is_educational in flags])


def _now() -> datetime:
    with connection.cursor() as cursor:
        cursor.execute("SELECT clock_timestamp()")
        now: datetime = cursor.fetchone()[0]
    return now


def _analyze() -> None:
    with connection.cursor() as cursor:
        cursor.execute(ANALYZE)

"""The demo's household, staff and catalogue: made once, and left alone ever after."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final
from uuid import UUID

from django.contrib.auth.hashers import make_password
from django.db import transaction

from parentalcontrols import title_files, titles
from parentalcontrols.models import Account, Profile, Title, ViewingTimeConfig

PARENT_EMAIL: Final = "parent@example.com"
PARENT_PASSWORD: Final = "watch-together-7"
STAFF_EMAIL: Final = "staff@example.com"
STAFF_PASSWORD: Final = "read-the-gauges-7"

CATALOGUE: Final = Path(__file__).parent / "catalogue" / "titles.json"
#: The README's examples play this title.
SHORT_FILM_ID: Final = UUID("00000000-0000-4000-8000-000000000001")


@dataclass(frozen=True, kw_only=True)
class Person:
    """Somebody of the demo's household; a child with what differs from the usual limits."""

    name: str
    parental_rating: str
    limits: dict[str, Any] | None = None


HOUSEHOLD: Final = (
    Person(name="Mia", parental_rating="G", limits={"timezone": "Europe/Berlin"}),
    Person(
        name="Noah",
        parental_rating="PG",
        limits={
            "timezone": "America/New_York",
            "weekday_limit_minutes": 90,
            "weekend_limit_minutes": 150,
            "reset_hour": 4,
            "educational_exempt": False,
        },
    ),
    Person(
        name="Lena",
        parental_rating="PG-13",
        limits={
            "timezone": "Europe/Berlin",
            "weekday_limit_minutes": 60,
            "weekend_limit_minutes": None,
        },
    ),
    Person(name="Alex", parental_rating="R"),
)


@dataclass(frozen=True, kw_only=True)
class SeedReport:
    """How many rows were new."""

    accounts: int
    profiles: int
    titles: int


def seed(*, now: datetime) -> SeedReport:
    """Creates what the demo needs and does not have yet; changes nothing that is there.

    A password, a limit or a title that somebody changed stays as it is, and a child that was
    deleted stays deleted: a household is made only for an account without any profile. It has no
    PIN, so that limits can be tried at once; the README sets one. Five queries where everything is
    there. All or nothing.
    """
    with transaction.atomic():
        parent, parent_is_new = _account(PARENT_EMAIL, PARENT_PASSWORD)
        _, staff_is_new = _account(STAFF_EMAIL, STAFF_PASSWORD, is_staff=True, is_superuser=True)
        return SeedReport(
            accounts=parent_is_new + staff_is_new,
            profiles=_household(parent, now),
            titles=_short_film() + _catalogue(now),
        )


def _account(email: str, password: str, **rights: bool) -> tuple[Account, bool]:
    # A callable, so that only an account that is created costs a hash.
    defaults: dict[str, Any] = {"password": lambda: make_password(password), **rights}
    found: tuple[Account, bool] = Account.objects.get_or_create(email=email, defaults=defaults)
    return found


def _household(parent: Account, now: datetime) -> int:
    if Profile.objects.filter(account=parent).exists():
        return 0
    for place, person in enumerate(HOUSEHOLD):
        # The database's own clock stands still in a transaction; lists are in order of creation.
        profile = Profile.objects.create(
            account=parent,
            name=person.name,
            is_kids=person.limits is not None,
            parental_rating=person.parental_rating,
            created_at=now + timedelta(microseconds=place),
        )
        if person.limits is not None:
            ViewingTimeConfig.objects.create(profile=profile, **person.limits)
    return len(HOUSEHOLD)


def _short_film() -> int:
    _, is_new = Title.objects.get_or_create(
        id=SHORT_FILM_ID,
        defaults={
            "external_id": "demo-short-film",
            "title": "The Paper Boat",
            "release_year": 2024,
            "age_rating": "G",
            "genre": "Adventure",
            "runtime_minutes": 12,
            "synopsis": "A paper boat leaves the gutter of a small town and looks for the sea.",
        },
    )
    return int(is_new)


def _catalogue(now: datetime) -> int:
    """Imports the titles whose external id is missing: those that are there may be corrected."""
    rows = title_files.read_rows(path=CATALOGUE)
    ids = [str(row.cells["external_id"]) for row in rows]
    present = set(Title.objects.filter(external_id__in=ids).values_list("external_id", flat=True))
    missing = [row for row in rows if row.cells["external_id"] not in present]
    if not missing:
        return 0
    plan = title_files.plan_columns(rows=missing)
    return titles.import_titles(rows=missing, plan=plan, now=now).created

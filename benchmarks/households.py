"""Households with a past, and a database that holds many more of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from benchmarks.service import count_sessions

#: Complete viewing days of the last seven, which the weekly report shows.
WEEK_DAYS = 6
#: The same of the thirty that a history shows.
MONTH_DAYS = 29
VACUUM = """
VACUUM (ANALYZE)
    accounts, profiles, viewing_time_configs, titles, viewing_sessions, viewing_time_balances,
    time_grants
"""


@dataclass(frozen=True, slots=True)
class Family:
    """An account, its children, and a token that speaks for the parent."""

    token: str
    child_ids: Sequence[UUID]


def families(name: str, *, count: int, children: int, sessions: int, days: int) -> list[Family]:
    """Families of so many children, each with so many sessions in its last complete days."""
    from parentalcontrols.authentication import access_token
    from parentalcontrols.models import Account, Profile, ViewingTimeConfig
    from viewingtime.generator import history

    found = []
    for number in range(count):
        account = Account(email=f"{name}-{number}@example.com")
        account.set_unusable_password()
        account.save()
        profiles = Profile.objects.bulk_create(
            Profile(account=account, name=f"child {n}", is_kids=True) for n in range(children)
        )
        ViewingTimeConfig.objects.bulk_create(ViewingTimeConfig(profile=p) for p in profiles)
        history.fill(profiles, sessions=sessions, days=days, seed=f"{name}-{number}")
        found.append(Family(access_token(account), [profile.id for profile in profiles]))
    return found


def grow_to(sessions: int, *, seed: int) -> int:
    """Adds generated households until so many sessions are stored; answers how many are."""
    from viewingtime.generator.history import USUAL_SESSIONS_A_DAY, Plan, generate

    missing = sessions - count_sessions()
    if missing > 0:
        kids = max(1, missing // (30 * USUAL_SESSIONS_A_DAY))
        generate(Plan(sessions=missing, kids=kids, seed=seed))
    return count_sessions()


def add_profiles(children: int, *, seed: int) -> None:
    """Adds generated households with so many children who have never watched."""
    from viewingtime.generator.history import Plan, generate

    generate(Plan(sessions=0, kids=children, seed=seed))


def settle_down() -> None:
    """Does now what the server would do by itself in the midst of a measurement."""
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute(VACUUM)
        # A checkpoint: the service's role may not ask for one, but to copy a database takes one.
        cursor.execute("CREATE DATABASE checkpoint TEMPLATE template0 STRATEGY file_copy")
        cursor.execute("DROP DATABASE checkpoint")

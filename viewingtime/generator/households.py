"""Who there is: made-up households, or profiles that are there, with what they are used to."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from parentalcontrols.viewing_day import Schedule
from viewingtime.generator.evenings import Catalogue, Device, Habits
from viewingtime.ledger import ADULT, Viewer

_CHILDREN: Final = (1, 1, 2, 2, 2, 3)
_KIDS_NAMES: Final = (
    "Mia",
    "Noah",
    "Lena",
    "Yuki",
    "Amara",
    "Mateo",
    "Priya",
    "Olu",
    "Zoe",
    "Elif",
)
_ADULT_NAMES: Final = ("Alex", "Sam", "Kim", "Robin", "Noor", "Jo")
_RATINGS: Final = ("G", "G", "PG", "PG-13")
_ZONES: Final = (
    *("Europe/Berlin", "Europe/London", "America/New_York", "America/Los_Angeles"),
    *("America/Sao_Paulo", "Africa/Lagos", "Asia/Kolkata", "Asia/Tokyo"),
    *("Australia/Sydney", "Pacific/Auckland", "America/St_Johns", "UTC"),
)
#: At 7 a child may sit at breakfast when its day begins, at 20 on the sofa.
_RESET_HOURS: Final = (6, 6, 6, 6, 4, 5, 7, 0, 20)
#: Minutes on weekdays and at weekends; None = unlimited.
_LIMITS: Final = (
    *((120, 180), (120, 180), (120, 180), (90, 120), (60, 120), (60, 90), (45, 90)),
    *((150, 240), (180, None), (None, None)),
)
_DEVICES: Final = (
    *(Device("living-room-tv", "tv"),) * 5,
    *(Device("tablet", "tablet"),) * 3,
    *(Device("laptop", "web"), Device("phone", "mobile")),
)
#: How many titles somebody comes back to.
_FAVOURITES: Final = 12
_UUID_MASK: Final = ~((0xF << 76) | (0x3 << 62))
_UUID_BITS: Final = (0x4 << 76) | (0x2 << 62)


def new_id(rng: random.Random) -> str:
    """A random UUID, as 32 hexadecimal digits."""
    return f"{rng.getrandbits(128) & _UUID_MASK | _UUID_BITS:032x}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """A child's config; limits in minutes, None = unlimited."""

    weekday_limit_minutes: int | None
    weekend_limit_minutes: int | None
    reset_hour: int
    timezone: str
    educational_exempt: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """A profile; `config` is None for an adult, and for one that is in the database already."""

    id: str
    account_id: str
    is_kids: bool
    habits: Habits
    name: str = ""
    parental_rating: str = ""
    config: Config | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Household:
    """An account that is new, and who belongs to it: children first."""

    number: int
    account_id: str
    people: Sequence[Person]
    #: How long before the days that are made up it registered.
    age: timedelta
    rng: random.Random


def habits_of(viewer: Viewer, catalogue: Catalogue, rng: random.Random) -> Habits:
    """What somebody watches again and again, some of it educational where there is such a title."""
    films, learning = catalogue
    favourites = [films[int(rng.random() * len(films))] for _ in range(_FAVOURITES)]
    if learning:
        favourites[3] = learning[int(rng.random() * len(learning))]
    # The first ones the most, so that there are titles at the top.
    liked = [*favourites[:3], *favourites[:5], *favourites]
    return Habits(viewer, liked, _DEVICES)


def households(
    *, kids: int, has_adults: bool, catalogue: Catalogue, seed: str
) -> Iterator[Household]:
    """Households with so many children in all, each by chances of its own."""
    number = 0
    while kids > 0:
        number += 1
        # Of a household the chances are its own: what the others get does not change them.
        rng = random.Random(f"{seed}/{number}")
        made = _household(number, kids, has_adults, catalogue, rng)
        kids -= sum(person.is_kids for person in made.people)
        yield made


def _household(
    number: int, most: int, has_adults: bool, catalogue: Catalogue, rng: random.Random
) -> Household:
    account_id = new_id(rng)
    zone = rng.choice(_ZONES)
    people = [
        _child(account_id, zone, catalogue, rng) for _ in range(min(most, rng.choice(_CHILDREN)))
    ]
    if has_adults:
        people.append(
            Person(
                id=new_id(rng),
                account_id=account_id,
                is_kids=False,
                habits=habits_of(ADULT, catalogue, rng),
                name=rng.choice(_ADULT_NAMES),
                parental_rating="R",
            )
        )
    return Household(
        number=number,
        account_id=account_id,
        people=people,
        age=timedelta(days=1 + 400 * rng.random()),
        rng=rng,
    )


def _child(account_id: str, zone: str, catalogue: Catalogue, rng: random.Random) -> Person:
    weekday, weekend = rng.choice(_LIMITS)
    config = Config(
        weekday_limit_minutes=weekday,
        weekend_limit_minutes=weekend,
        reset_hour=rng.choice(_RESET_HOURS),
        timezone=zone,
        educational_exempt=rng.random() < 0.8,
    )
    viewer = Viewer(
        is_kids=True,
        weekday_limit=None if weekday is None else timedelta(minutes=weekday),
        weekend_limit=None if weekend is None else timedelta(minutes=weekend),
        educational_exempt=config.educational_exempt,
        schedule=Schedule.of(config.reset_hour, zone),
    )
    return Person(
        id=new_id(rng),
        account_id=account_id,
        is_kids=True,
        habits=habits_of(viewer, catalogue, rng),
        name=rng.choice(_KIDS_NAMES),
        parental_rating=rng.choice(_RATINGS),
        config=config,
    )

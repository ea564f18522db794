"""`manage.py seed_demo`: the demo is there after the first run, and stays as people left it."""

import json
from io import StringIO
from uuid import UUID

import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from django.test.utils import CaptureQueriesContext

from parentalcontrols import demo
from parentalcontrols.models import Account, Profile, Title, ViewingTimeConfig
from parentalcontrols.tests.cast import set_pin
from pins import verification

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def demo_mode(settings):
    settings.DEMO = True


def seed() -> str:
    out = StringIO()
    call_command("seed_demo", stdout=out)
    return out.getvalue()


def everything() -> list[list[dict[str, object]]]:
    models = (Account, Profile, ViewingTimeConfig, Title)
    return [list(model.objects.order_by("pk").values()) for model in models]


def test_it_refuses_to_run_outside_demo_mode(settings):
    settings.DEMO = False
    with pytest.raises(CommandError, match="passwords are public"):
        seed()
    assert not Account.objects.exists()
    assert not Title.objects.exists()


def test_a_parent_and_the_staff_can_log_in():
    seed()
    parent = Account.objects.get(email="parent@example.com")
    staff = Account.objects.get(email="staff@example.com")
    assert parent.check_password("watch-together-7")
    assert not parent.is_staff
    assert staff.check_password("read-the-gauges-7")
    assert staff.is_staff
    assert staff.is_superuser


def test_the_household_has_three_children_with_limits_of_their_own_and_an_adult():
    seed()
    household = Profile.objects.filter(account__email="parent@example.com")
    assert [(one.name, one.is_kids) for one in household] == [
        ("Mia", True),
        ("Noah", True),
        ("Lena", True),
        ("Alex", False),
    ]
    configs = ViewingTimeConfig.objects.order_by("profile__created_at").values_list(
        "profile__name",
        "timezone",
        "weekday_limit_minutes",
        "weekend_limit_minutes",
        "reset_hour",
        "educational_exempt",
    )
    assert list(configs) == [
        ("Mia", "Europe/Berlin", 120, 180, 6, True),
        ("Noah", "America/New_York", 90, 150, 4, False),
        ("Lena", "Europe/Berlin", 60, None, 6, True),
    ]


def test_there_is_no_pin_until_somebody_sets_one_and_then_it_stays():
    seed()
    parent = Account.objects.get(email="parent@example.com")
    assert not verification.status(parent.id).has_pin
    set_pin(parent)
    seed()
    assert verification.status(parent.id).has_pin


def test_there_is_a_short_film_to_play_and_a_catalogue_of_a_few_hundred_titles():
    assert "2 accounts, 4 profiles and 301 titles created" in seed()
    film = Title.objects.get(id=UUID("00000000-0000-4000-8000-000000000001"))
    assert film.external_id == "demo-short-film"
    assert not film.is_educational
    catalogue = Title.objects.filter(external_id__startswith="vega-")
    assert catalogue.count() == 300
    assert catalogue.filter(is_educational=True, genre="Documentary").count() == 21
    assert catalogue.filter(is_educational=True).count() == 21
    assert catalogue.get(external_id="vega-1776-1972").title == "1776"


def test_every_title_of_the_catalogue_has_a_key_of_its_own():
    films = json.loads(demo.CATALOGUE.read_text(encoding="utf-8"))["titles"]
    assert len({film["external_id"] for film in films}) == len(films)


def test_a_second_run_changes_nothing_and_asks_little(monkeypatch):
    seed()
    before = everything()

    def no_hash(_: str) -> str:
        raise AssertionError("a password was hashed")

    monkeypatch.setattr(demo, "make_password", no_hash)
    with CaptureQueriesContext(connection) as queries:
        assert "0 accounts, 0 profiles and 0 titles created" in seed()
    assert everything() == before
    assert len([one for one in queries if "SAVEPOINT" not in one["sql"]]) <= 5


def test_what_people_changed_stays_as_they_left_it():
    seed()
    parent = Account.objects.get(email="parent@example.com")
    parent.set_password("a-better-one-9")
    parent.save()
    Profile.objects.filter(name="Noah").delete()
    Profile.objects.filter(name="Mia").update(name="Mia Sophie")
    ViewingTimeConfig.objects.update(reset_hour=3)
    Title.objects.filter(external_id="demo-short-film").update(title="The Boat", external_id=None)
    Title.objects.filter(external_id="vega-wall-e-2008").update(title="Wall E", is_educational=True)
    before = everything()
    seed()
    assert everything() == before


def test_a_title_that_is_new_in_the_catalogue_is_added():
    seed()
    Title.objects.filter(external_id="vega-wall-e-2008").delete()
    assert "0 accounts, 0 profiles and 1 titles created" in seed()
    assert Title.objects.get(external_id="vega-wall-e-2008").title == "WALL-E"

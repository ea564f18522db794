"""The people of a household: `/auth/profiles` and `/auth/profiles/{id}/select`."""

from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from parentalcontrols.models import Profile, ViewingTimeConfig
from parentalcontrols.tests.cast import Cast, assert_problem, database_now, everything_stored

PROFILES = "/auth/profiles"


def create(cast: Cast, **fields: Any) -> dict[str, Any]:
    answer = cast.phone.post(PROFILES, {"name": "New", "is_kids": True, **fields})
    assert answer.status_code == 201, answer.content
    return answer.json()


def refused(cast: Cast, body: dict[str, Any]) -> set[str]:
    """The fields of a profile that is refused."""
    before = everything_stored()
    document = assert_problem(cast.phone.post(PROFILES, body), 400, "invalid")
    assert everything_stored() == before
    return {error["field"] for error in document["errors"]}


def test_the_household_is_listed_oldest_first_and_nobody_else(cast: Cast) -> None:
    for days, profile in enumerate([cast.adult, cast.child, cast.sibling]):
        made_at = database_now() - timedelta(days=9 - days)
        Profile.objects.filter(id=profile.id).update(created_at=made_at)
    create(cast, name="Anna")
    names = [profile["name"] for profile in cast.phone.get(PROFILES).json()]
    assert names == ["Alex", "Mia", "Noah", "Anna"]
    names = [profile["name"] for profile in cast.foreign_phone.get(PROFILES).json()]
    assert sorted(names) == ["Olga", "Otto"]


def test_an_account_without_profiles_has_an_empty_list(cast: Cast) -> None:
    Profile.objects.filter(account=cast.outsider).delete()
    answer = cast.foreign_phone.get(PROFILES)
    assert (answer.status_code, answer.json()) == (200, [])


def test_a_profile_is_created_for_the_caller(cast: Cast) -> None:
    made = create(
        cast, name="Lena", parental_rating="PG-13", avatar_url="https://example.com/lena.png"
    )
    profile = Profile.objects.get(id=made["id"])
    assert profile.account_id == cast.parent.id
    assert made == {
        "id": str(profile.id),
        "name": "Lena",
        "is_kids": True,
        "parental_rating": "PG-13",
        "avatar_url": "https://example.com/lena.png",
    }
    assert made in cast.phone.get(PROFILES).json()


def test_what_is_left_out_is_null(cast: Cast) -> None:
    made = create(cast)
    assert made["parental_rating"] is None
    assert made["avatar_url"] is None
    assert (
        create(cast, parental_rating=None, avatar_url=None).items()
        >= {
            "parental_rating": None,
            "avatar_url": None,
        }.items()
    )


def test_a_child_gets_its_config_at_once_and_an_adult_none(cast: Cast) -> None:
    child, adult = create(cast), create(cast, is_kids=False)
    assert ViewingTimeConfig.objects.filter(profile_id=child["id"]).exists()
    assert not ViewingTimeConfig.objects.filter(profile_id=adult["id"]).exists()


def test_names_may_repeat_and_be_in_any_script(cast: Cast) -> None:
    for name in ("Mia", "Mia", "美亜", "مِيا", "👧🏽", "O'Neil <b>"):
        assert create(cast, name=name)["name"] == name


def test_spaces_around_a_name_are_dropped(cast: Cast) -> None:
    assert create(cast, name="  Mia  ")["name"] == "Mia"


@pytest.mark.parametrize("name", ["", "   ", "x" * 101, "a\x00b", None, 5, True, ["Mia"], {}])
def test_other_names_are_refused(cast: Cast, name: Any) -> None:
    assert refused(cast, {"name": name, "is_kids": True}) == {"name"}


@pytest.mark.parametrize("is_kids", ["true", "True", "on", 1, 0, None, "", []])
def test_is_kids_is_true_or_false(cast: Cast, is_kids: Any) -> None:
    assert refused(cast, {"name": "Mia", "is_kids": is_kids}) == {"is_kids"}


@pytest.mark.parametrize("rating", ["", "x" * 21, "\x00", 18, False, ["PG"]])
def test_other_ratings_are_refused(cast: Cast, rating: Any) -> None:
    body = {"name": "Mia", "is_kids": True, "parental_rating": rating}
    assert refused(cast, body) == {"parental_rating"}


@pytest.mark.parametrize(
    "url",
    [
        "",
        "mia.png",
        "javascript:alert(1)",
        "data:image/png;base64,AA==",
        "file:///etc/passwd",
        "//example.com/a.png",
        "http://",
        "https://exa mple.com/",
        "https://example.com/\x00",
        "https://example.com/" + "a" * 500,
        "ftp://example.com/a.png",
        5,
        {},
    ],
)
def test_an_avatar_is_a_web_address(cast: Cast, url: Any) -> None:
    assert refused(cast, {"name": "Mia", "is_kids": True, "avatar_url": url}) == {"avatar_url"}


def test_name_and_kind_are_needed(cast: Cast) -> None:
    assert refused(cast, {}) == {"name", "is_kids"}


def test_the_id_and_the_owner_are_not_the_callers_to_choose(cast: Cast) -> None:
    wanted = str(uuid4())
    made = create(cast, id=wanted, account=str(cast.outsider.id), account_id=str(cast.outsider.id))
    assert made["id"] != wanted
    assert Profile.objects.get(id=made["id"]).account_id == cast.parent.id


def test_selecting_answers_the_profile(cast: Cast) -> None:
    for profile in (cast.child, cast.adult):
        answer = cast.phone.put(f"{PROFILES}/{profile.id}/select")
        assert answer.status_code == 200
        assert answer.json() == {
            "id": str(profile.id),
            "name": profile.name,
            "is_kids": profile.is_kids,
            "parental_rating": None,
            "avatar_url": None,
        }


def test_a_profiles_id_may_have_capital_letters(cast: Cast) -> None:
    answer = cast.phone.put(f"{PROFILES}/{str(cast.child.id).upper()}/select")
    assert UUID(answer.json()["id"]) == cast.child.id


def test_selecting_changes_nothing(cast: Cast) -> None:
    before = everything_stored()
    cast.phone.put(f"{PROFILES}/{cast.child.id}/select", {"is_kids": False, "name": "Eve"})
    assert everything_stored() == before


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE"])
def test_there_is_no_way_to_turn_a_child_into_an_adult(cast: Cast, method: str) -> None:
    assert_problem(cast.phone.send(method, PROFILES, {"is_kids": False}), 405)
    answer = cast.phone.send(method, f"{PROFILES}/{cast.child.id}", {"is_kids": False})
    assert_problem(answer, 404)
    assert Profile.objects.get(id=cast.child.id).is_kids

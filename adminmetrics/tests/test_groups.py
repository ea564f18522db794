"""The groups of staff that a migration makes: who sees, and who also acts."""

from importlib import import_module

import psycopg
import pytest
from django.apps import apps
from django.contrib.auth.models import Group, Permission
from django.test import Client

from parentalcontrols.tests.cast import Cast, everything_stored, make_account, set_pin
from pins.models import Pin
from pins.tests.service import database

migration = import_module("adminmetrics.migrations.0002_staff_groups")
LABELS = ("adminmetrics", "parentalcontrols", "pins", "viewingtime")
METRICS = "/admin/adminmetrics/metricrollup/"


def make_groups() -> None:
    """As the migration does; tests that empty all tables take them away."""
    migration.create_groups(apps, None)


def signed_in(group: str | None) -> Client:
    make_groups()
    staff = make_account(f"{group}@example.com", is_staff=True)
    if group is not None:
        staff.groups.add(Group.objects.get(name=group))
    client = Client()
    client.force_login(staff)
    return client


def rights(group: str) -> set[str]:
    found = Group.objects.get(name=group).permissions.select_related("content_type")
    return {f"{right.content_type.app_label}.{right.codename}" for right in found}


@pytest.mark.django_db
def test_support_sees_everything_of_ours_and_changes_nothing() -> None:
    make_groups()
    ours = Permission.objects.filter(
        content_type__app_label__in=LABELS, codename__startswith="view_"
    )
    hidden = {"erasure", "idempotencykey", "ratelimitwindow", "usedpintoken"}
    expected = {
        f"{right.content_type.app_label}.{right.codename}"
        for right in ours.select_related("content_type")
        if right.content_type.model not in hidden
    }
    assert rights("support") == expected


@pytest.mark.django_db
def test_an_operator_also_unlocks_deactivates_and_edits_titles() -> None:
    make_groups()
    assert rights("operator") - rights("support") == {
        "parentalcontrols.change_account",
        "parentalcontrols.change_title",
        "pins.change_pin",
    }


def test_a_new_installation_has_both() -> None:
    with database() as url, psycopg.connect(url) as connection:
        found = connection.execute(
            "SELECT g.name, count(*) FROM auth_group AS g "
            "JOIN auth_group_permissions AS p ON p.group_id = g.id GROUP BY g.name ORDER BY g.name"
        ).fetchall()
    assert found == [("operator", 15), ("support", 12)]


@pytest.mark.django_db
def test_making_them_again_changes_nothing_and_keeps_what_was_added() -> None:
    make_groups()
    extra = Permission.objects.get(codename="add_logentry")
    Group.objects.get(name="support").permissions.add(extra)
    make_groups()
    assert Group.objects.count() == 2
    assert "admin.add_logentry" in rights("support")


def test_support_reads_every_page_and_can_write_nothing(cast: Cast) -> None:
    client = signed_in("support")
    set_pin(cast.parent)
    title = f"/admin/parentalcontrols/title/{cast.cartoon.pk}/change/"
    assert client.get(METRICS).status_code == 200
    assert client.get("/admin/pins/pin/").status_code == 200
    assert client.get(title).status_code == 200
    before = everything_stored()
    chosen = {"action": "unlock", "_selected_action": [str(cast.parent.pk)]}
    client.post("/admin/pins/pin/", chosen)
    client.post("/admin/parentalcontrols/account/", chosen | {"action": "deactivate"})
    assert client.post(title, {"title": "Another"}).status_code == 403
    assert client.post(METRICS, {}).status_code == 200
    assert everything_stored() == before


def test_an_operator_unlocks_a_pin(cast: Cast) -> None:
    client = signed_in("operator")
    set_pin(cast.parent)
    Pin.objects.update(locked_until="9999-01-01T00:00:00Z")
    chosen = {"action": "unlock", "_selected_action": [str(cast.parent.pk)]}
    client.post("/admin/pins/pin/", chosen)
    assert Pin.objects.get().locked_until is None


@pytest.mark.parametrize("path", [METRICS, METRICS + "data/"])
def test_staff_without_the_right_sees_no_metrics(cast: Cast, path: str) -> None:
    client = signed_in(None)
    assert client.get(path).status_code == 403
    assert b"metrics-tile" not in client.get("/admin/").content

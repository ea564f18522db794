"""`manage.py play`: its judgement, its table, and runs against a server as a whole."""

import re
import socket
from io import StringIO
from uuid import uuid4

import pytest
from django.core.management import CommandError, call_command
from django.db import OperationalError

from parentalcontrols.models import Title
from parentalcontrols.problems import not_found
from viewingtime import gathering, ledger
from viewingtime.models import ViewingSession, ViewingTimeBalance
from viewingtime.player.report import SessionCount, Watched, faults, table
from viewingtime.player.service import Surprises

# The judgement


def watched(*sessions, **values):
    return Watched(
        **{"family": 1, "who": "kid", "ending": "stopped", "beats": 5, "on_screen": 50, "paused": 9}
        | {"sessions": sessions}
        | values
    )


@pytest.mark.parametrize(
    ("service", "leeway", "is_wrong"),
    [
        (60, 0, False),
        (61, 0, False),
        (59, 0, False),
        (61.01, 0, True),
        (58.99, 0, True),
        (58.99, 0.5, False),
        (58.4, 0.5, True),
        (61.01, 0.5, True),
        (None, 0, True),
    ],
)
def test_a_session_may_be_off_by_one_second_and_what_cannot_be_known(service, leeway, is_wrong):
    found = faults(watched(SessionCount(rules=60, service=service, leeway=leeway)))
    assert bool(found) is is_wrong


def test_differences_of_several_sessions_do_not_cancel_each_other_out():
    evening_of_two = watched(SessionCount(60, 65), SessionCount(60, 55))
    assert evening_of_two.difference == 0
    assert len(faults(evening_of_two)) == 2


@pytest.mark.parametrize(
    ("balance", "is_wrong"), [(60.6, False), (59.4, False), (60.7, True), (59.3, True)]
)
def test_the_balance_agrees_with_its_sessions_within_its_rounding(balance, is_wrong):
    assert bool(faults(watched(SessionCount(60, 60), balance=balance))) is is_wrong


def test_the_table_ends_with_the_totals():
    lines = table([watched(SessionCount(60, 60.25)), watched(SessionCount(10, 9.5), family=2)])
    assert lines[0].split()[:3] == ["family", "who", "ended"]
    assert lines[-1].split()[:3] == ["total", "2", "people"]
    assert lines[-1].split()[-4:] == ["69.75", "-", "-0.250", "0.500"]


def test_surprises_are_counted_by_what_they_are():
    surprises = Surprises()
    for _ in range(3):
        surprises.note("late", is_fault=False)
    surprises.note("wrong", is_fault=True)
    assert surprises.counted(faults=False) == [("late", 3)]
    assert surprises.counted(faults=True) == [("wrong", 1)]


# The command


@pytest.fixture
def titles(transactional_db):
    return [
        Title.objects.create(title=f"Title {number}", is_educational=number % 2 == 0)
        for number in range(6)
    ]


def play(**options):
    """Plays six seconds for three families; answers what was printed."""
    printed = StringIO()
    values = {"families": 3, "minutes": 0.1, "beat": 1.0, "seed": 7, "stdout": printed} | options
    try:
        call_command("play", **values)
    except CommandError as error:
        error.printed = printed.getvalue()
        raise
    return printed.getvalue()


def test_an_evening_of_three_families_is_counted_to_the_second(titles, live_server):
    printed = play(base_url=live_server.url)
    assert "WRONG" not in printed
    assert "Surprise" not in printed
    rows = re.findall(r"^ +\d+  (kid|kid 1|kid 2|adult) +(stopped|left) ", printed, re.MULTILINE)
    assert rows == [
        ("kid", "stopped"),
        ("kid", "left"),
        ("kid 1", "stopped"),
        ("kid 2", "stopped"),
        ("adult", "stopped"),
    ]
    assert ViewingSession.objects.filter(ended_at=None).count() == 1
    assert ViewingTimeBalance.objects.count() == 4


def test_a_service_that_counts_too_much_is_found_out(titles, live_server, monkeypatch):
    counted_until = ledger.Session.counted_until
    monkeypatch.setattr(
        ledger.Session,
        "counted_until",
        lambda session, instant: counted_until(session, instant) * 3,
    )
    with pytest.raises(CommandError) as caught:
        play(base_url=live_server.url, families=1, minutes=0.06)
    assert caught.value.returncode == 1
    assert "WRONG: family 1, kid: a session was counted" in caught.value.printed


def test_an_outlived_token_is_refreshed_and_the_evening_goes_on(titles, live_server, settings):
    settings.ACCESS_TOKEN_SECONDS = 1
    printed = play(base_url=live_server.url, families=1, minutes=0.06)
    assert "answered 401" in printed
    assert "WRONG" not in printed


def test_a_service_that_is_away_for_a_moment_is_asked_again(titles, live_server, monkeypatch):
    process, refusals = gathering.process, iter(range(4))

    def away_at_first(*args):
        if next(refusals, None) is not None:
            raise OperationalError
        return process(*args)

    monkeypatch.setattr(gathering, "process", away_at_first)
    printed = play(base_url=live_server.url, minutes=0.06)
    assert re.search(r"heartbeat answered 503 unavailable; asked again \(4x\)", printed)
    assert "WRONG" not in printed


def test_a_beat_that_fails_for_good_makes_the_run_fail(titles, live_server, monkeypatch):
    monkeypatch.setattr(gathering, "process", lambda beats, caller: [not_found()])
    with pytest.raises(CommandError) as caught:
        play(base_url=live_server.url, families=1, minutes=0.06)
    assert caught.value.returncode == 1
    assert "WRONG: POST viewing-time/heartbeat answered 404 not_found; given up" in (
        caught.value.printed
    )


def test_one_title_can_be_asked_for(titles, live_server):
    play(base_url=live_server.url, families=1, minutes=0.03, title_id=[titles[0].id])
    assert set(ViewingSession.objects.values_list("title_id", flat=True)) == {titles[0].id}


def refusal(**options):
    """The sentence with which the command ends before it begins."""
    with pytest.raises(CommandError) as caught:
        play(**options)
    assert caught.value.returncode == 2
    return str(caught.value)


def test_without_a_service_it_says_so(titles):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        said = refusal(base_url=f"http://127.0.0.1:{closed.getsockname()[1]}")
    assert "No service answers at http://127.0.0.1" in said


def test_another_kind_of_service_is_not_played_with(titles, live_server):
    assert "is not this service" in refusal(base_url=f"{live_server.url}/elsewhere")


@pytest.mark.django_db
def test_an_empty_catalogue_is_said_to_be_empty():
    assert "The catalogue is empty" in refusal()


@pytest.mark.django_db
def test_a_title_that_does_not_exist_is_not_played():
    assert "does not exist or is withdrawn" in refusal(title_id=[uuid4()])


@pytest.mark.parametrize(
    "arguments", [["--families", "0"], ["--minutes", "0"], ["--minutes", "601"], ["--beat", "0"]]
)
def test_numbers_that_make_no_sense_are_refused(arguments):
    with pytest.raises(CommandError):
        call_command("play", *arguments)

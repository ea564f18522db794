"""What a beat costs: every message sent to the server, seen on the wire by libpq's trace."""

import re
from collections.abc import Callable
from uuid import uuid4

import pytest
from django.db import connection
from model_bakery import baker
from rest_framework.exceptions import AuthenticationFailed

from benchmarks.round_trips import messages_of
from parentalcontrols import config_cache
from parentalcontrols.authentication import Caller
from parentalcontrols.models import Account, Profile, Title, ViewingTimeConfig
from parentalcontrols.problems import Problem
from viewingtime import heartbeats
from viewingtime.heartbeats import Heartbeat
from viewingtime.ledger import Answer
from viewingtime.models import ViewingSession, ViewingTimeBalance
from viewingtime.tests.test_concurrency import Household, pass_time

pytestmark = pytest.mark.django_db(transaction=True)

_TRANSACTION = re.compile(r'"(BEGIN|COMMIT)')


def statements_of(call: Callable[[], object]) -> tuple[int, int]:
    """How many statements a call sends, and how many BEGIN and COMMIT besides."""
    call()  # Prepares what the connection has not seen yet.
    sent = messages_of(call)
    control = [rest for kind, rest in sent if kind == "Query" and _TRANSACTION.search(rest)]
    return len(sent) - len(control), len(control)


def test_a_steady_beat_is_one_statement_without_a_transaction() -> None:
    home = Household()
    beat = home.beat(home.children[0], home.open(home.children[0]))
    assert statements_of(lambda: home.send(beat)) == (1, 0)


def test_a_steady_beat_that_the_cache_knows_nothing_of_is_two() -> None:
    home = Household()
    beat = home.beat(home.children[0], home.open(home.children[0]))

    def send() -> None:
        config_cache.invalidate(home.children)
        home.send(beat)

    assert statements_of(send) == (2, 0)


def test_a_batch_of_500_steady_beats_costs_what_one_costs() -> None:
    home = Household()
    children = Profile.objects.bulk_create(
        Profile(account=home.account, name=f"child {n}", is_kids=True) for n in range(500)
    )
    ViewingTimeConfig.objects.bulk_create(ViewingTimeConfig(profile=child) for child in children)
    opened = home.send(*[home.beat(child.id) for child in children])
    beats = [
        home.beat(child.id, answer.session_id)
        for child, answer in zip(children, opened, strict=True)
    ]
    assert statements_of(lambda: home.send(*beats)) == (1, 0)
    config_cache.invalidate(beat.profile_id for beat in beats[::2])
    home.send(*beats)  # What was missing is there again.
    assert statements_of(lambda: home.send(*beats)) == (1, 0)


def test_a_batch_of_500_first_beats_costs_what_one_costs() -> None:
    home = Household(children=1)
    alone = statements_of(lambda: home.send(home.beat(home.children[0])))
    children = Profile.objects.bulk_create(
        Profile(account=home.account, name=f"child {n}", is_kids=True) for n in range(500)
    )
    ViewingTimeConfig.objects.bulk_create(ViewingTimeConfig(profile=child) for child in children)
    beats = [home.beat(child.id) for child in children]
    assert alone == statements_of(lambda: home.send(*beats)) == (2, 2)


@pytest.mark.parametrize("cache", ["warm", "cold"])
@pytest.mark.parametrize(
    "kind", ["title", "device", "stale", "superseded", "restart", "no config", "exhausted"]
)
def test_any_other_beat_is_at_most_three_statements(kind: str, cache: str) -> None:
    home = Household()
    child = home.children[0]
    titles = [home.title, baker.make(Title, title="other", artwork_url="").id]
    state = {"session": home.open(child), "turn": 0}

    def send() -> None:
        state["turn"] += 1
        beat = home.beat(child, state["session"])
        if kind == "title":
            beat = Heartbeat(child, titles[state["turn"] % 2], "tv", session_id=state["session"])
        elif kind == "device":
            beat = home.beat(child, state["session"], device=f"device {state['turn']}")
        elif kind == "restart":
            beat = home.beat(child)
        state["session"] = home.send(beat)[0].session_id or state["session"]

    def prepared() -> None:
        if kind == "stale":
            pass_time(400)
        elif kind == "superseded":
            home.send(home.beat(child, device="phone"))
        elif kind == "no config":
            ViewingTimeConfig.objects.all().delete()
        elif kind == "exhausted":
            ViewingTimeBalance.objects.update(limit_seconds=0)

    send()
    send()
    prepared()
    sent = []

    def once() -> None:
        if not sent:
            sent.append(True)
            return
        if cache == "cold":
            config_cache.invalidate(home.children)
        send()

    statements, control = statements_of(once)
    assert statements <= 3
    assert control in (0, 2)


def test_a_mixed_batch_costs_three_statements_more_than_a_steady_one() -> None:
    home = Household(children=3)
    steady = home.beat(home.children[0], home.open(home.children[0]))
    first = home.beat(home.children[1])
    twice = home.beat(home.children[2])
    assert statements_of(lambda: home.send(steady, first, twice, twice)) == (3, 2)


def test_a_refused_beat_is_at_most_three_statements() -> None:
    home = Household()
    stranger = Household()
    beats = [
        home.beat(uuid4()),
        home.beat(stranger.children[0]),
        home.beat(home.children[0], uuid4()),
        home.beat(home.children[0], stranger.open(stranger.children[0])),
        Heartbeat(home.children[0], uuid4(), "tv"),
    ]
    for beat in beats:
        answers: list[object] = []
        statements, _ = statements_of(
            lambda beat=beat, answers=answers: answers.extend(
                heartbeats.process([beat], home.caller)
            )
        )
        assert statements <= 3
        assert all(isinstance(answer, Problem) and answer.status == 404 for answer in answers)
    assert ViewingSession.objects.filter(profile__account=home.account).count() == 0


def prepared_steady_statements() -> int:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM pg_prepared_statements WHERE statement LIKE %s",
            ["%INSERT INTO viewing_time_balances AS b%UPDATE viewing_sessions%"],
        )
        (number,) = cursor.fetchone()
    return int(number)


@pytest.mark.direct("nothing is prepared there")
def test_the_steady_statement_is_prepared_once_per_connection() -> None:
    home = Household()
    beat = home.beat(home.children[0], home.open(home.children[0]))
    for _ in range(4):
        home.send(beat)
    assert prepared_steady_statements() == 1


@pytest.mark.direct("nothing is prepared there")
def test_a_rehearsal_leaves_the_steady_statement_prepared_and_nothing_else() -> None:
    connection.close()
    heartbeats.rehearse_credit()
    assert prepared_steady_statements() == 1
    assert not Account.objects.exists()
    assert not ViewingSession.objects.exists()


def test_an_account_that_is_gone_is_refused_whatever_it_sends() -> None:
    home = Household()
    beat = home.beat(home.children[0], home.open(home.children[0]))
    Account.objects.filter(id=home.account.id).update(is_active=False)
    for sent in (beat, home.beat(home.children[0]), home.beat(uuid4())):
        with pytest.raises(AuthenticationFailed):
            heartbeats.process([sent], home.caller)
    with pytest.raises(AuthenticationFailed):
        heartbeats.process([beat], Caller(uuid4(), 0, "account"))


def test_any_number_of_refused_requests_is_asked_for_at_once() -> None:
    home, stranger, gone = Household(children=3), Household(), Household()
    Account.objects.filter(id=gone.account.id).update(is_active=False)
    device = Caller(home.account.id, 0, "profile", profile_id=home.children[0])
    lost = Caller(home.account.id, 0, "profile", profile_id=uuid4())
    late = Caller(home.account.id, 7, "account")
    sent = [
        (home.caller, home.beat(uuid4()), 404),
        (stranger.caller, home.beat(home.children[0]), 404),
        (device, home.beat(home.children[1]), 404),
        (lost, home.beat(home.children[1]), 401),
        (late, home.beat(home.children[2]), 401),
        (gone.caller, gone.beat(gone.children[0]), 401),
        (Caller(uuid4(), 0, "account"), home.beat(uuid4()), 401),
    ]
    requests: list[heartbeats.Request] = []

    def credit() -> None:
        requests[:] = [
            heartbeats.Request([beat], caller) for _ in range(10) for caller, beat, _ in sent
        ]
        heartbeats.credit(requests)

    statements, _ = statements_of(credit)
    # The profiles, those in doubt once more, their accounts, the children of devices.
    assert statements <= 4
    assert sum(request.round_trips for request in requests) == statements
    for request, (_, _, status) in zip(requests, sent * 10, strict=True):
        if status == 401:
            assert isinstance(request.error, AuthenticationFailed)
        else:
            assert request.error is None
            assert isinstance(request.answers[0], Problem)
            assert request.answers[0].status == 404


def test_a_cache_that_has_not_heard_refuses_nobody_of_many() -> None:
    homes = [Household() for _ in range(5)]
    beats = [home.beat(home.children[0], home.open(home.children[0])) for home in homes]
    Account.objects.update(token_version=3)
    callers = [Caller(home.account.id, 3, "account") for home in homes]
    requests = [
        heartbeats.Request([beat], caller) for beat, caller in zip(beats, callers, strict=True)
    ]
    heartbeats.credit(requests)
    assert [request.error for request in requests] == [None] * 5
    assert all(isinstance(request.answers[0], Answer) for request in requests)

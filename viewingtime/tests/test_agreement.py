"""The database agrees with the rules in `viewingtime.ledger`, whichever path served a beat."""

import random
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest
from model_bakery import baker

from parentalcontrols import profiles
from parentalcontrols.authentication import Caller
from parentalcontrols.models import Account, Profile, Title
from parentalcontrols.problems import Problem
from parentalcontrols.viewing_day import changed_schedules
from pins import audit
from pins.tests.service import SOAK_SECONDS
from viewingtime import grants, heartbeats, ledger, ledgers, limits
from viewingtime.heartbeats import Heartbeat
from viewingtime.ledger import Balance, Beat, Ledger, Session
from viewingtime.models import ViewingSession, ViewingTimeBalance
from viewingtime.tests import clock

pytestmark = pytest.mark.django_db

DEVICES = ("tv", "phone")
ZONES = ("UTC", "Europe/Berlin", "America/New_York", "Asia/Kathmandu", "Pacific/Apia")


@dataclass
class Person:
    """A profile and what the rules make of it."""

    profile: Profile
    book: Ledger = field(default_factory=Ledger)
    config: dict = field(default_factory=dict)
    earlier: list = field(default_factory=list)

    @property
    def viewer(self):
        if not self.profile.is_kids:
            return ledger.ADULT
        return ledgers.viewer_of(ledgers._Config(**self.config, earlier_schedules=self.earlier))


class World:
    """A household whose every event is told to the rules and to the database alike."""

    def __init__(self, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
        self.random = random.Random(seed)
        self.now = datetime(2026, 3, 28, 4, 50, tzinfo=UTC) + timedelta(
            seconds=self.random.randrange(200_000)
        )
        self.account = baker.make(Account, email=f"{uuid4()}@example.com", is_active=True)
        self.caller = Caller(self.account.id, self.account.token_version, "account")
        self.titles = [
            baker.make(Title, title="cartoon", is_educational=False, artwork_url=""),
            baker.make(Title, title="other cartoon", is_educational=False, artwork_url=""),
            baker.make(Title, title="documentary", is_educational=True, artwork_url=""),
            baker.make(
                Title, title="gone", withdrawn_at=datetime(2020, 1, 1, tzinfo=UTC), artwork_url=""
            ),
        ]
        self.people = [
            Person(profiles.create(account=self.account, name=name, is_kids=is_kids))
            for name, is_kids in (("Mia", True), ("Noah", True), ("Ada", False))
        ]
        for person in self.people:
            person.config = {"weekday_limit_minutes": 120, "weekend_limit_minutes": 180}
            if person.profile.is_kids:
                self.change(
                    person,
                    {
                        "weekday_limit_minutes": 15,
                        "weekend_limit_minutes": self.random.choice((15, None)),
                        "timezone": self.random.choice(ZONES),
                        "reset_hour": self.random.randrange(24),
                    },
                )
        self.ids: list[UUID] = []
        self.steady = 0
        monkeypatch.setattr(heartbeats, "uuid4", lambda: self.ids.pop(0))
        real = heartbeats._credit_steady

        def counted(*args):
            answers = real(*args)
            self.steady += len(answers)
            return answers

        monkeypatch.setattr(heartbeats, "_credit_steady", counted)

    def new_id(self) -> UUID:
        self.ids.append(uuid4())
        return self.ids[-1]

    def pass_time(self) -> None:
        seconds = self.random.choice((0, 0.25, 5, 29, 30, 30, 30, 31, 60, 180, 300, 300.5, 900, -3))
        if self.random.random() < 0.03:
            seconds = self.random.choice((-6, -4000, 40_000, 90_000))
        self.now += timedelta(seconds=seconds, microseconds=self.random.randrange(1000))
        clock.set_to(self.now)

    def change(self, person: Person, changes: dict) -> None:
        clock.set_to(self.now)
        limits.change(
            profile_id=person.profile.id,
            account_id=self.account.id,
            changes=changes,
            actor=audit.OPERATOR,
        )
        config = person.config
        person.earlier = changed_schedules(
            reset_hour=config.get("reset_hour", 6),
            timezone=config.get("timezone", "UTC"),
            earlier=person.earlier,
            new_reset_hour=changes.get("reset_hour", config.get("reset_hour", 6)),
            new_timezone=changes.get("timezone", config.get("timezone", "UTC")),
            now=self.now,
            latest_day=person.book.latest_day,
        )
        person.config = config | changes
        day = person.viewer.schedule.viewing_day(self.now, person.book.latest_day).date
        if day in person.book.balances:
            balance = replace(person.book.balances[day], limit=person.viewer.limit(day))
            person.book = Ledger(person.book.sessions, {**person.book.balances, day: balance})

    def some_beat(self, person: Person) -> Heartbeat:
        choose = self.random
        sessions = sorted(person.book.sessions.values(), key=lambda s: (s.started_at, str(s.id)))
        session = sessions[-1] if sessions else None
        if sessions and choose.random() < 0.15:
            session = choose.choice(sessions)
        fits = session is not None and choose.random() < 0.8
        title = choose.choice(self.titles).id
        device = choose.choice(DEVICES)
        return Heartbeat(
            profile_id=person.profile.id,
            title_id=session.title_id if fits else title,
            device_id=session.device_id if fits else device,
            session_id=session.id if session is not None and choose.random() < 0.9 else None,
            is_paused=choose.random() < 0.2,
        )

    def beat(self) -> None:
        crowd = self.random.choice(
            ([self.random.choice(self.people)], self.people, self.people * 2)
        )
        beats = [self.some_beat(person) for person in crowd]
        expected: dict[int, object] = {}
        for person in self.people:
            for index, beat in enumerate(beats):
                if beat.profile_id == person.profile.id:
                    expected[index] = self.expected(person, beat)
        answers = heartbeats.process(beats, self.caller)
        for index, answer in enumerate(answers):
            if isinstance(answer, Problem):
                assert expected[index] == answer.status
            else:
                assert answer == expected[index], (beats[index], self.now)
        assert not self.ids

    def expected(self, person: Person, beat: Heartbeat) -> object:
        title = next(t for t in self.titles if t.id == beat.title_id)
        sent = Beat(
            title=ledger.Title(
                title.id,
                is_educational=title.is_educational,
                is_withdrawn=title.withdrawn_at is not None,
            ),
            device_id=beat.device_id,
            session_id=beat.session_id,
            is_paused=beat.is_paused,
        )
        ids = len(self.ids)
        try:
            person.book, answer = ledger.transition(
                person.book, person.viewer, sent, self.now, self.new_id
            )
        except (ledger.TitleNotFound, ledger.SessionNotFound):
            assert len(self.ids) == ids
            return 404
        return answer

    def end(self) -> None:
        person = self.random.choice(self.people)
        if not person.book.sessions:
            return
        session_id = self.random.choice(sorted(person.book.sessions, key=str))
        person.book, session = ledger.end_session(
            person.book, person.viewer, session_id, self.now, self.new_id
        )
        ended = heartbeats.end(session_id, self.caller)
        assert ended.ended_at == session.ended_at
        assert ended.total_seconds == session.total.total_seconds()

    def grant(self) -> None:
        person = self.random.choice(self.people[:2])
        minutes = self.random.choice((15, 30, 60, None)) if self.random.random() < 0.3 else 15
        person.book, balance = ledger.grant(person.book, person.viewer, minutes, self.now)
        granted = grants.grant(
            profile_id=person.profile.id,
            account_id=self.account.id,
            minutes=minutes,
            actor=audit.OPERATOR,
            is_remote=True,
        )
        remaining = balance.remaining
        assert granted.remaining == (None if remaining is None else max(ledger.ZERO, remaining))

    def sweep(self) -> None:
        for person in self.people:
            person.book = ledger.close_silent(person.book, person.viewer, self.now)
        ledgers.close_silent(batch=1)

    def configure(self) -> None:
        changes = self.random.choice(
            (
                {"weekday_limit_minutes": self.random.choice((15, 30, None))},
                {"educational_exempt": self.random.random() < 0.7},
                {"reset_hour": self.random.randrange(24)},
                {"timezone": self.random.choice(ZONES)},
            )
        )
        self.change(self.random.choice(self.people[:2]), changes)

    def agrees(self) -> None:
        for person in self.people:
            rows = ViewingSession.objects.filter(profile=person.profile)
            stored = {
                row.id: Session(
                    id=row.id,
                    title_id=row.title_id,
                    device_id=row.device_id,
                    device_type=row.device_type,
                    is_educational=row.is_educational,
                    reset_date=row.reset_date,
                    started_at=row.started_at,
                    last_heartbeat_at=row.last_heartbeat_at,
                    paused_at=row.paused_at,
                    ended_at=row.ended_at,
                    end_reason=row.end_reason,
                    total=timedelta(seconds=float(row.total_seconds)),
                    educational=timedelta(seconds=float(row.educational_seconds)),
                )
                for row in rows
            }
            assert stored == person.book.sessions
            balances = {
                row.reset_date: Balance(
                    row.reset_date,
                    used=timedelta(seconds=float(row.used_seconds)),
                    educational=timedelta(seconds=float(row.educational_seconds)),
                    granted=timedelta(seconds=float(row.granted_seconds)),
                    is_unlimited_override=row.is_unlimited_override,
                    limit=ledgers.limit_of(row.limit_seconds),
                )
                for row in ViewingTimeBalance.objects.filter(profile=person.profile)
            }
            assert balances == person.book.balances
            for day, balance in balances.items():
                watched = sum(
                    (s.total for s in stored.values() if s.reset_date == day), start=ledger.ZERO
                )
                assert watched == balance.used + balance.educational


@pytest.mark.parametrize("seed", range(round(2 * SOAK_SECONDS)))
def test_random_evenings_leave_the_same_rows_as_the_rules(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock.install()
    world = World(seed, monkeypatch)
    for _ in range(70):
        world.pass_time()
        event = world.random.choices(
            (world.beat, world.end, world.grant, world.sweep, world.configure),
            weights=(80, 5, 4, 4, 7),
        )[0]
        event()
        world.agrees()
    assert world.steady > 5, "the one-statement path had no part in this"


def test_a_clock_that_steps_back_over_the_reset_finds_the_old_days_balance(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock.install()
    world = World(0, monkeypatch)
    child = world.people[0]
    changes = {"weekday_limit_minutes": 15, "timezone": "UTC", "reset_hour": 6}
    world.change(child, changes)
    reset = datetime(2026, 4, 1, 6, tzinfo=UTC)
    beat = Heartbeat(child.profile.id, world.titles[0].id, "tv")
    for seconds in (800, 600, 400, 200, 2):
        clock.set_to(reset - timedelta(seconds=seconds))
        monkeypatch.setattr(heartbeats, "uuid4", uuid4)
        (answer,) = heartbeats.process([beat], world.caller)
        beat = replace(beat, session_id=answer.session_id)
    clock.set_to(reset + timedelta(seconds=1))
    grants.grant(
        profile_id=child.profile.id,
        account_id=world.account.id,
        minutes=15,
        is_remote=True,
        actor=audit.OPERATOR,
    )
    clock.set_to(reset - timedelta(seconds=1))
    (steady,) = heartbeats.process([beat], world.caller)
    general = heartbeats.process([beat, beat], world.caller)
    assert general == [steady, steady]
    assert steady.used == timedelta(seconds=799)

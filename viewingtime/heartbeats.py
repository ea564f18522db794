"""One function for one beat or five hundred: look up, credit, decide by the ledger, answer.

Statements for a whole batch: one look-up of the sessions that beats name (with profile, account,
config and title joined), one that credits the steady ones. For all others together: one look-up
of profiles that are not known yet, one that locks and reads, one that writes back.
"""

import logging
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar
from uuid import UUID, uuid4

from django.contrib.auth import get_user_model
from django.db import InterfaceError, OperationalError, connection, transaction
from django.db.models import DateTimeField, Func, QuerySet

from parentalcontrols.authentication import Caller, require_live
from parentalcontrols.models import Profile
from parentalcontrols.problems import Problem, not_found, unavailable
from viewingtime import ledger, ledgers, sql
from viewingtime.ledger import ADULT, Answer, Balance, Beat, Ledger, Session, Title, Viewer
from viewingtime.models import ViewingSession

logger = logging.getLogger(__name__)
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """A beat as it was sent."""

    profile_id: UUID
    title_id: UUID
    device_id: str
    device_type: str = "web"
    session_id: UUID | None = None
    is_paused: bool = False


@dataclass(frozen=True, slots=True)
class Ended:
    """What the end of a session is answered; `total_seconds` of the session asked for."""

    session_id: UUID
    total_seconds: float
    ended_at: datetime


@dataclass(frozen=True, slots=True)
class _Known:
    """A session as the look-up saw it, and the rules its profile watches under."""

    session: Session
    viewer: Viewer
    is_configured: bool
    profile_id: UUID
    now: datetime


class ClockTimestamp(Func):
    """The database's clock, for the ORM."""

    function = "clock_timestamp"
    output_field = DateTimeField()


def process(heartbeats: Sequence[Heartbeat], caller: Caller) -> list[Answer | Problem]:
    """Books heartbeats in list order and answers one by one; a refused one spoils no other.

    Everything that is answered with success is committed. Raises `AuthenticationFailed` where the
    caller's account does not honour the token any more, and database errors as they are.
    """
    answers: dict[int, Answer | Problem] = {}
    named = {beat.session_id for beat in heartbeats if beat.session_id is not None}
    known = _reconnecting(lambda: _known_sessions(named, caller)) if named else {}

    beats_of = Counter(beat.profile_id for beat in heartbeats)
    steady = {
        index: known[beat.session_id]
        for index, beat in enumerate(heartbeats)
        if beat.session_id in known
        and beats_of[beat.profile_id] == 1
        and _looks_steady(beat, known[beat.session_id])
    }
    if steady:
        answers |= _credit_steady({index: heartbeats[index] for index in steady}, steady)

    others = {i: beat for i, beat in enumerate(heartbeats) if i not in answers}
    try:
        if others or not known:
            answers |= _decide(others, caller, {k.profile_id for k in known.values()})
    except (OperationalError, InterfaceError):
        # What is credited is committed and must be told.
        if not answers:
            raise
        logger.warning("heartbeats_unavailable", extra={"count": len(others)})
        answers |= {index: unavailable() for index in others}
    return [answers[index] for index in range(len(heartbeats))]


def _reconnecting(query: Callable[[], T]) -> T:
    """Runs a request's first query; a connection that died in the meantime is made anew, once.

    Safe because the query only reads and nothing was sent before it. This is what the hot path
    has instead of a health check on every request.
    """
    _skip_health_check()
    try:
        return query()
    except (OperationalError, InterfaceError):
        lost = connection.connection is None or connection.connection.closed
        if connection.in_atomic_block or not lost:
            raise
        connection.close()
        _skip_health_check()
        return query()


def _skip_health_check() -> None:
    """Django would send a `SELECT 1` before the first query of every request."""
    connection.health_check_done = True  # type: ignore[attr-defined]


def _known_sessions(session_ids: Iterable[UUID], caller: Caller) -> dict[UUID, _Known]:
    """The caller's sessions among those, by id, as they stand; locks nothing."""
    known = {}
    for row in look_up(session_ids, caller):
        profile = row.profile
        require_live(profile.account, caller)
        config = getattr(profile, "viewing_time_config", None)
        known[row.id] = _Known(
            session=ledgers.session_of(row),
            viewer=ledgers.viewer_of(config) if profile.is_kids else ADULT,
            is_configured=config is not None or not profile.is_kids,
            profile_id=profile.id,
            now=row.now,
        )
    return known


def look_up(session_ids: Iterable[UUID], caller: Caller) -> QuerySet[Any]:
    """The look-up's one query; each row also has `now`, the database's clock."""
    return (
        _sessions_of(caller)
        .filter(id__in=session_ids)
        .select_related("profile__account", "profile__viewing_time_config", "title")
        .only(
            *("profile__account__is_active", "profile__account__token_version"),
            *("profile__is_kids", "profile__account_id"),
            *("profile__viewing_time_config__" + name for name in ledgers.CONFIG_FIELDS),
            *("title__is_educational", "title__withdrawn_at"),
            *(field.attname for field in ViewingSession._meta.concrete_fields),
        )
        .annotate(now=ClockTimestamp())
    )


def _sessions_of(caller: Caller) -> QuerySet[ViewingSession]:
    """The sessions a caller reaches: a parent those of the household, a child's device its own."""
    sessions = ViewingSession.objects.filter(profile__account_id=caller.account_id)
    return sessions if caller.profile_id is None else sessions.filter(profile_id=caller.profile_id)


def _looks_steady(beat: Heartbeat, known: _Known) -> bool:
    """Whether the look-up lets one statement do the beat; that statement judges again."""
    if beat.profile_id != known.profile_id or not known.is_configured:
        return False
    title = Title(beat.title_id)
    return ledger.is_steady(known.session, known.viewer, _beat(beat, title), known.now)


def _beat(heartbeat: Heartbeat, title: Title | None) -> Beat:
    return Beat(
        title=title,
        device_id=heartbeat.device_id,
        device_type=heartbeat.device_type,
        session_id=heartbeat.session_id,
        is_paused=heartbeat.is_paused,
    )


def _credit_steady(
    heartbeats: dict[int, Heartbeat], known: dict[int, _Known]
) -> dict[int, Answer | Problem]:
    """Credits steady beats in one statement; those that turn out not to be are not answered."""
    days = [k.viewer.schedule.bounds(k.session.reset_date) for k in known.values()]
    limits = [
        ledgers.limit_seconds(k.viewer.limit(day.date))
        for k, day in zip(known.values(), days, strict=True)
    ]
    with connection.cursor() as cursor:
        cursor.execute(
            sql.CREDIT_STEADY,
            {
                "session_ids": [k.session.id for k in known.values()],
                "profile_ids": [k.profile_id for k in known.values()],
                "title_ids": [beat.title_id for beat in heartbeats.values()],
                "device_ids": [beat.device_id for beat in heartbeats.values()],
                "paused": [beat.is_paused for beat in heartbeats.values()],
                "exempting": [k.viewer.educational_exempt for k in known.values()],
                "days": [day.date for day in days],
                "ends": [day.ends_at for day in days],
                "limits": limits,
            },
        )
        rows = {row[0]: row[1:] for row in cursor.fetchall()}
    answers: dict[int, Answer | Problem] = {}
    for index, found in known.items():
        row = rows.get(found.session.id)
        if row is None:
            continue
        beat_at, paused_at, used, educational, granted, override, limit_seconds = row
        session, viewer = found.session, found.viewer
        balance = None
        if viewer.is_kids:
            balance = Balance(
                session.reset_date,
                used=ledgers.amount(used),
                educational=ledgers.amount(educational),
                granted=ledgers.amount(granted),
                is_unlimited_override=override,
                limit=ledgers.limit_of(limit_seconds),
            )
        answers[index] = ledger.told(
            session_id=session.id,
            balance=balance,
            is_educational=session.is_educational,
            is_exempt=viewer.exempts(session.is_educational),
            paused_for=None if paused_at is None else beat_at - paused_at,
        )
    return answers


def _decide(
    heartbeats: dict[int, Heartbeat], caller: Caller, known_profiles: set[UUID]
) -> dict[int, Answer | Problem]:
    """Locks the beats' profiles, lets the rules decide beat after beat, and writes back."""
    unknown = {beat.profile_id for beat in heartbeats.values()} - known_profiles
    if unknown or not known_profiles:
        known_profiles = known_profiles | _reconnecting(lambda: _own_profiles(unknown, caller))
    answers: dict[int, Answer | Problem] = {}
    beats_of: dict[UUID, list[int]] = defaultdict(list)
    for index, beat in heartbeats.items():
        if beat.profile_id in known_profiles:
            beats_of[beat.profile_id].append(index)
        else:
            answers[index] = not_found()
    if not beats_of:
        return answers
    wanted = [heartbeats[index] for indexes in beats_of.values() for index in indexes]
    with transaction.atomic():
        held = ledgers.hold(
            beats_of,
            session_ids={b.session_id for b in wanted if b.session_id is not None},
            title_ids={b.title_id for b in wanted},
        )
        after: dict[UUID, Ledger] = {}
        for profile_id, indexes in beats_of.items():
            book = held.ledgers.get(profile_id)
            for index in indexes:
                if book is None:
                    # Deleted since it was looked up.
                    answers[index] = not_found()
                    continue
                sent = heartbeats[index]
                try:
                    book, answers[index] = ledger.transition(
                        book,
                        held.viewers[profile_id],
                        _beat(sent, held.titles.get(sent.title_id)),
                        held.now,
                        uuid4,
                    )
                    after[profile_id] = book
                except (ledger.TitleNotFound, ledger.SessionNotFound):
                    answers[index] = not_found()
        ledgers.write_back(held, after)
    return answers


def _own_profiles(profile_ids: Iterable[UUID], caller: Caller) -> set[UUID]:
    """Those of the profiles that are the caller's; also makes sure that the caller still is."""
    wanted = set(profile_ids)
    if caller.profile_id is not None:
        wanted = {caller.profile_id}
    profiles = list(
        Profile.objects.filter(account_id=caller.account_id, id__in=wanted)
        .select_related("account")
        .only("account__is_active", "account__token_version")
    )
    account = profiles[0].account if profiles else None
    if account is None and caller.is_parent:
        account = get_user_model().objects.filter(id=caller.account_id).first()
    # The device of a child that was deleted has no account any more.
    require_live(account, caller)
    return {profile.id for profile in profiles}


def end(session_id: UUID, caller: Caller) -> Ended:
    """The player says that a session is over; ending it twice answers the same.

    Raises a 404 `Problem` where the session is not the caller's.
    """
    owner = _reconnecting(
        lambda: (
            _sessions_of(caller)
            .filter(id=session_id)
            .select_related("profile__account")
            .only("profile__account__is_active", "profile__account__token_version")
            .first()
        )
    )
    if owner is None:
        _own_profiles((), caller)
        raise not_found()
    require_live(owner.profile.account, caller)
    with transaction.atomic():
        held = ledgers.hold([owner.profile_id], session_ids=[session_id])
        if owner.profile_id not in held.ledgers:
            raise not_found()
        try:
            after, session = ledger.end_session(
                held.ledgers[owner.profile_id],
                held.viewers[owner.profile_id],
                session_id,
                held.now,
                uuid4,
            )
        except ledger.SessionNotFound:
            raise not_found() from None
        ledgers.write_back(held, {owner.profile_id: after})
    return Ended(session.id, session.total.total_seconds(), session.ended_at or held.now)

"""One function for one beat or five hundred: look up, credit, decide by the ledger, answer.

What a beat must know of its profile, account and config comes from `config_cache`; one look-up
loads what is missing there, with the sessions that those beats name. One statement credits the
beats that look steady. For all others together: one statement locks and reads, one writes back.

Several requests can be taken together (`Request`, `credit`, `decide`): that is how a web process
gathers the beats that arrive while a statement runs (`viewingtime.gathering`). `process` takes one.
"""

import logging
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import TypeVar
from uuid import UUID, uuid4

from django.conf import settings
from django.contrib.auth import get_user_model
from django.db import InterfaceError, OperationalError, connection, transaction
from django.db.models import DateTimeField, FilteredRelation, Func, Q, QuerySet
from rest_framework.exceptions import AuthenticationFailed

from parentalcontrols import config_cache, request_ids
from parentalcontrols.authentication import SCOPE_ACCOUNT, Caller, require_live
from parentalcontrols.config_cache import Known
from parentalcontrols.models import Profile, ViewingTimeConfig
from parentalcontrols.models import Title as StoredTitle
from parentalcontrols.problems import Problem, not_found, unavailable
from viewingtime import ledger, ledgers, steady
from viewingtime.ledger import Answer, Beat, Ledger, Session, Title
from viewingtime.models import ViewingSession

logger = logging.getLogger(__name__)
T = TypeVar("T")

_NOBODYS = UUID(int=0)


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


class ClockTimestamp(Func):
    """The database's clock, for the ORM."""

    function = "clock_timestamp"
    output_field = DateTimeField()


@dataclass(eq=False, slots=True)
class Request:
    """The beats of one request, and what has become of each so far.

    `error` is set where the request as a whole is refused; `round_trips` counts the messages sent
    to the database on its behalf, those that it shared with others on behalf of the first. Whoever
    works for it logs with its `request_id`.
    """

    heartbeats: Sequence[Heartbeat]
    caller: Caller
    answers: dict[int, Answer | Problem] = field(default_factory=dict)
    error: Exception | None = None
    round_trips: int = 0
    request_id: str | None = field(default_factory=request_ids.current)

    @property
    def is_answered(self) -> bool:
        """Whether nothing is left to do."""
        return self.error is not None or len(self.answers) == len(self.heartbeats)

    def give_up(self, error: Exception) -> None:
        """The database cannot answer: what is credited is committed and must be told."""
        if not self.answers:
            self.error = error
            return
        missing = [i for i in range(len(self.heartbeats)) if i not in self.answers]
        with request_ids.resumed(self.request_id):
            logger.warning("heartbeats_unavailable", extra={"count": len(missing)})
        self.answers |= {index: unavailable() for index in missing}

    def result(self) -> list[Answer | Problem]:
        """An answer for each beat, in order; raises what the request as a whole is refused for."""
        if self.error is not None:
            raise self.error
        return [self.answers[index] for index in range(len(self.heartbeats))]


def process(heartbeats: Sequence[Heartbeat], caller: Caller) -> list[Answer | Problem]:
    """Books heartbeats in list order and answers one by one; a refused one spoils no other.

    Everything that is answered with success is committed. It waits for whoever holds a child, and
    has no deadline of its own. Raises `AuthenticationFailed` where the
    caller's account does not honour the token any more, and database errors as they are.
    """
    request = Request(heartbeats, caller)
    credit([request])
    if not request.is_answered:
        try:
            decide([request])
        except (OperationalError, InterfaceError) as error:
            request.give_up(error)
    return request.result()


def credit(requests: Sequence[Request]) -> None:
    """Tells who is asking, and credits the steady beats of all requests in one statement.

    No two requests of an account may beat for the same profile; beats for another's profile are
    answered before the statement is made. What is not answered then is for `decide`.
    Raises database errors; then nothing is booked, or what is booked is booked once: sent again,
    a steady beat credits the time that has passed since, whatever became of it the first time.
    """
    wanted = {
        beat.profile_id
        for request in requests
        for beat in request.heartbeats
        if request.caller.may_see(beat.profile_id)
    }
    seen = _Seen(requests)
    known = config_cache.get_many(wanted, seen.load)
    candidates: list[steady.Candidate] = []
    places: list[tuple[Request, int]] = []
    requests[0].round_trips += seen.round_trips
    for request, own in zip(requests, _own(requests, known), strict=True):
        if request.error is not None:
            continue
        beats_of = (
            Counter(beat.profile_id for beat in request.heartbeats)
            if len(request.heartbeats) > 1
            else None
        )
        for index, beat in enumerate(request.heartbeats):
            profile = own.get(beat.profile_id)
            if profile is None:
                request.answers[index] = not_found()
                continue
            if beats_of is not None and beats_of[beat.profile_id] > 1:
                continue
            candidate = seen.candidate(beat, profile)
            if candidate is not None:
                candidates.append(candidate)
                places.append((request, index))
    if not candidates:
        return
    answers = _retrying(lambda: _credit_steady(candidates))
    requests[0].round_trips += 1
    for place, answer in answers.items():
        request, index = places[place]
        request.answers[index] = answer


#: What `credit` sends; apart, so that a test can see how many beats went this way.
_credit_steady = steady.credit


class _Seen:
    """The look-up of what the cache does not have, and the sessions that it saw on the way."""

    def __init__(self, requests: Sequence[Request]) -> None:
        self._requests = requests
        self._loaded: set[UUID] = set()
        self._sessions: dict[UUID, tuple[UUID, Session]] = {}
        self._now: datetime | None = None
        self.round_trips = 0

    def load(self, profile_ids: Collection[UUID]) -> list[Known]:
        """Profiles with account, config and those of their sessions that beats name."""
        named = {
            beat.session_id
            for request in self._requests
            for beat in request.heartbeats
            if beat.session_id is not None and beat.profile_id in profile_ids
        }
        rows = _retrying(lambda: list(look_up(profile_ids, named)))
        self.round_trips += 1
        found = {}
        for row in rows:
            found[row.id] = config_cache.known(row)
            self._now = getattr(row, "now", None)
            session = getattr(row, "named", None)
            if session is not None:
                self._sessions[session.id] = (row.id, ledgers.session_of(session))
        self._loaded.update(found)
        return list(found.values())

    def candidate(self, beat: Heartbeat, profile: Known) -> steady.Candidate | None:
        """The beat, if one statement may do it alone; that statement judges again.

        Where the session is not known its day is taken to be the running one.
        """
        if beat.session_id is None or not profile.is_configured:
            return None
        rules = steady.rules_of(profile)
        if profile.profile_id not in self._loaded or self._now is None:
            return steady.Candidate(beat, rules, rules.running_day())
        owner, session = self._sessions.get(beat.session_id, (None, None))
        if session is None or owner != beat.profile_id:
            return None
        sent = _beat(beat, Title(beat.title_id))
        if not ledger.is_steady(session, rules.viewer, sent, self._now):
            return None
        return steady.Candidate(beat, rules, rules.day(session.reset_date))


def look_up(profile_ids: Collection[UUID], session_ids: Collection[UUID]) -> QuerySet[Profile]:
    """Profiles with account and config, each with those of the sessions that are its own.

    One row for each such session (`named`), at least one a profile; locks nothing. Titles are not
    among it: a steady beat keeps that of its session, any other reads its own under the lock.
    """
    return (
        config_cache.profiles_with_configs()
        .filter(id__in=profile_ids)
        .annotate(
            named=FilteredRelation(
                "viewing_sessions",
                # Without any Django would take the condition for one that no profile fulfils.
                condition=Q(viewing_sessions__id__in=session_ids or {_NOBODYS}),
            ),
            now=ClockTimestamp(),
        )
        .select_related("account", "viewing_time_config", "named")  # type: ignore[misc]
        .order_by()
    )


def _own(requests: Sequence[Request], known: Mapping[UUID, Known]) -> list[dict[UUID, Known]]:
    """Of each request those of its profiles that are its caller's.

    `error` is set where the account does not honour the token any more. Nobody is refused by the
    cache's word alone: it may not have heard yet. All who are in doubt are asked for at once.
    """
    own: list[dict[UUID, Known]] = []
    doubtful: list[int] = []
    for place, request in enumerate(requests):
        caller = request.caller
        found = {}
        is_live = True
        for beat in request.heartbeats:
            profile = known.get(beat.profile_id)
            if (
                profile is not None
                and profile.account_id == caller.account_id
                and caller.may_see(profile.profile_id)
            ):
                found[profile.profile_id] = profile
                is_live = is_live and _is_live(profile, caller)
        own.append(found)
        if not found or not is_live:
            doubtful.append(place)
    if doubtful:
        _ask_for([requests[place] for place in doubtful], [own[place] for place in doubtful])
    return own


def _ask_for(requests: Sequence[Request], own: Sequence[dict[UUID, Known]]) -> None:
    """Asks the database for those whom the cache would refuse, three queries at the most.

    Puts into `own` what it says, and refuses whose account honours the token no more.
    """
    fresh: dict[UUID, Known] = {}
    wanted = {profile_id for found in own for profile_id in found}
    if wanted:
        requests[0].round_trips += 1
        rows = _retrying(lambda: config_cache.load(list(wanted)))
        fresh = {entry.profile_id: entry for entry in rows}
    heard: set[UUID] = set()
    nobodys: list[Request] = []
    for request, found in zip(requests, own, strict=True):
        caller = request.caller
        now = {id_: fresh[id_] for id_ in found if id_ in fresh}
        now = {id_: entry for id_, entry in now.items() if entry.account_id == caller.account_id}
        found.clear()
        if not now:
            nobodys.append(request)
        elif all(_is_live(entry, caller) for entry in now.values()):
            found.update(now)
            heard.update(now)
        else:
            request.error = AuthenticationFailed()
    if heard:
        config_cache.invalidate(heard, insist=False)
    if nobodys:
        _require_live_accounts(nobodys)


def _require_live_accounts(requests: Sequence[Request]) -> None:
    """Makes sure that callers who beat for nobody of their own still are some; refuses others."""
    callers = [request.caller for request in requests]
    ids = {caller.account_id for caller in callers}
    requests[0].round_trips += 1
    accounts = _retrying(lambda: get_user_model().objects.in_bulk(ids))
    # The device of a child that was deleted has no account any more.
    devices = {caller.profile_id for caller in callers if caller.profile_id is not None}
    children: set[tuple[UUID, UUID]] = set()
    if devices:
        requests[0].round_trips += 1
        profiles = Profile.objects.filter(id__in=devices).values_list("account_id", "id")
        children = _retrying(lambda: set(profiles))
    for request, caller in zip(requests, callers, strict=True):
        account = accounts.get(caller.account_id)
        if caller.profile_id and (caller.account_id, caller.profile_id) not in children:
            account = None
        try:
            require_live(account, caller)
        except AuthenticationFailed as error:
            request.error = error


def _is_live(profile: Known, caller: Caller) -> bool:
    """Whether the profile's account still honours the caller's token."""
    return profile.is_active and profile.token_version == caller.token_version


def _retrying(query: Callable[[], T]) -> T:
    """Runs what may be sent twice; a connection that died in the meantime is made anew, once.

    This is what the hot path has instead of a health check on every request.
    """
    _skip_health_check()
    try:
        return query()
    except (OperationalError, InterfaceError):
        if connection.in_atomic_block or not _is_lost():
            raise
        connection.close()
        _skip_health_check()
        return query()


def _is_lost() -> bool:
    return connection.connection is None or connection.connection.closed


def _skip_health_check() -> None:
    """Django would send a `SELECT 1` before the first query of every request."""
    connection.health_check_done = True  # type: ignore[attr-defined]


def _beat(heartbeat: Heartbeat, title: Title | None) -> Beat:
    return Beat(
        title=title,
        device_id=heartbeat.device_id,
        device_type=heartbeat.device_type,
        session_id=heartbeat.session_id,
        is_paused=heartbeat.is_paused,
    )


def decide(requests: Sequence[Request], *, wait: bool = True) -> None:
    """Locks the profiles of the beats that have no answer yet, lets the rules decide, writes back.

    One transaction for all; `credit` has made sure that the profiles are the callers'. With `wait`
    false the profiles that somebody else holds are left out, their beats without an answer.
    Raises database errors; nothing is booked then, unless the answer to the COMMIT was lost.
    """
    beats_of: dict[UUID, list[tuple[Request, int]]] = defaultdict(list)
    for request in requests:
        for index, beat in enumerate(request.heartbeats):
            if index not in request.answers:
                beats_of[beat.profile_id].append((request, index))
    if not beats_of:
        return
    connection.ensure_connection()
    # Where it dies in the transaction, Django connects anew before the error gets here.
    raw = connection.connection
    _skip_health_check()
    writing = False

    def begin_writing() -> None:
        nonlocal writing
        writing = True

    try:
        _decide(beats_of, requests[0], wait=wait, begin_writing=begin_writing)
    except (OperationalError, InterfaceError):
        # A connection that died before anything was written is no reason to refuse.
        if writing or connection.in_atomic_block or not raw.closed:
            raise
        connection.close()
        _skip_health_check()
        _decide(beats_of, requests[0], wait=wait, begin_writing=begin_writing)


def _decide(
    beats_of: Mapping[UUID, Sequence[tuple[Request, int]]],
    first: Request,
    *,
    wait: bool,
    begin_writing: Callable[[], None],
) -> None:
    wanted = [request.heartbeats[index] for beats in beats_of.values() for request, index in beats]
    answers: list[tuple[Request, int, Answer | Problem]] = []
    with transaction.atomic():
        held = ledgers.hold(
            beats_of,
            session_ids={b.session_id for b in wanted if b.session_id is not None},
            title_ids={b.title_id for b in wanted},
            wait=wait,
        )
        steady.note_clock(held.now)
        left_out = beats_of.keys() - held.ledgers.keys()
        deleted = left_out - _existing(left_out) if left_out and not wait else left_out
        after: dict[UUID, Ledger] = {}
        for profile_id, beats in beats_of.items():
            book = held.ledgers.get(profile_id)
            for request, index in beats:
                if book is None:
                    if profile_id in deleted:
                        answers.append((request, index, not_found()))
                    continue
                sent = request.heartbeats[index]
                try:
                    book, answer = ledger.transition(
                        book,
                        held.viewers[profile_id],
                        _beat(sent, held.titles.get(sent.title_id)),
                        held.now,
                        uuid4,
                    )
                    after[profile_id] = book
                    answers.append((request, index, answer))
                except (ledger.TitleNotFound, ledger.SessionNotFound):
                    answers.append((request, index, not_found()))
        begin_writing()
        ledgers.write_back(held, after)
    first.round_trips += 4
    unconfigured = held.unconfigured & after.keys()
    if unconfigured:
        config_cache.invalidate(unconfigured, insist=False)
    for request, index, found in answers:
        request.answers[index] = found


def _existing(profile_ids: Collection[UUID]) -> set[UUID]:
    """Those of the profiles that were not deleted since they were looked up."""
    return set(Profile.objects.filter(id__in=profile_ids).values_list("id", flat=True))


def rehearse_credit() -> None:
    """Does what `credit` does, for a household that nobody ever sees.

    Then connections are open, statements prepared, and tables known to the server's process.
    """
    config_cache.get(_NOBODYS, _Seen(()).load)
    with transaction.atomic():
        caller, beat = _invented_household()
        for _ in range(settings.PREPARE_THRESHOLD + 1):
            process([beat], caller)
        transaction.set_rollback(True)
    # psycopg forgets what it prepared when a transaction is rolled back: once more, for a session
    # that is gone.
    rules = steady.Rules(ledger.ADULT)
    _credit_steady([steady.Candidate(beat, rules, rules.running_day())])


def rehearse_decide() -> None:
    """The same for `decide`."""
    with transaction.atomic():
        caller, beat = _invented_household()
        for wait in (True, False) * (settings.PREPARE_THRESHOLD + 1):
            # Without its session it opens one, each time another.
            decide([Request([replace(beat, session_id=None)], caller)], wait=wait)
        transaction.set_rollback(True)


def _invented_household() -> tuple[Caller, Heartbeat]:
    """A child who watches, for a transaction that is rolled back."""
    account = get_user_model().objects.create(email=f"{uuid4()}@rehearsal.invalid")
    child = Profile.objects.create(account=account, name="rehearsal", is_kids=True)
    ViewingTimeConfig.objects.create(profile=child)
    title = StoredTitle.objects.create(title="rehearsal")
    caller = Caller(account.id, account.token_version, SCOPE_ACCOUNT)
    beat = Heartbeat(child.id, title.id, "rehearsal")
    request = Request([beat], caller)
    decide([request])
    answer = request.answers[0]
    assert isinstance(answer, Answer)  # nosec B101
    return caller, replace(beat, session_id=answer.session_id)


def _sessions_of(caller: Caller) -> QuerySet[ViewingSession]:
    """The sessions a caller reaches: a parent those of the household, a child's device its own."""
    sessions = ViewingSession.objects.filter(profile__account_id=caller.account_id)
    return sessions if caller.profile_id is None else sessions.filter(profile_id=caller.profile_id)


def end(session_id: UUID, caller: Caller) -> Ended:
    """The player says that a session is over; ending it twice answers the same.

    Raises a 404 `Problem` where the session is not the caller's.
    """
    owner = _retrying(
        _sessions_of(caller)
        .filter(id=session_id)
        .select_related("profile__account")
        .only("profile__account__is_active", "profile__account__token_version")
        .first
    )
    if owner is None:
        nobody = Request((), caller)
        _require_live_accounts([nobody])
        nobody.result()
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

"""Group commit: beats that arrive in a web process while a statement runs form the next one.

A request puts its beats into a queue and waits. One greenlet, with a database connection of its
own, takes all that have gathered, credits them in one statement, answers, and takes the next.
Nothing is ever delayed for company: a lone beat on an idle server is taken at once. What is not
steady goes on to the next queue, where beats are decided together in one transaction. Profiles that
somebody else holds are left out there; their beats wait in a third queue and are tried again, all
of them at once, every few milliseconds: a lock delays nobody but those who want it.

The queues are bounded, and so is the time in them: past that a 503 is honest, and cheap. A step
takes no more beats than it can book in time, whatever the database's pace (`viewingtime.pace`). A
beat that fails takes no other with it.

Only web processes of greenlets gather (`start`); elsewhere a request takes the same steps alone,
since handing work between operating system threads costs more than it saves (docs/performance.md).
"""

import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final
from uuid import UUID

from django.conf import settings
from django.db import DatabaseError, InterfaceError, OperationalError
from psycopg.errors import LockNotAvailable
from rest_framework.exceptions import AuthenticationFailed

from adminmetrics import recorder
from parentalcontrols import request_ids
from parentalcontrols.authentication import Caller
from parentalcontrols.postgresql import deadline
from parentalcontrols.problems import Problem, as_problem, fault, unavailable
from viewingtime import heartbeats
from viewingtime.heartbeats import Heartbeat, Request
from viewingtime.ledger import Answer
from viewingtime.pace import Pace

logger = logging.getLogger(__name__)

#: The most requests that wait in a queue.
MOST_REQUESTS: Final = 1000
#: The most of them that wait for one profile: more than all devices of a household.
MOST_REQUESTS_OF_ONE: Final = 64
#: Seconds between two tries to have the profiles that somebody holds.
_HELD_SECONDS: Final = 0.01
#: Seconds that a beat has to have left to be tried again, and that a statement always has.
_LEAST_SECONDS: Final = 0.2
#: Seconds within which the steady statement tells that a single row is held; a table's lock takes
#: longer to be given up.
_ROW_SECONDS: Final = 0.7
#: Seconds that a start waits for the database.
_REHEARSAL_SECONDS: Final = 3.0


#: A profile, and the account that claims it: nobody delays another's child by naming it.
Claim = tuple[UUID, UUID]


class _Waiting:
    """A request in a queue, and how to wake who waits for it."""

    __slots__ = ("claims", "done", "request", "since")

    def __init__(self, request: Request, done: Any) -> None:
        self.request = request
        self.done = done
        self.since = time.monotonic()
        self.claims = _claims(request)


def _claims(request: Request) -> set[Claim]:
    """Whom a request beats for; the device of a child is heard for that child alone."""
    caller, beats = request.caller, request.heartbeats
    account_id = caller.account_id
    if caller.profile_id is not None:
        return {(account_id, caller.profile_id)}
    if len(beats) == 1:
        return {(account_id, beats[0].profile_id)}
    return {(account_id, beat.profile_id) for beat in beats}


#: Takes what is in the requests; False where the database had not answered when time was over.
Step = Callable[[Sequence[_Waiting]], bool]


class _Queue:
    """Requests that gather while a step runs, and the greenlet that takes them to it."""

    def __init__(
        self, name: str, step: Step, rehearse: Callable[[], None], *, one_each: bool = False
    ) -> None:
        from gevent.event import Event

        self._name = name
        # Whether a step takes no profile twice; else it takes its beats in order.
        self._one_each = one_each
        self._step = step
        self._rehearse = rehearse
        self._waiting: deque[_Waiting] = deque()
        # How many of the waiting ones want each profile.
        self._wanted: dict[Claim, int] = {}
        # What a step is under way for: nobody takes another beat of those profiles to one.
        self._busy: set[Claim] = set()
        self._arrived = Event()
        self._pace = Pace()

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, waiting: _Waiting) -> bool:
        """Adds a request; False where the queue is full, or too many wait for the same profile."""
        wanted = self._wanted
        if len(self._waiting) >= MOST_REQUESTS:
            return False
        for claim in waiting.claims:
            if wanted.get(claim, 0) >= MOST_REQUESTS_OF_ONE:
                return False
        for claim in waiting.claims:
            wanted[claim] = wanted.get(claim, 0) + 1
        self._waiting.append(waiting)
        self._arrived.set()
        return True

    def _forget(self, waiting: _Waiting) -> None:
        """It does not wait in this queue any more."""
        wanted = self._wanted
        for claim in waiting.claims:
            left = wanted.pop(claim) - 1
            if left:
                wanted[claim] = left

    def run(self, warm: Any) -> None:
        """Takes what has gathered, again and again; tells `warm` when it is ready to."""
        try:
            with deadline.within(_REHEARSAL_SECONDS):
                self._rehearse()
        except DatabaseError as error:
            cause = type(error.__cause__ or error).__name__
            logger.warning("database_unavailable_at_start", extra={"cause": cause})
        finally:
            warm.release()
        while True:
            batch = self._take()
            if not batch:
                self._arrived.clear()
                self._arrived.wait()
                continue
            began = time.monotonic()
            in_time = True
            try:
                in_time = self._step(batch)
            except Exception as error:
                # A fault of ours: those who wait are told, and the next are taken.
                logger.exception("gathering_failed", extra={"queue": self._name})
                for waiting in batch:
                    waiting.request.error = waiting.request.error or error
                    _wake(waiting)
            beats = sum(len(waiting.request.heartbeats) for waiting in batch)
            self._pace.note(beats, time.monotonic() - began, cut_off=not in_time)
            for waiting in batch:
                self._busy -= waiting.claims
            self._arrived.set()

    def _take(self) -> list[_Waiting]:
        """The next ones, in order: none that nobody waits for, none of profiles under way.

        A request that has waited so long that it might get a step cut off is refused, and makes
        room.
        """
        deadline_seconds = settings.REQUEST_DEADLINE_MS / 1000
        late = time.monotonic() - deadline_seconds + self._pace.margin(deadline_seconds)
        taken: set[Claim] = set()
        batch: list[_Waiting] = []
        left: list[_Waiting] = []
        beats = 0
        queue = self._waiting
        while queue:
            waiting = queue[0]
            if batch and beats + len(waiting.request.heartbeats) > self._pace.most_beats:
                break
            queue.popleft()
            if waiting.done is None:
                self._forget(waiting)
                continue
            if waiting.since < late:
                self._forget(waiting)
                waiting.request.give_up(unavailable())
                _wake(waiting)
                continue
            wanted = waiting.claims
            is_free = self._busy.isdisjoint(wanted)
            if is_free and not (self._one_each and taken & wanted):
                taken |= wanted
                beats += len(waiting.request.heartbeats)
                self._forget(waiting)
                batch.append(waiting)
            else:
                left.append(waiting)
        queue.extendleft(reversed(left))
        self._busy |= taken
        return batch


class _Gathering:
    """The queues of one process."""

    def __init__(self) -> None:
        self.arriving = _Queue("arriving", self._credit, heartbeats.rehearse_credit, one_each=True)
        self.deciding = _Queue("deciding", self._decide, heartbeats.rehearse_decide)
        self.held = _Queue("held", self._decide_held, heartbeats.rehearse_decide)

    def start(self) -> None:
        from gevent import spawn
        from gevent.lock import Semaphore

        recorder.measured(recorder.HEARTBEAT_QUEUE, self.depth)
        warm = Semaphore(0)
        runners = [self.arriving.run] * settings.HEARTBEAT_CREDITORS
        runners += [self.deciding.run] * settings.HEARTBEAT_DECIDERS
        runners.append(self.held.run)
        for run in runners:
            spawn(run, warm)
        for _ in runners:
            warm.acquire(timeout=2 * _REHEARSAL_SECONDS)

    def depth(self) -> int:
        """How many requests wait in all queues; those of steps under way are not among them."""
        return len(self.arriving) + len(self.deciding) + len(self.held)

    def process(self, request: Request) -> None:
        from gevent.event import Event

        waiting = _Waiting(request, Event())
        if not self.arriving.put(waiting):
            raise unavailable()
        done = waiting.done
        if not done.wait(settings.REQUEST_DEADLINE_MS / 1000):
            # Nobody waits any more; what is under way may yet be booked, once.
            waiting.done = None
            request.give_up(unavailable())

    def _credit(self, batch: Sequence[_Waiting]) -> bool:
        in_time = _together(batch, heartbeats.credit)
        self._pass_on(batch, self.deciding)
        return in_time

    def _decide(self, batch: Sequence[_Waiting]) -> bool:
        in_time = _together(batch, _decide_free)
        self._pass_on(batch, self.held)
        return in_time

    def _decide_held(self, batch: Sequence[_Waiting]) -> bool:
        """Tries again; who has little time left is told what is known by now."""
        from gevent import sleep

        sleep(_HELD_SECONDS)
        late = time.monotonic() - settings.REQUEST_DEADLINE_MS / 1000 + _LEAST_SECONDS
        for waiting in batch:
            if waiting.since < late:
                waiting.request.give_up(unavailable())
        in_time = _together(batch, _decide_free)
        self._pass_on(batch, self.held)
        return in_time

    def _pass_on(self, batch: Sequence[_Waiting], queue: _Queue) -> None:
        """Answers who is answered, and puts the others into the next queue."""
        for waiting in batch:
            if not waiting.request.is_answered and not queue.put(waiting):
                waiting.request.give_up(unavailable())
            if waiting.request.is_answered:
                _wake(waiting)


def _decide_free(requests: Sequence[Request]) -> None:
    heartbeats.decide(requests, wait=False)


def _wake(waiting: _Waiting) -> None:
    if waiting.done is not None:
        waiting.done.set()


def _together(batch: Sequence[_Waiting], step: Callable[[Sequence[Request]], None]) -> bool:
    """Takes a step for all requests at once, for as long as the youngest of them may wait.

    A request that has waited longer than the others gives up by itself. False where it was not done
    in time.
    """
    youngest = max(waiting.since for waiting in batch)
    left = settings.REQUEST_DEADLINE_MS / 1000 - (time.monotonic() - youngest)
    with deadline.within(max(_LEAST_SECONDS, left)):
        return _take_step([waiting.request for waiting in batch], step)


def _take_step(requests: Sequence[Request], step: Callable[[Sequence[Request]], None]) -> bool:
    """Where a step fails for one's sake it is taken for each alone, down to the single child.

    False where the database gave up, or its time was over.
    """
    if len(requests) > 1:
        return _try_step(requests, step)
    # What is logged of one request belongs to it, although none of its own greenlets is at work.
    with request_ids.resumed(requests[0].request_id):
        return _try_step(requests, step)


def _try_step(requests: Sequence[Request], step: Callable[[Sequence[Request]], None]) -> bool:
    began = time.monotonic()
    try:
        step(requests)
    except (OperationalError, InterfaceError) as error:
        is_for_one = isinstance(error.__cause__, LockNotAvailable)
        if is_for_one and time.monotonic() - began < _ROW_SECONDS:
            return _take_apart(requests, step, error)
        _give_up(requests, error)
        return False
    except Exception as error:
        return _take_apart(requests, step, error)
    return True


def _take_apart(
    requests: Sequence[Request], step: Callable[[Sequence[Request]], None], error: Exception
) -> bool:
    """Finds out whose the error is; for as long as there is time."""
    in_time = []
    if len(requests) > 1:
        logger.warning("heartbeats_taken_apart", extra={"cause": type(error).__name__})
        for index, request in enumerate(requests):
            if _time_is_over():
                _give_up(requests[index:], unavailable())
                return False
            in_time.append(_take_step([request], step))
        return all(in_time)
    (request,) = requests
    parts = _halves(request)
    if not parts and not request.answers:
        request.error = error
    elif not parts:
        _refuse_rest(request, error)
    for places, part in parts:
        if _time_is_over():
            request.give_up(unavailable())
            return False
        in_time.append(_take_step([part], step))
        _adopt(request, places, part)
    return all(in_time)


def _time_is_over() -> bool:
    left = deadline.seconds_left()
    return left is not None and left < _LEAST_SECONDS


def _give_up(requests: Sequence[Request], error: Exception) -> None:
    for request in requests:
        if not request.is_answered:
            request.give_up(error)


def _refuse_rest(request: Request, error: Exception) -> None:
    """What is answered is booked, and must be told: the error is that of the others."""
    refused = as_problem(error) or fault(error)
    for index in range(len(request.heartbeats)):
        request.answers.setdefault(index, refused)


def _halves(request: Request) -> list[tuple[list[int], Request]]:
    """The beats without an answer in two requests, by profile; none where there is but one.

    Each with the places of its beats.
    """
    left = [index for index in range(len(request.heartbeats)) if index not in request.answers]
    profile_ids = sorted({request.heartbeats[index].profile_id for index in left})
    middle = len(profile_ids) // 2
    if middle == 0:
        return []
    parts = []
    for half in (set(profile_ids[:middle]), set(profile_ids[middle:])):
        places = [index for index in left if request.heartbeats[index].profile_id in half]
        beats = [request.heartbeats[index] for index in places]
        part = Request(beats, request.caller, request_id=request.request_id)
        parts.append((places, part))
    return parts


def _adopt(request: Request, places: Sequence[int], part: Request) -> None:
    """Takes over what became of a half: a fault of ours concerns its own beats alone."""
    request.round_trips += part.round_trips
    if isinstance(part.error, AuthenticationFailed):
        request.error = part.error
    elif part.error is not None:
        refused = as_problem(part.error) or fault(part.error)
        request.answers |= dict.fromkeys(places, refused)
    else:
        for index, answer in part.answers.items():
            request.answers[places[index]] = answer


_gathering: _Gathering | None = None


def start() -> None:
    """Lets this web process gather, where it is one of greenlets; returns when all is warm.

    A database that does not answer is no reason not to start: the first beats are answered 503.
    """
    global _gathering  # noqa: PLW0603 - one for the whole process
    if settings.WORKER_CLASS == "gevent":
        _gathering = _Gathering()
        _gathering.start()


def process(beats: Sequence[Heartbeat], caller: Caller) -> list[Answer | Problem]:
    """Books heartbeats, together with whoever else beats at the moment, and answers one by one.

    Raises a 503 `Problem` where too many wait, or no answer came in time. No bad beat of a request
    spoils another, and none waits for one whose child somebody holds.
    """
    began = time.perf_counter()
    request = Request(beats, caller)
    if _gathering is None:
        _take_alone(request)
    else:
        _gathering.process(request)
    answers = request.result()
    _record(request, answers, time.perf_counter() - began)
    return answers


def _take_alone(request: Request) -> None:
    """Takes the steps one after the other, where nothing gathers: threads, and tests.

    What somebody holds is waited for last, when all the rest is booked.
    """
    with deadline.within(settings.REQUEST_DEADLINE_MS / 1000):
        # This one also says whether the caller is heard at all.
        _take_step([request], heartbeats.credit)
        for step in (_decide_free, heartbeats.decide):
            if not request.is_answered:
                _take_step([request], step)


def _record(request: Request, answers: Sequence[Answer | Problem], seconds: float) -> None:
    """Counts what was answered, and logs one of many (T010, T022)."""
    recorder.heartbeats(len(answers), request.round_trips, seconds)
    for answer in answers:
        if isinstance(answer, Answer):
            recorder.verdict(answer.enforcement)
    recorder.log_heartbeats(
        [beat.profile_id for beat in request.heartbeats], request.round_trips, seconds
    )

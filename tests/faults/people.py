"""Players who beat and parents who change their minds, against one service or several."""

import random
import threading
import time
from collections.abc import Callable, Sequence
from itertools import count
from typing import Any, Final
from uuid import uuid4

from pins.tests.service import Line, Service, Told, Unanswered
from tests.faults.books import Book, Outcome, Phase, is_retryable, outcome_of
from viewingtime.tests.village import BEAT, BEATS

#: Seconds from an answer to the next beat: as short as a machine with two cores bears.
BEAT_SECONDS: Final = 0.1
#: Beats after which a player connects anew: the next connection may be another worker's.
BEATS_PER_CONNECTION: Final = 20
#: Seconds until one who was refused asks again; players are told to wait longer.
RETRY_SECONDS: Final = 0.2
#: Seconds between two things that a parent does.
PARENT_SECONDS: Final = 0.3
#: Seconds after which a parent gives up asking when the evening is over.
PATIENCE_SECONDS: Final = 25.0


class _Person:
    """Somebody with a connection, who goes to the next service where one does not answer."""

    def __init__(self, services: Sequence[Service], token: str) -> None:
        self._services = list(services)
        self._token = token
        self._line = Line(services[0], token)

    def _send(self, method: str, path: str, body: Any, **headers: str) -> Told | Outcome:
        """An answer, or what is known of a request without one (of the kind `beat`)."""
        sent_at = time.time_ns() // 1000
        try:
            return self._line.send(method, path, body, **headers)
        except Unanswered:
            heard_at = time.time_ns() // 1000
            self._services.append(self._services.pop(0))
            self._line = Line(self._services[0], self._token)
            return Outcome("beat", 0, sent_at, heard_at)

    def hang_up(self) -> None:
        self._line.close()


class Player(_Person):
    """Beats for one child, or for several in one batch."""

    def __init__(
        self, services: Sequence[Service], books: Sequence[Book], *, in_batches: bool = False
    ) -> None:
        super().__init__(services, books[0].home.token)
        self._books = books
        self._in_batches = in_batches
        self._sessions: list[str | None] = [None] * len(books)

    def play(self, stop: threading.Event) -> None:
        try:
            for beats in count(1):
                if stop.wait(BEAT_SECONDS if self._beat() else RETRY_SECONDS):
                    return
                if beats % BEATS_PER_CONNECTION == 0:
                    self.hang_up()
        finally:
            self.hang_up()

    def _beat(self) -> bool:
        """One beat of each; whether all were decided."""
        bodies = [
            {
                "profile_id": str(book.child),
                "title_id": str(book.home.title),
                "device_id": "tv",
                "device_type": "tv",
                "session_id": session,
            }
            for book, session in zip(self._books, self._sessions, strict=True)
        ]
        phases = [book.phase for book in self._books]
        path, body = (BEATS, {"heartbeats": bodies}) if self._in_batches else (BEAT, bodies[0])
        told = self._send("POST", path, body)
        if isinstance(told, Outcome):
            for book in self._books:
                book.outcomes.append(told)
            return False
        outcome = outcome_of("beat", told)
        results = [told.body] * len(bodies)
        if told.status == 200 and self._in_batches:
            results = told.body["results"]
        is_decided = True
        for place, (book, result) in enumerate(zip(self._books, results, strict=True)):
            error = result.get("error")
            if told.status != 200 or error is not None:
                is_decided = False
                book.note_refusal(told)
                book.outcomes.append(outcome if error is None else _refused_alone(outcome, error))
                continue
            book.outcomes.append(outcome)
            book.note_verdict(told, result, phases[place])
            self._sessions[place] = result["session_id"] or self._sessions[place]
        return is_decided


def _refused_alone(outcome: Outcome, error: dict[str, Any]) -> Outcome:
    """One beat of a batch that was refused, while others were taken."""
    fault = outcome.fault if error["status"] == 503 else f"in a batch: {error}"
    return Outcome("beat", error["status"], outcome.sent_at, outcome.heard_at, fault)


class Parent(_Person):
    """Gives time and changes a limit, over and over; asks again until it is answered."""

    def __init__(self, services: Sequence[Service], book: Book, seed: int) -> None:
        super().__init__(services, book.home.token)
        self._book = book
        self._choose = random.Random(seed)
        self._path = f"/parental-controls/profiles/{book.child}/viewing-time"

    def act(self, stop: threading.Event) -> None:
        try:
            while not stop.is_set():
                if self._book.phase is not None:
                    self._change_exemption(stop)
                elif self._choose.random() < 0.5:
                    self._grant(stop)
                else:
                    self._change_limit(stop)
                stop.wait(PARENT_SECONDS)
        finally:
            self.hang_up()

    def only_grant(self, stop: threading.Event) -> None:
        """Gives time over and over; the last answer is waited for."""
        try:
            while not stop.is_set():
                self._grant(stop)
        finally:
            self.hang_up()

    def _ask(self, kind: str, stop: threading.Event, send: Callable[[], Told | Outcome]) -> bool:
        """Asks until there is an answer; False where the evening ended before."""
        ends_at = None
        while True:
            told = send()
            if isinstance(told, Outcome):
                outcome = Outcome(kind, 0, told.sent_at, told.heard_at)
            else:
                outcome = outcome_of(kind, told)
            self._book.outcomes.append(outcome)
            if outcome.status == 200:
                return True
            if outcome.fault is not None and not (
                isinstance(told, Told) and told.status == 503 and is_retryable(told)
            ):
                return False
            if stop.is_set():
                ends_at = ends_at or time.monotonic() + PATIENCE_SECONDS
                if time.monotonic() > ends_at:
                    return False
            time.sleep(RETRY_SECONDS)

    def _grant(self, stop: threading.Event) -> None:
        key, minutes = uuid4().hex, self._choose.choice((15, 30, 60))
        self._book.grants[key] = minutes
        headers = {"Idempotency-Key": key}
        if self._ask(
            "grant",
            stop,
            lambda: self._send("POST", f"{self._path}/grant", {"minutes": minutes}, **headers),
        ):
            self._book.granted.add(key)

    def _change_limit(self, stop: threading.Event) -> None:
        limit = self._choose.choice((420, 435, 450, 465, 480))
        body = {"weekday_limit_minutes": limit, "weekend_limit_minutes": limit}
        self._book.limits.add(limit)
        if self._ask("config", stop, lambda: self._send("PUT", self._path, body)):
            self._book.limits = {limit}
            self._book.changes += 1

    def _change_exemption(self, stop: threading.Event) -> None:
        is_exempt = self._choose.random() < 0.5
        self._book.phase = Phase(None)
        body = {"educational_exempt": is_exempt}
        if self._ask("config", stop, lambda: self._send("PUT", self._path, body)):
            self._book.phase = Phase(is_exempt)
            self._book.changes += 1

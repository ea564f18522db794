"""What a child and its parent do in an evening, in any order, against a running service."""

import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from django.db import connections
from django.utils import timezone

from pins.tests.service import Told
from viewingtime.tests.village import BEAT, BEATS, Child

#: Connections of a child: so many copies of a beat race at the most.
LINES = 3
DEVICES = ("tv", "phone")


@dataclass
class Event:
    """What was sent, as often as it was, and what was answered."""

    kind: str
    sent: dict[str, Any]
    told: list[Told]
    sent_at: int

    @property
    def is_heard(self) -> bool:
        """Whether all copies were answered with a decision."""
        return all(told.status != 503 for told in self.told)


class Evening:
    """What one child does, in a thread of its own."""

    def __init__(self, child: Child, seed: int) -> None:
        self.child = child
        self.events: list[Event] = []
        self._choose = random.Random(seed)
        self._session: str | None = None
        self._seen: list[str] = []
        self._title, self._device = 0, "tv"
        self._pool = ThreadPoolExecutor(LINES)

    def play(self, stop: threading.Event) -> None:
        acts = {
            self._go_on: 68,
            self._race: 6,
            self._change_title: 5,
            self._change_device: 4,
            self._begin: 3,
            self._remember: 3,
            self._end: 3,
            self._send_batch: 3,
            self._grant: 2,
            self._change_config: 4,
            self._edit_title: 2,
        }
        try:
            while not stop.is_set():
                (act,) = self._choose.choices(list(acts), weights=list(acts.values()))
                act()
        finally:
            self._pool.shutdown()
            connections.close_all()

    def _beat(self, **fields: Any) -> dict[str, Any]:
        usual = {
            "session_id": self._session,
            "title_id": str(self.child.titles[self._title].id),
            "device_id": self._device,
            "is_paused": self._choose.random() < 0.1,
        }
        return self.child.beat(**usual | fields)

    def _note(self, kind: str, sent: dict[str, Any], told: list[Told]) -> list[Told]:
        sent_at = min(answer.sent_at for answer in told)
        self.events.append(Event(kind, sent, told, sent_at))
        return told

    def _send(self, sent: dict[str, Any], copies: int = 1) -> None:
        lines = self.child.lines[:copies]
        told = list(self._pool.map(lambda line: line.post(BEAT, sent), lines))
        for answer in self._note("beat", sent, told):
            self._keep(answer.body if answer.status == 200 else {})

    def _keep(self, body: dict[str, Any]) -> None:
        session = body.get("session_id")
        if session is not None:
            self._session = session
            if session not in self._seen:
                self._seen.append(session)

    def _go_on(self) -> None:
        self._send(self._beat())

    def _race(self) -> None:
        fields: dict[str, Any] = {}
        if self._choose.random() < 0.3:
            fields = {"session_id": None}
        elif self._choose.random() < 0.3:
            self._title = self._choose.randrange(3)
            fields = {"title_id": str(self.child.titles[self._title].id)}
        self._send(self._beat(**fields), copies=self._choose.randint(2, LINES))

    def _begin(self) -> None:
        self._send(self._beat(session_id=None))

    def _change_title(self) -> None:
        self._title = self._choose.randrange(3)
        self._send(self._beat())

    def _change_device(self) -> None:
        self._device = self._choose.choice(DEVICES)
        self._send(self._beat())

    def _remember(self) -> None:
        old = self._choose.choice([*self._seen, str(uuid4())])
        self._send(self._beat(session_id=old))

    def _send_batch(self) -> None:
        beats = [
            self._beat(),
            self._beat(title_id=str(self._choose.choice(self.child.titles).id)),
            self._beat(session_id=str(uuid4())),
            self._beat(device_id=self._choose.choice(DEVICES), session_id=None),
        ]
        beats = beats[: self._choose.randint(1, 4)]
        sent = {"heartbeats": beats}
        (told,) = self._note("beats", sent, [self.child.lines[0].post(BEATS, sent)])
        for result in told.body.get("results", ()):
            self._keep(result)

    def _end(self) -> None:
        if self._seen:
            session = self._session or self._choose.choice(self._seen)
            path = f"/viewing-time/session/{session}/end"
            self._note("end", {"session_id": session}, [self.child.lines[0].post(path)])
            if self._choose.random() < 0.8:
                self._session = None

    def _grant(self) -> None:
        sent = {"minutes": 15 if self._choose.random() < 0.95 else None}
        path = f"{self.child.config_path}/grant"
        self._note("grant", sent, [self.child.lines[0].post(path, sent)])

    def _change_config(self) -> None:
        limit = self._choose.choice((15, 15, 15, 30, None))
        sent: dict[str, Any] = {"weekday_limit_minutes": limit, "weekend_limit_minutes": limit}
        if self._choose.random() < 0.6:
            sent = {"educational_exempt": self._choose.random() < 0.5}
        line = self.child.lines[0]
        self._note("config", sent, [line.send("PUT", self.child.config_path, sent)])

    def _edit_title(self) -> None:
        title = self._choose.choice(self.child.titles)
        if self._choose.random() < 0.5:
            title.is_educational = not title.is_educational
        else:
            title.withdrawn_at = None if title.withdrawn_at else timezone.now()
        title.save()
        sent = {
            "title_id": title.id,
            "is_educational": title.is_educational,
            "is_withdrawn": title.withdrawn_at is not None,
        }
        self.events.append(Event("title", sent, [], time.time_ns() // 1000))

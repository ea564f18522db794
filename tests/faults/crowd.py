"""Thousands of players, each on a connection of its own, in one thread."""

import asyncio
import json
import time
from collections.abc import Sequence
from typing import Final, TypeVar

from parentalcontrols.tests.cast import API
from pins.tests.service import Service, Told
from tests.faults.books import Book, Outcome, outcome_of
from viewingtime.tests.village import BEAT

T = TypeVar("T")

#: Players who connect and begin at the same time.
_BEGINNERS: Final = 40


class _Player:
    """A child's player; it has one beat under way at the most."""

    def __init__(self, service: Service, book: Book) -> None:
        self.book = book
        self._host, port = service.url.removeprefix("http://").split(":")
        self._port = int(port)
        self._session: str | None = None
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def beat(self) -> int:
        """Beats, notes the answer, and tells its status; 0: there was none."""
        beat = {
            "profile_id": str(self.book.child),
            "title_id": str(self.book.home.title),
            "device_id": "tv",
            "session_id": self._session,
        }
        body = json.dumps(beat)
        request = (
            f"POST {API}{BEAT} HTTP/1.1\r\nHost: {self._host}:{self._port}\r\n"
            f"Authorization: Bearer {self.book.home.token}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}"
        ).encode()
        sent_at = time.time_ns() // 1000
        try:
            if self._streams is None:
                self._streams = await asyncio.open_connection(self._host, self._port)
            reader, writer = self._streams
            writer.write(request)
            head = (await reader.readuntil(b"\r\n\r\n")).decode("ascii").split("\r\n")
            headers = dict(line.split(": ", 1) for line in head[1:] if line)
            content = await reader.readexactly(int(headers["Content-Length"]))
        except (OSError, asyncio.IncompleteReadError):
            self.hang_up()
            now = time.time_ns() // 1000
            self.book.outcomes.append(Outcome("beat", 0, sent_at, now))
            return 0
        status = int(head[0].split(" ")[1])
        told = Told(status, headers, json.loads(content), sent_at, time.time_ns() // 1000)
        self.book.outcomes.append(outcome_of("beat", told))
        if status == 200:
            self.book.note_verdict(told, told.body, None)
            self._session = told.body["session_id"] or self._session
        else:
            self.book.note_refusal(told)
        return status

    def hang_up(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


def some_of(everybody: Sequence[T], count: int) -> Sequence[T]:
    """So many, from all over: their connections are not one worker's."""
    return everybody[:: len(everybody) // count][:count]


class Crowd:
    """All of them; use it inside of one event loop."""

    def __init__(self, service: Service, books: Sequence[Book]) -> None:
        self._players = [_Player(service, book) for book in books]

    async def begin(self) -> None:
        """Everybody connects and opens a session."""
        waiting = iter(self._players)

        async def some() -> None:
            for player in waiting:
                assert await player.beat() == 200

        await asyncio.gather(*(some() for _ in range(_BEGINNERS)))

    async def play(self, seconds: float, *, players: int, rate: float | None = None) -> None:
        """So many of the players beat, together `rate` times a second, or as fast as they can.

        Who waits for an answer when its next beat is due sends that as soon as it has it.
        """
        chosen = some_of(self._players, players)
        period = 0.0 if rate is None else players / rate
        loop = asyncio.get_running_loop()
        began = loop.time()

        async def one(player: _Player, due: float) -> None:
            while due < began + seconds:
                await asyncio.sleep(due - loop.time())
                await player.beat()
                due = max(due + period, loop.time())

        await asyncio.gather(
            *(one(player, began + n * period / players) for n, player in enumerate(chosen))
        )

    def hang_up(self) -> None:
        for player in self._players:
            player.hang_up()

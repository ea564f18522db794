"""PostgreSQL is restarted, killed, or full of others, while everybody plays."""

import threading
from types import TracebackType
from typing import Self

import psycopg

from parentalcontrols.processes import wait_until
from pins.tests.service import LONG, Service
from tests.faults.evening import FAULT_SECONDS, evening, now_in_microseconds
from tests.faults.stage import Stage


def test_a_fast_restart_of_postgresql_loses_nothing(stage: Stage, undying: Service) -> None:
    with evening("postgresql-restarted", stage, undying) as playing:
        playing.play_on()
        with playing.fault():
            # A fast shutdown, what `pg_ctl restart -m fast` does.
            stage.postgres.stop()
            stage.postgres.start()


def test_a_kill_of_postgresql_loses_nothing(stage: Stage, undying: Service) -> None:
    with evening("postgresql-killed", stage, undying) as playing:
        playing.play_on()
        with playing.fault():
            stage.postgres.kill()
            playing.endure()
            stage.postgres.start()


def test_locked_rows_stop_those_children_alone(stage: Stage, undying: Service) -> None:
    with evening("rows-locked", stage, undying) as playing, stage.connect() as holder:
        playing.play_on()
        locked = playing.books[4:10]
        children = [book.child for book in locked]
        began = now_in_microseconds()
        with (
            playing.fault(),
            playing.many_grants(locked, 48),
            holder.transaction(),
        ):
            # More parents than there are connections wait for these rows, and so do their players.
            holder.execute("SELECT FROM profiles WHERE id = ANY(%s) FOR UPDATE", [children])
            holder.execute(
                "SELECT FROM viewing_sessions WHERE profile_id = ANY(%s) FOR UPDATE", [children]
            )
            playing.play_on(max(FAULT_SECONDS, 3.0))
        (fault,) = playing.evidence.faults
        # Nobody else's beats are refused.
        refused = {
            book.child
            for book in playing.books
            for outcome in book.outcomes
            if outcome.kind == "beat" and outcome.status == 503 and outcome.sent_at > began
        }
        assert refused
        assert refused <= set(children)
        assert fault.recovered_after is not None


def test_connections_that_others_take_are_missed_honestly(stage: Stage, undying: Service) -> None:
    with evening("connections-exhausted", stage, undying) as playing:
        playing.play_on()
        with playing.fault(), Others(stage) as others:
            others.take_every_connection()
            playing.figures["connections of others"] = others.count
            playing.endure()


class Others:
    """Slow queries of somebody else, who takes whatever connection becomes free."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._taken: list[psycopg.Connection] = []
        self._enough = threading.Event()
        self._is_full = False
        self._greedy = [threading.Thread(target=self._take) for _ in range(4)]

    @property
    def count(self) -> int:
        return len(self._taken)

    def __enter__(self) -> Self:
        self._admin = self._stage.connect()
        return self

    def take_every_connection(self) -> None:
        """Until none is left; then cuts those of the service, and takes them too."""
        for thread in self._greedy:
            thread.start()
        assert wait_until(lambda: self._is_full, LONG)
        self._admin.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE application_name = 'viewingtime'"
        )

    def _take(self) -> None:
        while not self._enough.is_set():
            try:
                connection = psycopg.connect(
                    self._stage.postgres.url, application_name="others", autocommit=True
                )
            except psycopg.OperationalError:
                self._is_full = True
                self._enough.wait(0.002)
                continue
            connection.pgconn.send_query(b"SELECT pg_sleep(600)")
            self._taken.append(connection)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._enough.set()
        for thread in self._greedy:
            thread.join()
        self._admin.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE application_name = 'others'"
        )
        for connection in [*self._taken, self._admin]:
            connection.close()

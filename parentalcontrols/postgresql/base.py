"""Django's PostgreSQL backend, with connections that keep a request's deadline.

A server-side timeout cannot help where the server itself hangs or the network is gone; here the
client stops waiting too. Psycopg resumes a waiting operation at short intervals, which is when
the deadline is looked at.
"""

from collections.abc import Generator
from time import monotonic
from types import SimpleNamespace
from typing import Any, Final, Self, TypeVar

import psycopg
from django.db import Error as DatabaseError
from django.db.backends.postgresql import base

from parentalcontrols.postgresql import deadline
from parentalcontrols.postgresql.pool import Pool

T = TypeVar("T")


class DeadlineConnection(psycopg.Connection[Any]):
    """A connection whose every wait ends at the deadline of the running request."""

    @classmethod
    def _connect_gen(cls, conninfo: str = "") -> Generator[Any, Any, Self]:
        if deadline.is_over():
            raise psycopg.errors.ConnectionTimeout("no time is left to connect")
        steps = super()._connect_gen(conninfo)
        began = monotonic()
        try:
            wanted = next(steps)
            while True:
                ready = yield wanted
                if deadline.is_over():
                    deadline.no_answer(monotonic() - began)
                    raise psycopg.errors.ConnectionTimeout("no connection before the deadline")
                wanted = steps.send(ready)
        except StopIteration as done:
            connection: Self = done.value
            return connection

    def wait(
        self,
        gen: Generator[Any, Any, T],
        interval: float = 0.1,
        timeout: float | None = None,
    ) -> T:
        """Waits as psycopg does, but closes the connection when the deadline is over."""
        left = deadline.seconds_left()
        if left is None:
            return super().wait(gen, interval=interval, timeout=timeout)
        if left == 0.0:
            # Nothing is sent any more; the connection, whatever it is in, is not used again.
            self.close()
            raise psycopg.OperationalError("no time is left to ask the database")
        try:
            return super().wait(gen, interval=interval, timeout=left)
        except psycopg.errors._WaitTimeout:
            deadline.no_answer(left)
            # What the server still does for this connection, it gives up when it sees it closed
            # (`client_connection_check_interval`).
            self.close()
            raise psycopg.OperationalError("no answer before the deadline") from None


#: What psycopg files under internal errors, and means that the database cannot do it now: it is a
#: standby, or it ended a transaction that its client had left open for too long.
UNAVAILABLE: Final = (
    psycopg.errors.ReadOnlySqlTransaction,
    psycopg.errors.IdleInTransactionSessionTimeout,
    psycopg.errors.TransactionTimeout,
)

#: The pools of this process, by alias.
_pools: dict[str, Pool] = {}


class DatabaseWrapper(base.DatabaseWrapper):
    """`django.db.backends.postgresql` that opens connections with a deadline.

    With `POOL` in its settings, `{"size": ..., "wait_seconds": ...}`, connections that are closed
    are kept for the next request.
    """

    Database = SimpleNamespace(  # type: ignore[assignment]
        **{
            **vars(psycopg),
            "connect": DeadlineConnection.connect,
            "OperationalError": (psycopg.OperationalError, *UNAVAILABLE),
        }
    )

    def _own_pool(self) -> Pool | None:
        options = self.settings_dict.get("POOL")
        if not options:
            return None
        return _pools.get(self.alias) or _pools.setdefault(self.alias, Pool(**options))

    def get_new_connection(self, conn_params: dict[str, Any]) -> Any:
        """A connection of the pool, where there is one, or a new one."""
        pool = self._own_pool()
        if pool is None:
            return super().get_new_connection(conn_params)
        return pool.take(lambda: super(DatabaseWrapper, self).get_new_connection(conn_params))

    def _set_autocommit(self, autocommit: bool) -> None:
        """Leaves no connection behind that is in neither state.

        Django takes one without autocommit for a transaction of somebody else's: it would open a
        savepoint in it, fail, and take itself to be in a transaction for as long as it lives.
        """
        try:
            super()._set_autocommit(autocommit)  # type: ignore[misc]
        except DatabaseError:
            self.close()
            raise

    def _close(self) -> None:
        pool = self._own_pool()
        if pool is None:
            super()._close()  # type: ignore[misc]
        elif self.connection is not None:
            with self.wrap_database_errors:
                pool.give_back(self.connection)

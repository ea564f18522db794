"""A bounded set of connections for processes in which every request looks like a thread.

A request that finds none free waits for one, a second at most and never past its deadline. It
connects by itself, so that the deadline holds there, too; nothing runs in the background, and a
database that is back is used by the next request. A connection that the server closed meanwhile
is noticed without a round trip.
"""

import threading
from collections.abc import Callable
from typing import Any

import psycopg
from psycopg.pq import TransactionStatus

from parentalcontrols.postgresql import deadline

Connection = psycopg.Connection[Any]


class Pool:
    """At most `size` connections, of which the one used last is used first."""

    def __init__(self, size: int, wait_seconds: float) -> None:
        self._places = threading.BoundedSemaphore(size)
        self._wait_seconds = wait_seconds
        self._idle: list[Connection] = []

    def take(self, connect: Callable[[], Connection]) -> Connection:
        """An idle connection, or a new one; raises `psycopg.OperationalError`."""
        left = deadline.seconds_left()
        wait = self._wait_seconds if left is None else min(self._wait_seconds, left)
        if not self._places.acquire(timeout=wait):
            raise psycopg.OperationalError("all connections to the database are in use")
        try:
            while self._idle:
                connection = self._idle.pop()
                if _is_alive(connection):
                    return connection
                connection.close()
            return connect()
        except BaseException:
            self._places.release()
            raise

    def give_back(self, connection: Connection) -> None:
        """Keeps a connection for the next one, unless something is wrong with it."""
        try:
            if not connection.closed:
                if connection.info.transaction_status == TransactionStatus.IDLE:
                    self._idle.append(connection)
                else:
                    connection.close()
        finally:
            self._places.release()


def _is_alive(connection: Connection) -> bool:
    """Whether the server has not closed it, as far as can be told without asking."""
    try:
        # What a server says before it closes is read first, and hides that it has.
        connection.pgconn.consume_input()
        connection.pgconn.consume_input()
    except psycopg.OperationalError:
        return False
    return not connection.closed

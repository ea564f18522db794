"""Repeats of a request that was answered get the first answer, and nothing is done twice.

A key is claimed in the transaction that does the work, which writes the answer beside it: either
both are there or neither. A copy that comes meanwhile waits for that transaction at the key's
unique index. Only what succeeded is kept, for 24 hours, per account and route.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.db import connection
from django.http import HttpRequest
from django.utils.crypto import constant_time_compare, salted_hmac

from parentalcontrols.problems import Problem, invalid, unavailable

HEADER = "Idempotency-Key"
#: How long an answer is kept.
HOURS = 24

_LONGEST_KEY = 255

#: Claims a key; no row where somebody else's claim is in force. One that is older than 24 hours
#: is taken over. Waits for a transaction that has claimed it and is not done yet.
CLAIM = """
INSERT INTO idempotency_keys AS k (account_id, route, key, fingerprint)
VALUES (%(account_id)s, %(route)s, %(key)s, %(fingerprint)s)
ON CONFLICT (account_id, route, key) DO UPDATE SET
    fingerprint = excluded.fingerprint, answer = NULL, created_at = clock_timestamp()
WHERE k.created_at <= clock_timestamp() - make_interval(hours => %(hours)s)
RETURNING k.id
"""

#: The answer that is kept for a key, and the fingerprint of what it answered.
ANSWER = """
SELECT fingerprint, answer
FROM idempotency_keys
WHERE account_id = %(account_id)s AND route = %(route)s AND key = %(key)s
    AND created_at > clock_timestamp() - make_interval(hours => %(hours)s)
"""

#: Keeps the answer with the key that this transaction claimed.
KEEP = """
UPDATE idempotency_keys SET answer = %(answer)s
WHERE account_id = %(account_id)s AND route = %(route)s AND key = %(key)s
"""


@dataclass(frozen=True, slots=True)
class Key:
    """A client's key for one request: whose, on which route, and what was asked."""

    account_id: UUID
    route: str
    key: str
    fingerprint: bytes

    def _parameters(self) -> dict[str, Any]:
        return {
            "account_id": self.account_id,
            "route": self.route,
            "key": self.key,
            "fingerprint": self.fingerprint,
            "hours": HOURS,
        }

    def answer(self) -> dict[str, Any] | None:
        """The answer that is kept; None where there is none yet; 400 where it answered another."""
        with connection.cursor() as cursor:
            cursor.execute(ANSWER, self._parameters())
            row = cursor.fetchone()
        if row is None:
            return None
        fingerprint, answer = row
        if not constant_time_compare(bytes(fingerprint), self.fingerprint):
            raise Problem(
                400,
                "idempotency_key_reused",
                f"This {HEADER} was used for another request; use a new one.",
            )
        found: dict[str, Any] = json.loads(answer) if isinstance(answer, str) else answer
        return found

    def claim(self) -> dict[str, Any] | None:
        """None where the key is ours now, to be kept by this transaction; else the kept answer."""
        with connection.cursor() as cursor:
            cursor.execute(CLAIM, self._parameters())
            if cursor.fetchone() is not None:
                return None
        answer = self.answer()
        if answer is None:
            # It ran out between the two statements.
            raise unavailable()
        return answer

    def keep(self, answer: Mapping[str, Any]) -> None:
        """Keeps the answer to the request that claimed the key."""
        with connection.cursor() as cursor:
            cursor.execute(KEEP, {**self._parameters(), "answer": json.dumps(answer)})


def key_of(
    request: HttpRequest, *, account_id: UUID, route: str, body: Mapping[str, Any]
) -> Key | None:
    """The key that a request carries; None without one; a 400 where it is none.

    `body` is what was asked for, without what proves that it may be asked: were a PIN a part of the
    fingerprint, a used key would tell right guesses from wrong ones, uncounted.
    """
    key = request.headers.get(HEADER)
    if key is None:
        return None
    if not 1 <= len(key) <= _LONGEST_KEY or not key.isascii() or not key.isprintable():
        detail = f"{HEADER} is a text of 1 to {_LONGEST_KEY} printable ASCII characters."
        raise invalid([{"field": HEADER, "code": "invalid", "detail": detail}])
    canonical = json.dumps(body, sort_keys=True, separators=(",", ":"))
    digest = salted_hmac("idempotency", canonical, algorithm="sha256").digest()
    return Key(account_id, route, key, digest)

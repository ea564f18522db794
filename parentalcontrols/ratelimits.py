"""How often something may be tried: counted in PostgreSQL, so that it holds on every host.

A leaf: it imports nothing of ours. The limits are settings, `RATELIMIT_<NAME>`, as `count/period`;
`RATELIMIT_ENABLED=false` switches all of them off. What is limited is rare and expensive, so that a
row per try costs nothing beside it, and an outage of the cache lifts no limit.
"""

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from django.conf import settings
from django.db import connection
from django.http import HttpRequest
from django.utils.crypto import salted_hmac
from rest_framework.exceptions import Throttled

#: Counts a try of a subject and answers how many there were in the window that runs, and for how
#: many seconds it still does. A window that is over starts anew.
COUNT_TRY = """
INSERT INTO rate_limit_windows AS w (name, subject, ends_at, count)
VALUES (
    %(name)s, %(subject)s, clock_timestamp() + make_interval(secs => %(seconds)s::integer), 1
)
ON CONFLICT (name, subject) DO UPDATE SET
    count = CASE WHEN w.ends_at <= clock_timestamp() THEN 1 ELSE w.count + 1 END,
    ends_at = CASE WHEN w.ends_at <= clock_timestamp() THEN excluded.ends_at ELSE w.ends_at END
RETURNING w.count, extract(epoch FROM w.ends_at - clock_timestamp())::double precision
"""

#: Takes tries back that were no guesses. The rows are locked in one order for all.
TAKE_BACK = """
WITH held AS MATERIALIZED (
    SELECT w.id, t.is_cleared
    FROM unnest(%(names)s::text[], %(subjects)s::bytea[], %(cleared)s::boolean[])
        AS t (name, subject, is_cleared)
    JOIN rate_limit_windows AS w USING (name, subject)
    ORDER BY w.name, w.subject
    FOR NO KEY UPDATE OF w
)
UPDATE rate_limit_windows AS w
SET count = CASE WHEN h.is_cleared THEN 0 ELSE greatest(w.count - 1, 0) END
FROM held AS h
WHERE w.id = h.id
"""


@dataclass(frozen=True, slots=True)
class Subject:
    """Whose tries a limit counts; those of one who `is_known` by succeeding start afresh."""

    limit: str
    value: str
    is_known: bool = True

    @property
    def key(self) -> bytes:
        """What is stored in its place."""
        return salted_hmac(f"ratelimits.{self.limit}", self.value, algorithm="sha256").digest()


@dataclass(frozen=True, slots=True)
class Guess:
    """A try that is counted as a failure until it `succeeded`."""

    subjects: Sequence[Subject]

    def succeeded(self) -> None:
        """Takes the try back, and every earlier one of those who are known by now."""
        if not self.subjects:
            return
        with connection.cursor() as cursor:
            cursor.execute(
                TAKE_BACK,
                {
                    "names": [subject.limit for subject in self.subjects],
                    "subjects": [subject.key for subject in self.subjects],
                    "cleared": [subject.is_known for subject in self.subjects],
                },
            )


def guess(*subjects: Subject) -> Guess:
    """Counts a try before its outcome is known; raises `Throttled` (429) where it is one too many.

    Of parallel tries no more than the limit's count get through. The subjects are counted in the
    order given, and no further than the first that refuses: name the address first, or one that is
    refused already could use up everybody's limit. Outside of a transaction that may be rolled
    back.
    """
    if not settings.RATELIMIT_ENABLED:
        return Guess(())
    for subject in subjects:
        rate = settings.RATELIMITS[subject.limit]
        with connection.cursor() as cursor:
            cursor.execute(
                COUNT_TRY,
                {"name": subject.limit, "subject": subject.key, "seconds": rate.seconds},
            )
            count, wait = cursor.fetchone()
        if count > rate.tries:
            raise Throttled(wait=max(1.0, wait))
    return Guess(subjects)


def export(request: HttpRequest, account_id: UUID) -> None:
    """Counts a file that an account takes away; raises `Throttled` (429)."""
    guess(
        Subject("EXPORT_ADDRESS", client_address(request)),
        Subject("EXPORT", str(account_id)),
    )


def client_address(request: HttpRequest) -> str:
    """The address that a request came from, as the unit that limits count.

    `X-Forwarded-For` is believed as far as trusted proxies wrote it (`TRUSTED_PROXIES`): its last
    address that is none of theirs, with a port or without. Of an IPv6 address the network counts
    (/64), which is what one household has.
    """
    found = _address(request.META.get("REMOTE_ADDR", ""))
    forwarded = request.META.get("HTTP_X_FORWARDED_FOR", "").split(",")
    while found is not None and forwarded and _is_trusted(found):
        before = _address(_without_port(forwarded.pop()))
        if before is None:
            break
        found = before
    if found is None:
        return "unknown"
    if isinstance(found, ipaddress.IPv6Address):
        return str(ipaddress.IPv6Network((found, 64), strict=False))
    return str(found)


def _is_trusted(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    return any(address in network for network in settings.TRUSTED_PROXIES)


def _without_port(text: str) -> str:
    """`192.0.2.1:80` and `[2001:db8::1]:80`, as some proxies write, without what is not needed."""
    found = re.fullmatch(r"(?:([0-9.]+)|\[([^\]]*)\])(?::[0-9]{1,5})?", text.strip())
    return text if found is None else found[1] or found[2]


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        found = ipaddress.ip_address(text.strip())
    except ValueError:
        return None
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return mapped or found

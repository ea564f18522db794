"""What the OpenAPI document says before its operations: of the API as a whole, and of its parts."""


def paragraphs(text: str) -> list[str]:
    """Each in one line, for viewers that take a line's end for a break."""
    return [" ".join(paragraph.split()) for paragraph in text.split("\n\n")]


_DESCRIPTION = """
How much longer may this child watch? Players ask with every heartbeat, parents set the limits.

**A first request.** `POST /api/v1/auth/register` or `/api/v1/auth/login` answers an `access_token`;
send it as `Authorization: Bearer <access_token>` with everything else. It is good for an hour,
unless the operator set another time; `POST /api/v1/auth/refresh` buys the next pair for the
`refresh_token`, once. This is an *account token*: it speaks for the parent. A device in a child's
hands gets a *profile token* from `POST /api/v1/auth/profiles/{profile_id}/token`: it speaks for
that child, and can tighten but never loosen. What a profile token may do says so; all else answers
it 403 `parent_required`, and every other profile 404. Once the account has a PIN, changes of limits
need a *PIN token* besides, in the body: `POST /api/v1/parental-controls/pin/verify` gives one for
the PIN, for five minutes.

**Values.** Bodies are JSON objects of 1 MiB at most, sent as `application/json`. Nothing is
converted: a number where text is asked for is a 400. Unknown fields are ignored, and answers may
gain fields: ignore those that you do not know. Instants are RFC 3339 in UTC, minutes are numbers
rounded to hundredths, ids are UUIDs. A *viewing day* runs from one reset to the next, at the
child's `reset_hour` in its `timezone`; a `date` is that of a viewing day.

**Problems.** Every error is an `application/problem+json` document (RFC 9457). Decide by `status`
and `code`, which are stable; `detail` is one sentence for people. `invalid` names each refused
value in `errors`; every other 400 has a `code` of its own. What belongs to another household is
answered like what does not exist: 404. Every answer carries `X-Request-ID`, which finds it in the
service's logs.

**Again.** A 503 tells that the answer did not come in time, not that nothing happened. Beats and
the end of a session can simply be sent again: time is credited once. Send a grant with an
`Idempotency-Key`, a new one for each grant that a person asks for: for 24 hours a repeat with the
same key and body gets the first answer, and nothing is granted twice.

**Limits.** Guesses of passwords and PINs, registrations, exchanges of refresh tokens, and files are
limited per account and per address. One too many is a 429 `too_many_requests`. A 429, a 503 and a
403 `pin_locked` carry `Retry-After` in whole seconds: wait so long.

This document, to read and to try: `/api/docs/`.
"""
DESCRIPTION = "\n\n".join(paragraphs(_DESCRIPTION))

TAGS = [
    {
        "name": "auth",
        "description": "The household: registering, logging in, tokens, and its profiles.",
    },
    {
        "name": "viewing-time",
        "description": "What players ask: heartbeats, the end of a session, what is left.",
    },
    {
        "name": "parental-controls",
        "description": "What parents do: limits, extra time, the PIN, what was watched, the audit.",
    },
    {"name": "account", "description": "The household's data: a copy of it, and its erasure."},
    {"name": "admin", "description": "For staff: what the service counted."},
]

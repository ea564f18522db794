"""Any bytes at all, as a body of beats: both ways into the service read the same in them.

`test_plain_beats` sends what is likely; here Hypothesis looks for what is not. `SOAK_SECONDS` makes
it look longer.
"""

import json
from collections.abc import Callable
from typing import Any
from uuid import UUID

import msgspec
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from rest_framework.exceptions import ParseError

from parentalcontrols.parsers import MOST_DEPTH, decode_object
from parentalcontrols.problems import Problem
from pins.tests.service import SOAK_SECONDS
from viewingtime.heartbeats import Heartbeat
from viewingtime.serializers import decode_heartbeats, read_heartbeat, read_heartbeats

#: Examples of each test: 300 in an ordinary run, 3,000 in a minute's.
THOROUGH = settings(
    max_examples=round(50 * SOAK_SECONDS),
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
ID = "79b48e2c-d4f8-4935-8d23-61315b903032"
BEAT = {"profile_id": ID, "title_id": ID, "device_id": "tv", "session_id": ID, "is_paused": True}
GOOD = json.dumps(BEAT).encode()


def by_the_view(body: bytes, *, is_batch: bool) -> list[Heartbeat] | None:
    """What the views make of a body; None where they refuse it or a beat of it."""
    try:
        document = decode_object(body)
        if not is_batch:
            return [read_heartbeat(document)]
        beats = read_heartbeats(document)
    except (ParseError, Problem):
        return None
    return None if any(isinstance(beat, Problem) for beat in beats) else beats  # type: ignore[return-value]


def agree(body: bytes) -> list[Heartbeat] | None:
    """What both ways read in a beat; a batch of it is read alike."""
    one = decode_heartbeats(body, is_batch=False)
    assert one == by_the_view(body, is_batch=False)
    for batch in (body, b'{"heartbeats": [' + body + b"]}"):
        assert decode_heartbeats(batch, is_batch=True) == by_the_view(batch, is_batch=True)
    return one


# What is sent


texts = st.text() | st.sampled_from(
    ["", "\x00", "\ufeff", "\u202e", ID, ID.upper(), ID.replace("-", ""), "{" + ID + "}", "tv"]
)
numbers = (
    st.integers()
    | st.floats()
    | st.sampled_from([2**63, 2**64, -(2**63) - 1, 10**400, 1e308, -0.0, 1e-320])
)
values = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)
#: A beat, of which some fields are something else, left out, or added.
beats = st.builds(
    lambda changed, added, left_out: {
        key: value for key, value in {**BEAT, **added, **changed}.items() if key not in left_out
    },
    st.dictionaries(st.sampled_from([*BEAT, "device_type"]), values, max_size=3),
    st.dictionaries(texts, values, max_size=2),
    st.sets(st.sampled_from(list(BEAT)), max_size=1),
)


def spoiled(body: bytes, cut: slice, inserted: bytes) -> bytes:
    """A body with some of its bytes replaced."""
    return body[: cut.start] + inserted + body[cut.stop :]


#: Bytes that end, begin or break something.
TRICKS = [
    *(b"\x00", b"\xff", b"\xfe\xff", b"\xef\xbb\xbf", b"\xc0\x80", b"\xc0\xaf", b"\xe0\x80\xaf"),
    *(b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xf8\x88\x80\x80\x80", b"\\ud800", b"\\udc00"),
    *(b"\\ud83d\\ude00", b"\\u0000", b"\\u00", b"\\x41", b"\\", b'"', b'\\"', b"'", b",", b",,"),
    *(b":", b"{", b"}", b"[", b"]", b"//", b"/**/", b"#", b"NaN", b"-Infinity", b"nul", b"True"),
    *(b"1e999", b"-0", b"01", b"+1", b".5", b"5.", b"0x1", b"1_0", b"9" * 400, b"1e" + b"9" * 50),
    *(b" " * 5000, b"\t\r\n" * 2000, b"\x0b", b"\x0c", b"\xc2\xa0", b"\xe2\x80\xa8", b"[" * 1200),
    *(b'{"a":' * 1200, b"[" * 1200 + b"]" * 1200, b'"is_paused": false, ', b'"profile_id": 5, '),
]


# What is read


@THOROUGH
@given(st.binary(max_size=300))
def test_of_any_bytes(body: bytes) -> None:
    agree(body)


@THOROUGH
@given(beats, st.booleans())
def test_of_any_json(beat: dict[str, Any], escaped: bool) -> None:
    try:
        body = json.dumps(beat, ensure_ascii=escaped).encode()
    except UnicodeEncodeError:
        body = json.dumps(beat).encode()
    agree(body)


@THOROUGH
@given(
    st.integers(0, len(GOOD)),
    st.integers(0, 8),
    st.sampled_from(TRICKS) | st.binary(max_size=8),
    st.integers(0, len(GOOD)),
    st.sampled_from([b"", *TRICKS]),
)
def test_of_a_good_beat_with_some_bytes_replaced(
    start: int, length: int, inserted: bytes, again: int, also: bytes
) -> None:
    body = spoiled(GOOD, slice(start, start + length), inserted)
    agree(spoiled(body, slice(again, again), also))


@THOROUGH
@given(st.lists(st.tuples(st.sampled_from(list(BEAT)), values | st.just(ID)), max_size=6))
def test_of_a_field_that_is_there_more_than_once_the_last_one_counts(
    fields: list[tuple[str, Any]],
) -> None:
    pairs = [*BEAT.items(), *fields]
    body = "{" + ", ".join(f"{json.dumps(k)}: {json.dumps(v)}" for k, v in pairs) + "}"
    try:
        found = agree(body.encode())
    except UnicodeEncodeError:
        return
    if found is not None:
        last = dict(pairs)
        assert str(found[0].profile_id) == UUID(last["profile_id"]).__str__()
        assert found[0].is_paused is last["is_paused"]


@THOROUGH
@given(st.integers(1, 40) | st.integers(1, 20_000), st.sampled_from([b"[", b'{"a":', b'[{"b":']))
@example(31, b"[")
@example(32, b"[")
@example(100_000, b"[")
def test_of_any_depth(depth: int, opening: bytes) -> None:
    """However deep what is ignored is nested: up to 32 it is read, beyond refused by both."""
    closing = {b"[": b"]", b'{"a":': b"}", b'[{"b":': b"}]"}[opening]
    nested = opening * depth + b"1" + closing * depth
    for body in (nested, GOOD[:-1] + b', "ignored": ' + nested + b"}"):
        found = agree(body)
        levels = depth * (opening.count(b"[") + opening.count(b"{")) + 1
        assert (found is not None) is (body is not nested and levels <= MOST_DEPTH)


@pytest.mark.parametrize("trick", TRICKS, ids=lambda trick: ascii(trick[:12]))
def test_of_every_trick_at_every_place(trick: bytes) -> None:
    for place in range(len(GOOD) + 1):
        agree(spoiled(GOOD, slice(place, place), trick))


@THOROUGH
@given(st.binary(max_size=60) | st.sampled_from(TRICKS))
def test_a_decoder_answers_or_refuses_and_nothing_else(body: bytes) -> None:
    readers: list[Callable[[], Any]] = [
        lambda: decode_heartbeats(body, is_batch=False),
        lambda: decode_heartbeats(body, is_batch=True),
    ]
    for read in readers:
        assert read() is None
    try:
        document = decode_object(body)
    except ParseError:
        return
    assert isinstance(document, dict)
    assert document == msgspec.json.decode(body)

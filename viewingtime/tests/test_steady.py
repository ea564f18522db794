"""What the statement of steady beats is sent: any device comes back as it was."""

from typing import Any

import pytest
from django.db import connection
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from parentalcontrols.tests.cast import Cast
from viewingtime import heartbeats, steady
from viewingtime.models import ViewingSession

pytestmark = pytest.mark.django_db

SOME = hypothesis_settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
ODD = ['"', "\\", '\\"', '\\\\"', "{}", "{a,b}", ",", "'", "NULL", "null", " ", "\t\n", "%s", "🦊"]
DEVICES = st.sampled_from(ODD) | st.text(
    st.characters(exclude_characters="\x00", exclude_categories=["Cs"]) | st.sampled_from('"\\{},'),
    min_size=1,
    max_size=100,
)


@given(devices=st.lists(DEVICES))
@SOME
def test_every_text_comes_back_out_of_an_array_literal(db: None, devices: list[str]) -> None:
    literal = steady._array([steady._quoted(device) for device in devices])
    with connection.cursor() as cursor:
        cursor.execute("SELECT unnest(%s::text[])", [literal])
        assert [row[0] for row in cursor.fetchall()] == devices


@pytest.fixture
def credited(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many beats each statement credited."""
    credited: list[int] = []
    real = heartbeats._credit_steady

    def counted(candidates: Any) -> Any:
        answers = real(candidates)
        credited.append(len(answers))
        return answers

    monkeypatch.setattr(heartbeats, "_credit_steady", counted)
    return credited


@given(device=DEVICES)
@SOME
def test_a_session_of_any_device_goes_on_steadily(
    cast: Cast, device: str, credited: list[int]
) -> None:
    opened = cast.phone.beat(cast.child, cast.cartoon, device_id=device)
    session = opened["session_id"]
    assert ViewingSession.objects.get(id=session).device_id == device
    answer = cast.phone.beat(cast.child, cast.cartoon, device_id=device, session_id=session)
    assert answer["session_id"] == session
    assert credited[-1] == 1

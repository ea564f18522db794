"""Shapes of requests and answers about viewing time (api.md).

The beats are decoded by msgspec, whose types are the validation; the serializers of the same
shape describe them in the OpenAPI document.
"""

from collections.abc import Sequence
from datetime import timedelta
from typing import Annotated, Any, Literal
from uuid import UUID

import msgspec
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers
from rest_framework.exceptions import ParseError

from adminmetrics import recorder
from parentalcontrols.fields import (
    StrictBooleanField,
    StrictCharField,
    StrictIntegerField,
)
from parentalcontrols.models import (
    LIMIT_LEAST_MINUTES,
    LIMIT_MOST_MINUTES,
    LIMIT_STEP_MINUTES,
    ViewingTimeConfig,
)
from parentalcontrols.parsers import decode_object
from parentalcontrols.problems import Problem, invalid
from parentalcontrols.schema import FieldErrorSerializer, shows
from parentalcontrols.serializers import PinField, PinTokenField
from parentalcontrols.viewing_day import timezone_names
from viewingtime import examples
from viewingtime.heartbeats import Heartbeat
from viewingtime.ledger import Answer, Enforcement, Reason
from viewingtime.models import GRANT_MINUTES, DeviceType

#: How many beats one request may carry.
MOST_HEARTBEATS = 500


def minutes(amount: timedelta | None) -> float | None:
    """Minutes, rounded to 2 decimals; None stays None."""
    return None if amount is None else round(amount.total_seconds() / 60, 2)


class HeartbeatBody(msgspec.Struct):
    """A beat's body. Values are never converted; unknown fields are ignored."""

    profile_id: UUID
    title_id: UUID
    device_id: Annotated[str, msgspec.Meta(min_length=1, max_length=100, pattern=r"\A[^\x00]*\Z")]
    device_type: Literal["tv", "mobile", "tablet", "web"] = "web"
    session_id: UUID | None = None
    is_paused: bool = False

    def heartbeat(self) -> Heartbeat:
        """The beat as the domain takes it."""
        return Heartbeat(
            profile_id=self.profile_id,
            title_id=self.title_id,
            device_id=self.device_id,
            device_type=self.device_type,
            session_id=self.session_id,
            is_paused=self.is_paused,
        )


class HeartbeatBatchBody(msgspec.Struct):
    """A batch's body."""

    heartbeats: Annotated[
        list[HeartbeatBody], msgspec.Meta(min_length=1, max_length=MOST_HEARTBEATS)
    ]


class _ExactHeartbeatBody(HeartbeatBody, forbid_unknown_fields=True):
    """A beat's body without a field that is ignored."""


class _ExactHeartbeatBatchBody(msgspec.Struct, forbid_unknown_fields=True):
    heartbeats: Annotated[
        list[_ExactHeartbeatBody], msgspec.Meta(min_length=1, max_length=MOST_HEARTBEATS)
    ]


_decode_heartbeat = msgspec.json.Decoder(_ExactHeartbeatBody).decode
_decode_heartbeats = msgspec.json.Decoder(_ExactHeartbeatBatchBody).decode
_encode = msgspec.json.Encoder().encode


def decode_heartbeats(body: bytes, *, is_batch: bool) -> list[Heartbeat] | None:
    """The beats of a request's body; None where anything is wrong with one of them.

    What a decoder skips it does not look at closely: with fields that are ignored the document is
    read as a whole first, so that it is JSON in all its parts.
    """
    try:
        if is_batch:
            return [beat.heartbeat() for beat in _decode_heartbeats(body).heartbeats]
        return [_decode_heartbeat(body).heartbeat()]
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        pass
    try:
        document = decode_object(body)
        if is_batch:
            batch = msgspec.convert(document, HeartbeatBatchBody)
            return [beat.heartbeat() for beat in batch.heartbeats]
        return [msgspec.convert(document, HeartbeatBody).heartbeat()]
    except (msgspec.MsgspecError, ParseError):
        return None


def encode_answers(answers: Sequence[Answer | Problem], *, is_batch: bool) -> bytes:
    """The body of the answer; raises the `Problem` of a beat that came alone."""
    if not is_batch:
        (answer,) = answers
        if isinstance(answer, Problem):
            raise answer
        return _encode(answer_body(answer))
    return _encode({"results": [result_body(answer) for answer in answers]})


def result_body(result: Answer | Problem) -> dict[str, Any]:
    """What a batch's answer says of one beat; one that is refused is counted."""
    if isinstance(result, Problem):
        recorder.refused_in_batch(result.status)
        return problem_body(result)
    return answer_body(result)


def read_heartbeat(document: dict[str, Any]) -> Heartbeat:
    """A beat of a decoded JSON object; a `Problem` that names every bad field otherwise."""
    try:
        return msgspec.convert(document, HeartbeatBody).heartbeat()
    except (msgspec.ValidationError, RecursionError):
        raise _refusal(document) from None


def _refusal(document: Any) -> Problem:
    """Why a beat is refused, field by field."""
    if not isinstance(document, dict):
        return invalid([{"field": "", "code": "invalid", "detail": "A beat is a JSON object."}])
    errors = []
    for field in msgspec.structs.fields(HeartbeatBody):
        if field.name not in document:
            if field.required:
                errors.append(_error(field.name, "required", "This field is required."))
            continue
        try:
            msgspec.convert(document[field.name], field.type)
        except (msgspec.ValidationError, RecursionError):
            errors.append(_error(field.name, "invalid", _WANTED[field.name]))
    return invalid(errors)


_WANTED = {
    "profile_id": "A UUID is needed.",
    "title_id": "A UUID is needed.",
    "device_id": "A text of 1 to 100 characters, without NUL, is needed.",
    "device_type": "One of tv, mobile, tablet and web is needed.",
    "session_id": "A UUID or null is needed.",
    "is_paused": "true or false is needed.",
}


def _error(field: str, code: str, detail: str) -> dict[str, str]:
    return {"field": field, "code": code, "detail": detail}


def read_heartbeats(document: dict[str, Any]) -> list[Heartbeat | Problem]:
    """The beats of a batch, each a beat or what is wrong with it; 1 to 500 of them."""
    beats = document.get("heartbeats")
    if not isinstance(beats, list) or not 1 <= len(beats) <= MOST_HEARTBEATS:
        detail = f"A list of 1 to {MOST_HEARTBEATS} beats is needed."
        code = "required" if "heartbeats" not in document else "invalid"
        raise invalid([_error("heartbeats", code, detail)])
    found: list[Heartbeat | Problem] = []
    for beat in beats:
        try:
            found.append(read_heartbeat(beat))
        except Problem as problem:
            found.append(problem)
    return found


def answer_body(answer: Answer) -> dict[str, Any]:
    """The answer to a beat as JSON has it."""
    return {
        "session_id": None if answer.session_id is None else str(answer.session_id),
        "enforcement": answer.enforcement.value,
        "remaining_minutes": minutes(answer.remaining),
        "used_minutes": minutes(answer.used),
        "is_educational": answer.is_educational,
        "reason": None if answer.reason is None else answer.reason.value,
        "next_heartbeat_seconds": answer.next_heartbeat_seconds,
    }


def problem_body(problem: Problem) -> dict[str, Any]:
    """What stands in a batch's answer in the place of a refused beat."""
    error: dict[str, Any] = {
        "status": problem.status,
        "code": problem.code,
        "detail": problem.detail,
    }
    if problem.errors:
        error["errors"] = problem.errors
    return {"error": error}


_ENFORCEMENTS = [
    (Enforcement.ALLOWED.value, "play on"),
    (Enforcement.WARNING_15.value, "play on; 15 minutes or less remain"),
    (Enforcement.WARNING_5.value, "play on; 5 minutes or less remain"),
    (Enforcement.BLOCKED.value, "stop; `reason` says why"),
]
_REASONS = [
    (Reason.VIEWING_TIME_EXHAUSTED.value, "nothing remains for this title today"),
    (Reason.SESSION_ENDED.value, "the session was ended, by its player or another"),
    (Reason.SUPERSEDED.value, "the child watches on another device"),
    (Reason.UNAVAILABLE.value, "the service cannot answer right now; in a 503 alone"),
]
_REMAINING = "until the next reset, for what is not exempt; null = unlimited"
_OVERRIDE = "whether a grant lifted the limit until the next reset"
_NEXT_RESET = "when the next viewing day begins; null for an adult"


@shows(examples.HEARTBEAT)
class HeartbeatRequestSerializer(serializers.Serializer[Any]):
    """A player's sign of life."""

    profile_id = serializers.UUIDField(help_text="who is watching")
    title_id = serializers.UUIDField(help_text="what is playing: its id in the catalogue")
    device_id = serializers.CharField(
        min_length=1, max_length=100, help_text="the same for the same device, of your choice"
    )
    device_type = serializers.ChoiceField(
        DeviceType.choices,
        default=DeviceType.WEB.value,
        help_text="shown in the history; decides nothing",
    )
    session_id = serializers.UUIDField(
        required=False,
        allow_null=True,
        help_text="the one that the last answer carried; null or left out at the start",
    )
    is_paused = serializers.BooleanField(
        default=False, help_text="up to 300 seconds of a pause count"
    )


@shows(examples.HEARTBEAT_ANSWER)
class HeartbeatAnswerSerializer(serializers.Serializer[Any]):
    """How much longer, and when to beat again. Minutes are rounded to hundredths."""

    session_id = serializers.UUIDField(
        allow_null=True,
        help_text="send it with the next beat; may be another one. Null: none was opened",
    )
    enforcement = serializers.ChoiceField(_ENFORCEMENTS)
    remaining_minutes = serializers.FloatField(allow_null=True, help_text=_REMAINING)
    used_minutes = serializers.FloatField(
        help_text="of the running day, without what was exempt; 0 for an adult"
    )
    is_educational = serializers.BooleanField(help_text="the title's flag, as it was at the start")
    reason = serializers.ChoiceField(_REASONS, allow_null=True)
    next_heartbeat_seconds = serializers.IntegerField(
        help_text="beat again after so many seconds, 1 to 30"
    )


@shows(examples.BATCH)
class HeartbeatBatchRequestSerializer(serializers.Serializer[Any]):
    """Up to 500 beats."""

    heartbeats = serializers.ListField(
        child=HeartbeatRequestSerializer(),
        min_length=1,
        max_length=MOST_HEARTBEATS,
        help_text="several of one profile are taken in this order",
    )


class HeartbeatErrorSerializer(serializers.Serializer[Any]):
    """Why a beat of a batch was refused."""

    status = serializers.IntegerField(help_text="that of the problem, had the beat come alone")
    code = serializers.CharField(help_text="for programs, and stable")
    detail = serializers.CharField(help_text="one sentence for people")
    errors = FieldErrorSerializer(  # type: ignore[assignment]
        many=True, required=False, help_text="each value that was refused"
    )


class HeartbeatResultSerializer(HeartbeatAnswerSerializer):
    """Either the answer to a beat, or `error` alone."""

    error = HeartbeatErrorSerializer(required=False)

    def get_fields(self) -> dict[str, serializers.Field[Any, Any, Any, Any]]:
        fields = super().get_fields()
        for field in fields.values():
            field.required = False
        return fields


@shows(examples.BATCH_ANSWER)
class HeartbeatBatchAnswerSerializer(serializers.Serializer[Any]):
    """One result per beat, in order."""

    results = HeartbeatResultSerializer(many=True, help_text="in the order of the beats")


@shows(examples.SESSION_END)
class SessionEndSerializer(serializers.Serializer[Any]):
    """The session that was asked for."""

    session_id = serializers.UUIDField(help_text="as in the path")
    total_seconds = serializers.FloatField(help_text="what it was credited in all, exempt or not")
    ended_at = serializers.DateTimeField(
        help_text="30 s after its last beat, if it had gone silent"
    )


@shows(examples.BALANCE)
class BalanceSerializer(serializers.Serializer[Any]):
    """A profile's running day. Minutes are rounded to hundredths."""

    profile_id = serializers.UUIDField(help_text="as in the path")
    is_child_profile = serializers.BooleanField(help_text="only children are limited")
    has_limits = serializers.BooleanField(
        help_text="whether something limits the day: a limit, and no override"
    )
    used_minutes = serializers.FloatField(help_text="what counted, up to the last beat")
    educational_minutes = serializers.FloatField(help_text="what was exempt, up to the last beat")
    granted_minutes = serializers.FloatField(help_text="extra time of the day")
    limit_minutes = serializers.FloatField(
        allow_null=True, help_text="the day's, without extra time; null = unlimited"
    )
    remaining_minutes = serializers.FloatField(allow_null=True, help_text=_REMAINING)
    is_unlimited_override = serializers.BooleanField(help_text=_OVERRIDE)
    next_reset_at = serializers.DateTimeField(allow_null=True, help_text=_NEXT_RESET)
    warning_threshold_minutes = serializers.ListField(
        child=serializers.IntegerField(), help_text="at which remaining minutes beats warn"
    )


@shows(examples.ELIGIBILITY)
class EligibilitySerializer(serializers.Serializer[Any]):
    """Whether playback may start now. Minutes are rounded to hundredths."""

    eligible = serializers.BooleanField(help_text="whether playback may start")
    remaining_minutes = serializers.FloatField(allow_null=True, help_text=_REMAINING)
    reason = serializers.CharField(
        allow_null=True, help_text="`viewing_time_exhausted` where it may not, else null"
    )
    next_reset_at = serializers.DateTimeField(allow_null=True, help_text=_NEXT_RESET)


@extend_schema_field(
    {
        "type": "integer",
        "minimum": LIMIT_LEAST_MINUTES,
        "maximum": LIMIT_MOST_MINUTES,
        "multipleOf": LIMIT_STEP_MINUTES,
    }
)
class _LimitField(StrictIntegerField):
    """A limit in minutes: 15 to 480 in steps of 15; null = unlimited."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(
            min_value=LIMIT_LEAST_MINUTES,
            max_value=LIMIT_MOST_MINUTES,
            allow_null=True,
            required=False,
            **kwargs,
        )

    def to_internal_value(self, data: Any) -> int:
        value = super().to_internal_value(data)
        if value % LIMIT_STEP_MINUTES:
            raise serializers.ValidationError(
                f"A limit is a multiple of {LIMIT_STEP_MINUTES} minutes.", code="not_a_step"
            )
        return value


_CONFIG = {
    "weekday_limit_minutes": "Monday to Friday: 15 to 480 in steps of 15; null = unlimited",
    "weekend_limit_minutes": "Saturday and Sunday: 15 to 480 in steps of 15; null = unlimited",
    "reset_hour": "when a viewing day begins, in hours of the child's `timezone`",
    "timezone": "an IANA name, as in `Europe/Berlin`",
    "educational_exempt": "whether educational titles use nothing up",
}


class ViewingTimeConfigChangeSerializer(serializers.Serializer[Any]):
    """The config fields to set; what is left out stays as it is."""

    weekday_limit_minutes = _LimitField(help_text=_CONFIG["weekday_limit_minutes"])
    weekend_limit_minutes = _LimitField(help_text=_CONFIG["weekend_limit_minutes"])
    reset_hour = StrictIntegerField(
        min_value=0, max_value=23, required=False, help_text=_CONFIG["reset_hour"]
    )
    timezone = StrictCharField(
        max_length=64, required=False, trim_whitespace=False, help_text=_CONFIG["timezone"]
    )
    educational_exempt = StrictBooleanField(required=False, help_text=_CONFIG["educational_exempt"])

    def validate_timezone(self, value: str) -> str:
        if value not in timezone_names():
            raise serializers.ValidationError("There is no such time zone.", code="unknown_zone")
        return value


@shows(examples.CONFIG_CHANGE)
class ViewingTimeConfigRequestSerializer(ViewingTimeConfigChangeSerializer):
    """What to set, and the PIN token that is needed once there is a PIN."""

    pin_token = PinTokenField(help_text="what `verify_pin` answered; needed once there is a PIN")


@shows(examples.CONFIG)
class ViewingTimeConfigSerializer(serializers.ModelSerializer[ViewingTimeConfig]):
    """What a parent set for a child."""

    profile_id = serializers.UUIDField(help_text="as in the path")
    profile_name = serializers.CharField(source="profile.name", help_text="the child's")

    class Meta:
        model = ViewingTimeConfig
        fields = (
            "profile_id",
            "profile_name",
            "weekday_limit_minutes",
            "weekend_limit_minutes",
            "reset_hour",
            "educational_exempt",
            "timezone",
            "updated_at",
        )
        read_only_fields = fields
        extra_kwargs = {
            "updated_at": {"help_text": "when any of these was set last"},
            **{name: {"help_text": text} for name, text in _CONFIG.items()},
        }


@extend_schema_field({"type": ["integer", "null"], "enum": [*GRANT_MINUTES, None]})
class _GrantField(StrictIntegerField):
    """Minutes to grant; null = unlimited."""


@shows(examples.GRANT_REQUEST)
class GrantRequestSerializer(serializers.Serializer[Any]):
    """Extra time for today: 15, 30 or 60 minutes, or null = unlimited."""

    minutes = _GrantField(
        allow_null=True, help_text="null = unlimited until the next reset, so it is never left out"
    )
    pin = PinField("the account's PIN, on the child's device", required=False, allow_null=True)
    pin_token = PinTokenField(help_text="what `verify_pin` answered, instead of the PIN")

    def validate_minutes(self, value: int | None) -> int | None:
        if value is not None and value not in GRANT_MINUTES:
            raise serializers.ValidationError(
                "Extra time is 15, 30 or 60 minutes, or null for unlimited.", code="not_a_grant"
            )
        return value


@shows(examples.GRANT)
class GrantSerializer(serializers.Serializer[Any]):
    """A grant, and what remains right after it. Minutes are rounded to hundredths."""

    granted_minutes = serializers.IntegerField(
        allow_null=True, help_text="by this grant; null = unlimited"
    )
    remaining_minutes = serializers.FloatField(allow_null=True, help_text=_REMAINING)
    is_unlimited_override = serializers.BooleanField(help_text=_OVERRIDE)

"""The endpoints of viewing time. A view validates, calls one function, and answers."""

from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Any, ClassVar, cast
from uuid import UUID

from django.conf import settings
from django.db import connection
from django.db.models import Q
from django.http.response import HttpResponseBase
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.authentication import BaseAuthentication
from rest_framework.exceptions import PermissionDenied
from rest_framework.permissions import SAFE_METHODS, BasePermission
from rest_framework.request import Request
from rest_framework.response import Response

from adminmetrics import recorder
from parentalcontrols import idempotency, profiles, ratelimits
from parentalcontrols.authentication import AnyCaller, CallerAuthentication, ParentOnly
from parentalcontrols.models import Title
from parentalcontrols.problems import Problem, invalid, not_found
from parentalcontrols.views import HASHING_REQUEST_SECONDS, BoundedView, actor_of, caller_of
from pins import verification
from viewingtime import (
    gathering,
    grants,
    heartbeats,
    history,
    ledger,
    ledgers,
    limits,
    reports,
    spreadsheets,
)
from viewingtime.heartbeats import ClockTimestamp
from viewingtime.ledger import Enforcement, Reason
from viewingtime.read_serializers import (
    FORMAT,
    HISTORY_PARAMETERS,
    HistorySerializer,
    WeeklyReportSerializer,
    history_body,
    read_cursor,
    read_date,
    report_body,
)
from viewingtime.serializers import (
    BalanceSerializer,
    EligibilitySerializer,
    GrantRequestSerializer,
    GrantSerializer,
    HeartbeatAnswerSerializer,
    HeartbeatBatchAnswerSerializer,
    HeartbeatBatchRequestSerializer,
    HeartbeatRequestSerializer,
    SessionEndSerializer,
    ViewingTimeConfigRequestSerializer,
    ViewingTimeConfigSerializer,
    answer_body,
    minutes,
    read_heartbeat,
    read_heartbeats,
    result_body,
)


def _recorded_report(account_id: UUID) -> reports.Report:
    """A weekly report, its queries and its duration counted."""
    queries = 0

    def counted(execute: Callable[..., Any], *arguments: Any) -> Any:
        nonlocal queries
        queries += 1
        return execute(*arguments)

    began = perf_counter()
    with connection.execute_wrapper(counted):
        report = reports.weekly(account_id)
    recorder.weekly_report(queries, perf_counter() - began)
    return report


def body_of(request: Request) -> dict[str, Any]:
    """The JSON object that was sent; the parser lets nothing else pass."""
    return cast(dict[str, Any], request.data)


class PlayerView(BoundedView):
    """What a player asks: answered within two seconds, and "blocked" where it cannot be."""

    authentication_classes: Sequence[type[BaseAuthentication]] = (CallerAuthentication,)
    permission_classes = (AnyCaller,)
    database_seconds = settings.REQUEST_DEADLINE_MS / 1000
    unavailable_members: ClassVar[dict[str, Any]] = {
        "enforcement": Enforcement.BLOCKED.value,
        "reason": Reason.UNAVAILABLE.value,
    }


class HeartbeatView(PlayerView):
    """Send a heartbeat.

    Needs an account token, or the profile token of that child. Credits the time since the last beat
    and says how much longer. Keep the `session_id` of the answer and send it with the next beat,
    after `next_heartbeat_seconds`, also while paused; stop on `blocked`. A beat may be sent again:
    time is credited once.

    A profile, title or session that is not there, or not the household's, is a 404; so is a
    withdrawn title that would have to be started. A 503 says `blocked`: stop, and beat again after
    `Retry-After`.
    """

    @extend_schema(
        operation_id="heartbeat",
        request=HeartbeatRequestSerializer,
        responses=HeartbeatAnswerSerializer,
    )
    def post(self, request: Request) -> Response:
        beat = read_heartbeat(body_of(request))
        answer = gathering.process([beat], caller_of(request))[0]
        if isinstance(answer, Problem):
            raise answer
        return Response(answer_body(answer))


class HeartbeatBatchView(PlayerView):
    """Send up to 500 heartbeats.

    Needs an account token, or the profile token of the child. Takes the beats in order and answers
    one result for each, in the same order: the answer to the beat, or `error` alone where it is
    refused. One that is refused spoils no other, and the answer is a 200 all the same.

    A 400 is for a body that is no list of 1 to 500 beats. A 503 says `blocked` for all of them.
    """

    @extend_schema(
        operation_id="heartbeats",
        request=HeartbeatBatchRequestSerializer,
        responses=HeartbeatBatchAnswerSerializer,
    )
    def post(self, request: Request) -> Response:
        beats = read_heartbeats(body_of(request))
        good = [beat for beat in beats if not isinstance(beat, Problem)]
        answers = iter(gathering.process(good, caller_of(request)))
        results = [beat if isinstance(beat, Problem) else next(answers) for beat in beats]
        return Response({"results": [result_body(result) for result in results]})


class SessionEndView(PlayerView):
    """End a session.

    Needs an account token, or the profile token of that child. Credits the time up to now; no body
    is needed. Ending it twice answers the same. A later beat of it is `blocked`, `session_ended`.

    A 503 says `blocked`, and may be asked again.
    """

    @extend_schema(operation_id="end_session", request=None, responses=SessionEndSerializer)
    def post(self, request: Request, session_id: UUID) -> Response:
        return Response(SessionEndSerializer(heartbeats.end(session_id, caller_of(request))).data)


class BalanceView(BoundedView):
    """Read what is used and left of the running day.

    Needs an account token, or the profile token of that child. What was watched since the last beat
    is not in it. An adult is never limited: amounts are 0, and limits and `next_reset_at` null.
    """

    permission_classes = (AnyCaller,)

    @extend_schema(operation_id="balance", responses=BalanceSerializer)
    def get(self, request: Request, profile_id: UUID) -> Response:
        profile = profiles.owned(caller_of(request), profile_id)
        body: dict[str, Any] = {
            "profile_id": profile.id,
            "is_child_profile": profile.is_kids,
            "has_limits": False,
            "used_minutes": 0.0,
            "educational_minutes": 0.0,
            "granted_minutes": 0.0,
            "limit_minutes": None,
            "remaining_minutes": None,
            "is_unlimited_override": False,
            "next_reset_at": None,
            "warning_threshold_minutes": [15, 5],
        }
        if profile.is_kids:
            viewer = ledgers.viewer_of(profiles.config_of(profile))
            _, balance = ledgers.read_balance(profile.id, viewer)
            body |= {
                "has_limits": balance.remaining is not None,
                "used_minutes": minutes(balance.used),
                "educational_minutes": minutes(balance.educational),
                "granted_minutes": minutes(balance.granted),
                "limit_minutes": minutes(balance.limit),
                "remaining_minutes": minutes(ledger.verdict(balance, is_exempt=True).remaining),
                "is_unlimited_override": balance.is_unlimited_override,
                "next_reset_at": viewer.schedule.bounds(balance.reset_date).ends_at,
            }
        return Response(BalanceSerializer(body).data)


class EligibilityView(PlayerView):
    """Ask whether playback may start.

    Needs an account token, or the profile token of that child. Stores nothing. Name the title where
    it is known: one that is exempt may start with nothing remaining, too. An unknown or withdrawn
    title is a 404.

    A 503 says `eligible` false: do not start.
    """

    authentication_classes: Sequence[type[BaseAuthentication]] = BoundedView.authentication_classes
    unavailable_members: ClassVar[dict[str, Any]] = {
        "eligible": False,
        "reason": Reason.UNAVAILABLE.value,
    }

    @extend_schema(
        operation_id="playback_eligible",
        parameters=[
            OpenApiParameter(
                "title_id", UUID, description="what is to be played; left out: what counts"
            )
        ],
        responses=EligibilitySerializer,
    )
    def get(self, request: Request, profile_id: UUID) -> Response:
        profile = profiles.owned(caller_of(request), profile_id)
        is_educational = _is_educational(request.query_params.get("title_id"))
        balance = None
        next_reset_at = None
        is_exempt = False
        if profile.is_kids:
            viewer = ledgers.viewer_of(profiles.config_of(profile))
            _, balance = ledgers.read_balance(profile.id, viewer)
            next_reset_at = viewer.schedule.bounds(balance.reset_date).ends_at
            is_exempt = viewer.exempts(is_educational)
        standing = ledger.verdict(balance, is_exempt=is_exempt)
        return Response(
            EligibilitySerializer(
                {
                    "eligible": standing.enforcement is not Enforcement.BLOCKED,
                    "remaining_minutes": minutes(standing.remaining),
                    "reason": None if standing.reason is None else standing.reason.value,
                    "next_reset_at": next_reset_at,
                }
            ).data
        )


def _is_educational(title_id: str | None) -> bool:
    """The flag of a title that may be started; False without a title, 404 for an unknown one."""
    if title_id is None:
        return False
    try:
        wanted = UUID(title_id)
    except ValueError:
        error = {"field": "title_id", "code": "invalid", "detail": "This is no UUID."}
        raise invalid([error]) from None
    found = Title.objects.filter(
        Q(withdrawn_at=None) | Q(withdrawn_at__gt=ClockTimestamp()), id=wanted
    ).values_list("is_educational")
    for (flag,) in found:
        return bool(flag)
    raise not_found()


class ViewingTimeConfigView(BoundedView):
    """A child's limits and the hour its day starts; read by its device, too, set by a parent."""

    def get_permissions(self) -> list[BasePermission]:
        return [AnyCaller() if self.request.method in SAFE_METHODS else ParentOnly()]

    @extend_schema(operation_id="viewing_time", responses=ViewingTimeConfigSerializer)
    def get(self, request: Request, profile_id: UUID) -> Response:
        """Read a child's limits.

        Needs an account token, or the profile token of that child. An adult has none: 404. Always
        the values that were set last, also while a new hour or zone waits for the reset.
        """
        profile = profiles.owned(caller_of(request), profile_id, kids_only=True)
        return Response(ViewingTimeConfigSerializer(profiles.config_of(profile)).data)

    @extend_schema(
        operation_id="change_viewing_time",
        request=ViewingTimeConfigRequestSerializer,
        responses=ViewingTimeConfigSerializer,
    )
    def put(self, request: Request, profile_id: UUID) -> Response:
        """Change a child's limits.

        Needs an account token and, once the account has a PIN, a PIN token that one obtained: else
        403 `pin_required` or `pin_token_invalid`. Fields that are left out stay as they are. Limits
        are in force at once, the exemption from the next beat on, hour and zone from the next reset
        on. An adult has no limits: 404.
        """
        profile = profiles.owned(caller_of(request), profile_id, kids_only=True)
        body = ViewingTimeConfigRequestSerializer(data=request.data)
        body.is_valid(raise_exception=True)
        changes = dict(body.validated_data)
        pin_token = changes.pop("pin_token", None)
        config = limits.change(
            profile_id=profile.id,
            account_id=profile.account_id,
            changes=changes,
            actor=actor_of(request),
            pin_token=pin_token,
        )
        return Response(ViewingTimeConfigSerializer(config).data)


class GrantView(BoundedView):
    """Give a child extra time for today.

    Needs an account token, or the profile token of that child together with the PIN or a PIN token.
    An overrun is forgiven first, so that the granted minutes remain. With an `Idempotency-Key` a
    grant that is sent again is not given again.

    403 `parent_required` where a profile token came without PIN and PIN token; `incorrect_pin`,
    `pin_locked` and `pin_token_invalid` where one was sent that is not good. 400
    `not_a_kids_profile` for an adult, `pin_not_set` for a PIN where the account has none,
    `idempotency_key_reused` for a key that was used for another request.
    """

    permission_classes = (AnyCaller,)
    database_seconds = HASHING_REQUEST_SECONDS

    @extend_schema(
        operation_id="grant_time",
        request=GrantRequestSerializer,
        parameters=[
            OpenApiParameter(
                idempotency.HEADER,
                str,
                OpenApiParameter.HEADER,
                description=(
                    "1 to 255 printable ASCII characters, new for each grant that a person asks "
                    "for; a repeat within 24 hours gets the first answer"
                ),
            )
        ],
        responses=GrantSerializer,
    )
    def post(self, request: Request, profile_id: UUID) -> Response:
        caller = caller_of(request)
        profile = profiles.owned(caller, profile_id)
        body = GrantRequestSerializer(data=request.data)
        body.is_valid(raise_exception=True)
        pin, pin_token = body.validated_data.get("pin"), body.validated_data.get("pin_token")
        is_remote = pin is None and pin_token is None
        if is_remote and not caller.is_parent:
            raise PermissionDenied(
                "A parent has to allow this: with the PIN, or from a device of their own.",
                ParentOnly.code,
            )
        if not profile.is_kids:
            raise Problem(400, "not_a_kids_profile", "Only a child's viewing time is limited.")
        key = idempotency.key_of(
            request,
            account_id=caller.account_id,
            route=grants.route(profile_id),
            body={k: v for k, v in body_of(request).items() if k not in {"pin", "pin_token"}},
        )
        granted = None if key is None else grants.kept_grant(key)
        if granted is None:
            actor = actor_of(request)
            if pin is not None:
                verification.check(caller.account_id, pin, actor=actor)
            granted = grants.grant(
                profile_id=profile.id,
                account_id=caller.account_id,
                minutes=body.validated_data["minutes"],
                is_remote=is_remote,
                actor=actor,
                pin_token=pin_token,
                key=key,
            )
        return Response(
            GrantSerializer(
                {
                    "granted_minutes": granted.granted_minutes,
                    "remaining_minutes": minutes(granted.remaining),
                    "is_unlimited_override": granted.is_unlimited_override,
                }
            ).data
        )


class JSONOrCSVView(BoundedView):
    """A table that may be asked for as a file for spreadsheets, too."""

    @property
    def default_response_headers(self) -> dict[str, str]:
        return {**super().default_response_headers, "Vary": "Accept"}


class HistoryView(JSONOrCSVView):
    """Read what a profile watched.

    Needs an account token. By viewing day, the newest first, 100 sessions a page, of 90 days at
    most; `next_cursor` leads to the next page, and what starts meanwhile moves none. As CSV there
    are no pages, and files are limited (429).
    """

    @extend_schema(
        operation_id="history",
        parameters=HISTORY_PARAMETERS,
        responses={
            (200, spreadsheets.JSON): HistorySerializer,
            (200, spreadsheets.CSV): OpenApiTypes.STR,
        },
    )
    def get(self, request: Request, profile_id: UUID) -> HttpResponseBase:
        profile = profiles.owned(caller_of(request), profile_id)
        query = request.query_params
        as_file = spreadsheets.asked_for(request)
        cursor = query.get("cursor")
        days = {field: read_date(query, field) for field in ("from_date", "to_date")}
        if cursor is None:
            place = history.first_place(profile, **days)
        elif as_file:
            error = {"field": "cursor", "code": "not_paged", "detail": "A CSV file has no pages."}
            raise invalid([error])
        else:
            place = read_cursor(cursor, **days)
        if as_file:
            ratelimits.export(request, profile.account_id)
            return spreadsheets.history_file(profile_id=profile.id, place=place)
        page = history.read(profile_id=profile.id, place=place, size=history.PAGE_SESSIONS)
        return Response(history_body(profile.id, page))


class WeeklyReportView(JSONOrCSVView):
    """Read the weekly report.

    Needs an account token. The last seven viewing days of every child of the household, the running
    one included. As CSV it has a row for each child and day, and files are limited (429).
    """

    @extend_schema(
        operation_id="weekly_report",
        parameters=[FORMAT],
        responses={
            (200, spreadsheets.JSON): WeeklyReportSerializer,
            (200, spreadsheets.CSV): OpenApiTypes.STR,
        },
    )
    def get(self, request: Request) -> HttpResponseBase:
        as_file = spreadsheets.asked_for(request)
        if as_file:
            ratelimits.export(request, caller_of(request).account_id)
        report = _recorded_report(caller_of(request).account_id)
        if as_file:
            return spreadsheets.report_file(report)
        return Response(report_body(report))

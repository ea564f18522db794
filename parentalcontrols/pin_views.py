"""The endpoints of the PIN, and of the audit of what it guards."""

from typing import Annotated

import msgspec
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from parentalcontrols import accounts, cursors, ratelimits
from parentalcontrols.authentication import AnyCaller
from parentalcontrols.serializers import (
    AuditPageSerializer,
    DetailSerializer,
    PinChangeSerializer,
    PinResetSerializer,
    PinSerializer,
    PinStatusSerializer,
    PinVerifiedSerializer,
)
from parentalcontrols.views import (
    HASHING_REQUEST_SECONDS,
    BoundedView,
    account_of,
    actor_of,
    caller_of,
)
from pins import audit, tokens, verification

#: The id of an audit entry, which is where its next page begins.
_Place = Annotated[int, msgspec.Meta(ge=0, lt=10**18)]


class PinStatusView(BoundedView):
    """Tell whether there is a PIN, and whether it is locked.

    Needs an account token.
    """

    @extend_schema(operation_id="pin_status", responses=PinStatusSerializer)
    def get(self, request: Request) -> Response:
        found = verification.status(caller_of(request).account_id)
        return Response(PinStatusSerializer(found).data)


class PinView(BoundedView):
    """Set or change the PIN.

    Needs an account token and, once there is a PIN, the current one. Every PIN token ends with it.

    403 `pin_required` where `current_pin` is missing, `incorrect_pin` where it is wrong. After five
    wrong ones, wherever they were sent, nothing is checked for 30 minutes: `pin_locked`, with
    `locked_until` in the body and in the header `X-Locked-Until`.
    """

    database_seconds = HASHING_REQUEST_SECONDS

    @extend_schema(operation_id="set_pin", request=PinChangeSerializer, responses=DetailSerializer)
    def post(self, request: Request) -> Response:
        body = PinChangeSerializer(data=request.data)
        body.is_valid(raise_exception=True)
        account_id = caller_of(request).account_id
        verification.set_pin(account_id, **body.validated_data, actor=actor_of(request))
        return Response({"detail": "The PIN is set."})


class PinVerifyView(BoundedView):
    """Check a PIN, for a PIN token.

    Needs an account token or a profile token. The PIN token is good for five minutes, and until the
    PIN changes. One that an account token obtained is good for any number of grants and changes of
    limits, one that a profile token obtained for one grant to that child.

    403 `incorrect_pin` where it is wrong and `pin_locked` after five wrong ones; 400 `pin_not_set`
    where the account has none.
    """

    permission_classes = (AnyCaller,)
    database_seconds = HASHING_REQUEST_SECONDS

    @extend_schema(
        operation_id="verify_pin", request=PinSerializer, responses=PinVerifiedSerializer
    )
    def post(self, request: Request) -> Response:
        body = PinSerializer(data=request.data)
        body.is_valid(raise_exception=True)
        caller = caller_of(request)
        pin = body.validated_data["pin"]
        version = verification.check(caller.account_id, pin, actor=actor_of(request))
        return Response({"verified": True, "pin_token": tokens.issue(caller, version)})


class PinResetView(BoundedView):
    """Set a new PIN with the account's password.

    Needs an account token and the password, for who forgot the PIN. A lock is lifted, and every PIN
    token ends.

    403 `incorrect_password` where it is wrong; too many wrong ones are a 429.
    """

    database_seconds = HASHING_REQUEST_SECONDS

    @extend_schema(operation_id="reset_pin", request=PinResetSerializer, responses=DetailSerializer)
    def post(self, request: Request) -> Response:
        body = PinResetSerializer(data=request.data)
        body.is_valid(raise_exception=True)
        accounts.reset_pin(
            account_of(request),
            **body.validated_data,
            address=ratelimits.client_address(request),
            actor=actor_of(request),
        )
        return Response({"detail": "The PIN is set."})


class AuditView(BoundedView):
    """Read what loosened or tightened the limits.

    Needs an account token. The newest entry first, 50 a page: who did what, on which device, from
    what to what. `next_cursor` leads to the next page. No entry is ever changed.
    """

    @extend_schema(
        operation_id="audit",
        parameters=[OpenApiParameter("cursor", str, description="`next_cursor` of a page")],
        responses=AuditPageSerializer,
    )
    def get(self, request: Request) -> Response:
        cursor = request.query_params.get("cursor")
        before = None if cursor is None else cursors.decode(cursor, _Place)
        page = audit.read(account_id=caller_of(request).account_id, before=before)
        after = None if page.next_before is None else cursors.encode(page.next_before)
        return Response(AuditPageSerializer({"entries": page.entries, "next_cursor": after}).data)

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
    """Whether there is a PIN, and whether it is locked."""

    @extend_schema(operation_id="pin_status", responses=PinStatusSerializer)
    def get(self, request: Request) -> Response:
        found = verification.status(caller_of(request).account_id)
        return Response(PinStatusSerializer(found).data)


class PinView(BoundedView):
    """The first PIN, or another one for the current one."""

    database_seconds = HASHING_REQUEST_SECONDS

    @extend_schema(operation_id="set_pin", request=PinChangeSerializer, responses=DetailSerializer)
    def post(self, request: Request) -> Response:
        body = PinChangeSerializer(data=request.data)
        body.is_valid(raise_exception=True)
        account_id = caller_of(request).account_id
        verification.set_pin(account_id, **body.validated_data, actor=actor_of(request))
        return Response({"detail": "The PIN is set."})


class PinVerifyView(BoundedView):
    """A PIN for a PIN token."""

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
    """Another PIN for the account's password."""

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
    """What loosened or tightened the household's limits, newest first."""

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

"""The endpoints of data protection: a household's data as a file, and their erasure."""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from django.http import HttpResponse, StreamingHttpResponse
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from parentalcontrols import accounts, profiles, ratelimits
from parentalcontrols.schema import shows
from parentalcontrols.serializers import PasswordField, PinTokenField
from parentalcontrols.views import BoundedView, account_of, actor_of, caller_of
from viewingtime import erasure, examples, exports

_JSON = "application/json"


@shows(examples.ERASURE)
class ErasureRequestSerializer(serializers.Serializer[Any]):
    """The PIN token, once the account has a PIN."""

    pin_token = PinTokenField(
        default=None, help_text="what `verify_pin` answered; needed once there is a PIN"
    )


@shows(examples.ACCOUNT_ERASURE)
class AccountErasureRequestSerializer(ErasureRequestSerializer):
    """The account's password once more, too."""

    password = PasswordField()


@shows(examples.RECEIPT)
class ReceiptSerializer(serializers.Serializer[Any]):
    """That something was erased."""

    receipt_id = serializers.UUIDField(source="id", help_text="what the log of erasures keeps")
    erased_at = serializers.DateTimeField(help_text="by the database's clock")
    deleted = serializers.DictField(
        child=serializers.IntegerField(), help_text="how many of each kind"
    )


class ExportView(BoundedView):
    """Export everything that is stored of the household.

    Needs an account token. One JSON file, all of it of one instant: `format`, `exported_at`,
    `account`, `pin` (when it was set), `log_ins`, `audit` and `profiles`, each with its `config`,
    `balances`, `grants` and `sessions`. No password, PIN or token is in it. Files are limited
    (429).
    """

    database_seconds = exports.SECONDS

    @extend_schema(operation_id="export_account", responses={200: OpenApiTypes.OBJECT})
    def get(self, request: Request) -> StreamingHttpResponse:
        account_id = caller_of(request).account_id
        with exports.turn():
            ratelimits.export(request, account_id)
            found = exports.export(account_id)
        headers = {**self._headers(), "Content-Length": str(found.size)}
        return StreamingHttpResponse(found.parts(), content_type=_JSON, headers=headers)

    def head(self, request: Request) -> HttpResponse:
        """Reads nothing, and is no export that counts."""
        return HttpResponse(content_type=_JSON, headers=self._headers())

    def _headers(self) -> dict[str, str]:
        name = f"viewing-time-{datetime.now(UTC).date()}.json"
        return {
            "Content-Disposition": f'attachment; filename="{name}"',
            "Cache-Control": "no-store",
        }


class EraseProfileView(BoundedView):
    """Erase a profile.

    Needs an account token and, once the account has a PIN, a PIN token that one obtained: else 403
    `pin_required` or `pin_token_invalid`. All that is stored of the profile is gone for good, and
    its tokens with it, when this is answered. Who did not get the answer asks again: a 404 tells
    that it was done.
    """

    database_seconds = erasure.SECONDS

    @extend_schema(
        operation_id="erase_profile", request=ErasureRequestSerializer, responses=ReceiptSerializer
    )
    def post(self, request: Request, profile_id: UUID) -> Response:
        profile = profiles.owned(caller_of(request), profile_id)
        body = ErasureRequestSerializer(data=request.data)
        body.is_valid(raise_exception=True)
        receipt = erasure.erase_profile(
            profile_id=profile.id,
            account_id=profile.account_id,
            actor=actor_of(request),
            **body.validated_data,
        )
        return Response(ReceiptSerializer(receipt).data)


class EraseAccountView(BoundedView):
    """Erase the household.

    Needs an account token, the account's password and, once there is a PIN, a PIN token that one
    obtained. All that is stored is gone for good, and every token with it, when this is answered.
    Who did not get the answer asks again: a 401 tells that it was done.

    403 `incorrect_password`, `pin_required` or `pin_token_invalid`, and `staff_account` for an
    account of staff; too many wrong passwords are a 429.
    """

    database_seconds = erasure.SECONDS

    @extend_schema(
        operation_id="erase_account",
        request=AccountErasureRequestSerializer,
        responses=ReceiptSerializer,
    )
    def post(self, request: Request) -> Response:
        body = AccountErasureRequestSerializer(data=request.data)
        body.is_valid(raise_exception=True)
        account = account_of(request)
        accounts.confirm(
            account,
            password=body.validated_data["password"],
            address=ratelimits.client_address(request),
        )
        receipt = erasure.erase_account(
            account_id=account.id,
            actor=actor_of(request),
            pin_token=body.validated_data["pin_token"],
        )
        return Response(ReceiptSerializer(receipt).data)

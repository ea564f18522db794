"""The household's endpoints, and the pages that tell whether the service is well."""

import logging
from typing import Any, cast
from uuid import UUID

from django.core.cache import cache
from django.db import Error as DatabaseError
from django.db import connection
from django.http import HttpRequest, HttpResponse, JsonResponse
from drf_spectacular.utils import extend_schema
from rest_framework import status
from rest_framework.permissions import AllowAny
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from parentalcontrols import accounts, profiles, ratelimits
from parentalcontrols.authentication import SCOPE_PROFILE, Caller
from parentalcontrols.models import Account
from parentalcontrols.parsers import JSONRequest
from parentalcontrols.postgresql import deadline
from parentalcontrols.problems import Problem
from parentalcontrols.serializers import (
    AccountSerializer,
    CredentialsSerializer,
    ProfileRequestSerializer,
    ProfileSerializer,
    ProfileTokenSerializer,
    RefreshSerializer,
    RegistrationSerializer,
    TokenPairSerializer,
)
from pins import audit
from pins.audit import Actor

logger = logging.getLogger(__name__)

#: The longest an ordinary request waits for the database, in seconds.
REQUEST_SECONDS = 10.0
#: The same where a request waits for its turn to hash, and for the hash, in between.
HASHING_REQUEST_SECONDS = 20.0
#: The longest a readiness question waits, in seconds.
READINESS_SECONDS = 1.5


class BoundedView(APIView):
    """A view whose database work as a whole ends within `database_seconds`, else 503."""

    database_seconds = REQUEST_SECONDS

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        with deadline.within(self.database_seconds):
            return super().dispatch(request, *args, **kwargs)

    def initialize_request(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Request:
        return JSONRequest(
            request,
            parsers=self.get_parsers(),
            authenticators=self.get_authenticators(),
            negotiator=self.get_content_negotiator(),
            parser_context=self.get_parser_context(request),
        )


def account_of(request: Request) -> Account:
    """The account that an `AccountAuthentication` found."""
    return cast(Account, request.user)


def caller_of(request: Request) -> Caller:
    """Whom the token of a request speaks for."""
    return cast(Caller, request.auth)


def actor_of(request: Request) -> Actor:
    """Whom the audit names."""
    return audit.caller(request, caller_of(request))


class OpenView(BoundedView):
    """An endpoint that needs no token."""

    authentication_classes = ()
    permission_classes = (AllowAny,)


class RegisterView(OpenView):
    """Register a household.

    Needs no token. Answers the tokens of the new account, as logging in does.

    An e-mail that is taken is a 400 whose field code is `email_taken`; a common password is one,
    too. Registrations are limited per e-mail and per address (429).
    """

    database_seconds = HASHING_REQUEST_SECONDS

    @extend_schema(
        operation_id="register",
        request=RegistrationSerializer,
        responses={201: TokenPairSerializer},
        auth=[],
    )
    def post(self, request: Request) -> Response:
        body = RegistrationSerializer(data=request.data)
        body.is_valid(raise_exception=True)
        pair = accounts.register(**body.validated_data, address=ratelimits.client_address(request))
        return Response(TokenPairSerializer(pair).data, status=status.HTTP_201_CREATED)


class LoginView(OpenView):
    """Log in.

    Needs no token. Answers an account token, which speaks for the parent, and its refresh token.

    A wrong e-mail, a wrong password and a deactivated account are one 401, `wrong_login`. After too
    many wrong ones even the right password is a 429, until `Retry-After` is over.
    """

    database_seconds = HASHING_REQUEST_SECONDS

    @extend_schema(
        operation_id="log_in",
        request=CredentialsSerializer,
        responses=TokenPairSerializer,
        auth=[],
    )
    def post(self, request: Request) -> Response:
        body = CredentialsSerializer(data=request.data)
        body.is_valid(raise_exception=True)
        address = ratelimits.client_address(request)
        pair = accounts.log_in(**body.validated_data, address=address)
        return Response(TokenPairSerializer(pair).data)


class RefreshView(OpenView):
    """Exchange a refresh token for the next pair.

    Needs no token but the one in the body, and answers a pair for whom that one speaks: the
    account, or a child's device.

    A refresh token is good once. One that is sent again is a 401 and ends the whole log-in: log in
    again then, and also where the answer to an exchange was lost.
    """

    @extend_schema(
        operation_id="refresh", request=RefreshSerializer, responses=TokenPairSerializer, auth=[]
    )
    def post(self, request: Request) -> Response:
        body = RefreshSerializer(data=request.data)
        body.is_valid(raise_exception=True)
        pair = accounts.refresh(
            token=body.validated_data["refresh_token"], address=ratelimits.client_address(request)
        )
        return Response(TokenPairSerializer(pair).data)


class MeView(BoundedView):
    """Tell the account that a token speaks for.

    Needs an account token; a child's device gets 403 `parent_required`.
    """

    @extend_schema(operation_id="me", responses=AccountSerializer)
    def get(self, request: Request) -> Response:
        return Response(AccountSerializer(account_of(request)).data)


class ProfilesView(BoundedView):
    """The people of the household."""

    @extend_schema(operation_id="list_profiles", responses=ProfileSerializer(many=True))
    def get(self, request: Request) -> Response:
        """List the profiles of the household.

        Needs an account token. All of them, the oldest first; there are no pages.
        """
        return Response(ProfileSerializer(profiles.of_account(account_of(request)), many=True).data)

    @extend_schema(
        operation_id="create_profile",
        request=ProfileRequestSerializer,
        responses={201: ProfileSerializer},
    )
    def post(self, request: Request) -> Response:
        """Add a profile.

        Needs an account token. A child's viewing-time config is made with it, with the defaults:
        120 minutes on weekdays, 180 on weekends, reset at 6 o'clock UTC, educational titles exempt.
        """
        body = ProfileRequestSerializer(data=request.data)
        body.is_valid(raise_exception=True)
        profile = profiles.create(
            account=account_of(request), actor=actor_of(request), **body.validated_data
        )
        return Response(ProfileSerializer(profile).data, status=status.HTTP_201_CREATED)


class SelectProfileView(BoundedView):
    """Choose who is watching.

    Needs an account token. Answers the profile; nothing is stored, and every beat names its
    profile.
    """

    @extend_schema(operation_id="select_profile", request=None, responses=ProfileSerializer)
    def put(self, request: Request, profile_id: UUID) -> Response:
        profile = profiles.owned(caller_of(request), profile_id)
        return Response(ProfileSerializer(profile).data)


class ProfileTokenView(BoundedView):
    """Make tokens for a device in a child's hands.

    Needs an account token: the parent's app asks, and hands the answer over. The profile token
    speaks for that child alone, can tighten but never loosen, and stays what it is when it is
    refreshed.

    For an adult it is a 400, `not_a_kids_profile`: such a device logs in.
    """

    @extend_schema(
        operation_id="create_profile_token", request=None, responses=ProfileTokenSerializer
    )
    def post(self, request: Request, profile_id: UUID) -> Response:
        profile = profiles.owned(caller_of(request), profile_id)
        pair = accounts.child_tokens(profile, account=account_of(request), actor=actor_of(request))
        body = {**TokenPairSerializer(pair).data, "scope": SCOPE_PROFILE, "profile_id": profile.id}
        return Response(ProfileTokenSerializer(body).data)


def _require_safe(request: HttpRequest) -> None:
    """Refuses every method that could change something."""
    if request.method not in {"GET", "HEAD"}:
        raise Problem(405, headers={"Allow": "GET, HEAD"})


def livez(request: HttpRequest) -> HttpResponse:
    """The process answers; nothing else is asked."""
    _require_safe(request)
    return JsonResponse({"status": "ok"})


def readyz(request: HttpRequest) -> HttpResponse:
    """Database and cache, each by name. Only the database decides (503): the cache may be away.

    One that takes no writes, a standby for example, cannot book a beat: it is `read_only`.
    """
    _require_safe(request)
    found = {"database": "ok", "cache": "ok"}
    try:
        with deadline.within(READINESS_SECONDS), connection.cursor() as cursor:
            # On a standby this is so, too.
            cursor.execute("SELECT current_setting('transaction_read_only')")
            if cursor.fetchone() == ("on",):
                found["database"] = "read_only"
    except DatabaseError:
        found["database"] = "unavailable"
        connection.close()
    try:
        cache.get("readyz")
    except Exception as error:  # any failure of the cache is a failure to report, never to raise
        logger.warning("cache_unavailable", extra={"cause": type(error).__name__})
        found["cache"] = "unavailable"
    ready = found["database"] == "ok"
    answer = {"status": "ok" if ready else "unavailable", **found}
    return JsonResponse(answer, status=200 if ready else 503)

"""The OpenAPI document: every operation tells the problems it may answer."""

from typing import Any, Literal

from drf_spectacular.openapi import AutoSchema
from drf_spectacular.plumbing import ResolvedComponent
from drf_spectacular.utils import OpenApiResponse
from rest_framework import serializers

from parentalcontrols.authentication import AnyCaller
from parentalcontrols.problems import CONTENT_TYPE


class FieldErrorSerializer(serializers.Serializer[Any]):
    """One value that was refused."""

    field = serializers.CharField()
    code = serializers.CharField()
    detail = serializers.CharField()


class ProblemSerializer(serializers.Serializer[Any]):
    """RFC 9457 problem details."""

    type = serializers.CharField()
    title = serializers.CharField()
    status = serializers.IntegerField()
    detail = serializers.CharField()
    code = serializers.CharField()
    request_id = serializers.CharField()
    errors = FieldErrorSerializer(many=True, required=False)  # type: ignore[assignment]


_MEANINGS = {
    "400": "the request is not valid",
    "401": "no token, or one that is not good",
    "403": "refused: a parent's token, or the right PIN or password, is needed",
    "404": "not there, or not yours",
    "408": "the body did not come in time",
    "413": "the body is too large",
    "415": "the body is not JSON",
    "429": "too many guesses, registrations or files",
    "503": "the service cannot answer right now",
}
_RETRY_AFTER = {
    "Retry-After": {
        "schema": {"type": "integer"},
        "required": True,
        "description": "seconds after which to ask again",
    }
}
_HEADERS = {
    "401": {"WWW-Authenticate": {"schema": {"type": "string"}, "required": True}},
    "429": _RETRY_AFTER,
    "503": _RETRY_AFTER,
}


#: How the paths end that have a limit of their own (`RATELIMITS` of the settings).
LIMITED = (
    *("/register", "/login", "/refresh", "/pin", "/pin/verify", "/pin/reset", "/grant"),
    *("/history", "/weekly-report", "/account/export", "/account/erase"),
)


class ProblemAwareSchema(AutoSchema):
    """drf-spectacular's schema, plus the problems."""

    def get_auth(self) -> list[dict[str, Any]]:
        """The one way to say who is asking, whichever of our authenticators reads it."""
        if not self.view.get_authenticators():
            return []
        self.registry.register_on_missing(
            ResolvedComponent(  # type: ignore[no-untyped-call]
                name="bearer",
                type=ResolvedComponent.SECURITY_SCHEMA,
                object="bearer",
                schema={"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
            )
        )
        return [{"bearer": []}]

    def get_request_serializer(self) -> Any:
        """What `extend_schema` names; there is nothing to guess it from."""
        return None

    def _get_serializer_name(
        self, serializer: Any, direction: str, bypass_extensions: bool = False
    ) -> str:
        """`Grant` for an answer, `GrantRequest` for a request, however the class is called."""
        name: str = super()._get_serializer_name(serializer, direction, bypass_extensions)
        return name.replace("RequestRequest", "Request")

    def _resolve_path_parameters(self, variables: list[str]) -> list[dict[str, Any]]:
        """Every variable of our paths is an id."""
        parameters: list[dict[str, Any]] = super()._resolve_path_parameters(  # type: ignore[no-untyped-call]
            variables
        )
        for parameter in parameters:
            parameter["schema"] = {"type": "string", "format": "uuid"}
        return parameters

    def _get_request_body(self, direction: str = "request") -> dict[str, Any] | None:
        """A body that may be left out does not exist: without one the answer is a 400."""
        body: dict[str, Any] | None = super()._get_request_body(  # type: ignore[no-untyped-call]
            direction
        )
        return body and {**body, "required": True}

    def _get_response_bodies(
        self, direction: Literal["request", "response"] = "response"
    ) -> dict[str, Any]:
        bodies: dict[str, Any] = super()._get_response_bodies(direction)
        for status in sorted(self._problem_statuses() - bodies.keys()):
            response = OpenApiResponse(ProblemSerializer, _MEANINGS[status])
            bodies[status] = self._get_response_for_code(  # type: ignore[no-untyped-call]
                response, status, [CONTENT_TYPE], direction
            )
            if status in _HEADERS:
                bodies[status]["headers"] = _HEADERS[status]
        return bodies

    def _is_every_players(self) -> bool:
        """Whether any token will do, and no PIN is asked for."""
        lets_all_in = all(isinstance(p, AnyCaller) for p in self.view.get_permissions())
        return lets_all_in and not self.path.endswith(("/grant", "/pin/verify"))

    def _problem_statuses(self) -> set[str]:
        statuses = {"413", "503"}
        if self.get_request_serializer() is not None:
            statuses |= {"400", "408", "415"}
        if self.get_override_parameters():
            statuses |= {"400"}
        if self.path.endswith("/token"):
            # An adult's device has the account's own.
            statuses |= {"400"}
        if self.get_auth() or self.path.endswith(("/login", "/refresh")):
            statuses |= {"401"}
        if self.get_auth() and not self._is_every_players():
            statuses |= {"403"}
        if self.path.endswith(LIMITED):
            statuses |= {"429"}
        if "{" in self.path or self.path.endswith("/heartbeat"):
            statuses |= {"404"}
        return statuses

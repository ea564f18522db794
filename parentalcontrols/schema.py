"""The OpenAPI document: what every operation does, and the problems it may answer.

The first line of a view's docstring, or of its method's where it has several, is the summary of
the operation, the rest its description. Fields are described by their `help_text`.
"""

from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeVar

from drf_spectacular.openapi import AutoSchema
from drf_spectacular.plumbing import ResolvedComponent
from drf_spectacular.utils import OpenApiExample, OpenApiResponse, extend_schema_serializer
from rest_framework import serializers

from parentalcontrols.authentication import AnyCaller
from parentalcontrols.openapi_text import paragraphs
from parentalcontrols.problems import CONTENT_TYPE, Problem, invalid, unavailable

Shape = TypeVar("Shape", bound=type[serializers.BaseSerializer[Any]])


def shows(examples: Mapping[str, Any]) -> Callable[[Shape], Shape]:
    """Shows these bodies, by their names, wherever the shape that is decorated is one."""
    decorator: Callable[[Shape], Shape] = extend_schema_serializer(
        examples=[OpenApiExample(name, value) for name, value in examples.items()]
    )
    return decorator


class FieldErrorSerializer(serializers.Serializer[Any]):
    """One value that was refused."""

    field = serializers.CharField(
        help_text="its name; `a.0.b` for one inside, empty where it is the body as a whole"
    )
    code = serializers.CharField(help_text="for programs, and stable")
    detail = serializers.CharField(help_text="one sentence for people")


class ProblemSerializer(serializers.Serializer[Any]):
    """RFC 9457 problem details."""

    type = serializers.CharField(help_text="always `about:blank`: `code` tells problems apart")
    title = serializers.CharField(help_text="the phrase of the status")
    status = serializers.IntegerField(help_text="that of the answer")
    detail = serializers.CharField(help_text="one sentence for people; may be worded anew")
    code = serializers.CharField(help_text="for programs, and stable")
    request_id = serializers.CharField(
        help_text="finds the request in the service's logs; also in the header `X-Request-ID`"
    )
    errors = FieldErrorSerializer(  # type: ignore[assignment]
        many=True, required=False, help_text="each value that was refused; with `invalid` alone"
    )
    locked_until = serializers.DateTimeField(
        required=False, help_text="when PINs are checked again; with `pin_locked` alone"
    )
    enforcement = serializers.CharField(
        required=False, help_text="always `blocked`; in the 503 of a beat or an end alone"
    )
    eligible = serializers.BooleanField(
        required=False, help_text="always false; in the 503 of a question before playback alone"
    )
    reason = serializers.CharField(
        required=False, help_text="always `unavailable`; beside `enforcement` or `eligible`"
    )


_MEANINGS = {
    "200": "done",
    "201": "made",
    "400": "the request is not valid",
    "401": "no token or log-in, or one that is not good",
    "403": "refused: a parent's token, or the right PIN or password, is needed; see `code`",
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
#: The ids of our paths.
_IDS = {
    "profile_id": "a profile of the household",
    "session_id": "a session, as the answer to a beat named it",
}

#: How the paths end that have a limit of their own (`RATELIMITS` of the settings).
LIMITED = (
    *("/register", "/login", "/refresh", "/pin", "/pin/verify", "/pin/reset", "/grant"),
    *("/history", "/weekly-report", "/account/export", "/account/erase"),
)


class ProblemAwareSchema(AutoSchema):
    """drf-spectacular's schema, plus the problems."""

    def get_summary(self) -> str:
        """The first paragraph of the docstring, without its full stop."""
        return self._paragraphs()[0].removesuffix(".")

    def get_description(self) -> str:  # type: ignore[override]
        """The other paragraphs."""
        return "\n\n".join(self._paragraphs()[1:])

    def _paragraphs(self) -> list[str]:
        return paragraphs(super().get_description())

    def get_auth(self) -> list[dict[str, Any]]:
        """The one way to say who is asking, whichever of our authenticators reads it."""
        if not self.view.get_authenticators():
            return []
        self.registry.register_on_missing(
            ResolvedComponent(  # type: ignore[no-untyped-call]
                name="bearer",
                type=ResolvedComponent.SECURITY_SCHEMA,
                object="bearer",
                schema={
                    "type": "http",
                    "scheme": "bearer",
                    "bearerFormat": "JWT",
                    "description": "The `access_token` of an account, or of a child's device.",
                },
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
            parameter["description"] = _IDS[parameter["name"]]
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
        for status, body in bodies.items():
            body["description"] = _MEANINGS[status]
        for status in sorted(self._problem_statuses() - bodies.keys()):
            response = OpenApiResponse(
                ProblemSerializer, _MEANINGS[status], [self._problem_example(status)]
            )
            bodies[status] = self._get_response_for_code(  # type: ignore[no-untyped-call]
                response, status, [CONTENT_TYPE], direction
            )
            if status in _HEADERS:
                bodies[status]["headers"] = _HEADERS[status]
        return bodies

    def _problem_example(self, status: str) -> OpenApiExample:
        """A problem of this operation as it is answered."""
        problem = Problem(int(status))
        if status == "400":
            problem = self._invalid_example()
        elif status == "401" and self.path.endswith("/login"):
            problem = Problem(401, "wrong_login", "The e-mail or the password is wrong.")
        elif status == "403":
            (permission,) = self.view.get_permissions()
            problem = Problem(
                403,
                getattr(permission, "code", "incorrect_pin"),
                getattr(permission, "message", "The PIN is wrong."),
            )
        elif status == "503":
            problem = unavailable(getattr(self.view, "unavailable_members", None))
        request_id = "2f0c9a31f1b84b0e9d4e3c1f6a7b8c9d"
        return OpenApiExample(problem.code, {**problem.document(), "request_id": request_id})

    def _invalid_example(self) -> Problem:
        """The 400 for the first value that is needed, or that may be sent at all."""
        if self.path.endswith("/token"):
            detail = "Only a child's device needs a token of its own."
            return Problem(400, "not_a_kids_profile", detail)
        shape = self.get_request_serializer()
        fields = shape().fields if shape else {}
        for name, field in fields.items():
            if field.required:
                error = {"field": name, "code": "required", "detail": "This field is required."}
                return invalid([error])
        parameters: list[Any] = self.get_override_parameters()
        name = next(iter([*fields, *(parameter.name for parameter in parameters)]))
        return invalid([{"field": name, "code": "invalid", "detail": "This is not valid."}])

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

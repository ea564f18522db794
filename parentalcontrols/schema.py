"""The OpenAPI document: every operation tells the problems it may answer."""

from typing import Any, Literal

from drf_spectacular.openapi import AutoSchema
from drf_spectacular.utils import OpenApiResponse
from rest_framework import serializers

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
    errors = FieldErrorSerializer(many=True, required=False)  # type: ignore[assignment]


_MEANINGS = {
    "400": "the request is not valid",
    "401": "no token, or one that is not good",
    "403": "refused",
    "404": "not there, or not yours",
    "405": "method not allowed",
    "413": "the body is too large",
    "415": "the body is not JSON",
    "503": "the service cannot answer right now",
}


class ProblemAwareSchema(AutoSchema):
    """drf-spectacular's schema, plus the problems."""

    def _get_response_bodies(
        self, direction: Literal["request", "response"] = "response"
    ) -> dict[str, Any]:
        bodies: dict[str, Any] = super()._get_response_bodies(direction)
        statuses = {"400", "401", "404", "503"}
        if self.get_request_serializer() is not None:
            statuses |= {"413", "415"}
        if not self.get_auth():
            statuses -= {"404"}
            if not self.path.endswith(("/login", "/refresh")):
                statuses -= {"401"}
        if "{" not in self.path and "heartbeat" not in self.path:
            statuses -= {"404"}
        for status in sorted(statuses - bodies.keys()):
            response = OpenApiResponse(ProblemSerializer, _MEANINGS[status])
            bodies[status] = self._get_response_for_code(  # type: ignore[no-untyped-call]
                response, status, [CONTENT_TYPE], direction
            )
        return bodies

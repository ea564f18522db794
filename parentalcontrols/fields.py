"""Serializer fields that never convert: a value of another type is refused (api.md)."""

from typing import Any

from django.core.validators import URLValidator
from rest_framework import serializers


class StrictCharField(serializers.CharField):
    """Text only: no number or boolean becomes text; a NUL character is refused.

    Its length is that of what was sent, before the white space around it is taken off.
    """

    def to_internal_value(self, data: Any) -> str:
        if not isinstance(data, str):
            self.fail("invalid")
        if self.max_length is not None and len(data) > self.max_length:
            self.fail("max_length", max_length=self.max_length)
        return str(super().to_internal_value(data))


class StrictEmailField(StrictCharField, serializers.EmailField):
    """An e-mail address as text, in lower case."""

    def to_internal_value(self, data: Any) -> str:
        return super().to_internal_value(data).lower()


class StrictURLField(StrictCharField, serializers.URLField):
    """An http or https address as text."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        for validator in self.validators:
            if isinstance(validator, URLValidator):
                validator.schemes = ["http", "https"]


class StrictBooleanField(serializers.BooleanField):
    """true or false, no word for them."""

    def to_internal_value(self, data: Any) -> bool:
        if not isinstance(data, bool):
            self.fail("invalid", input=data)
        return data


class StrictIntegerField(serializers.IntegerField):
    """A whole number, no text or fraction that looks like one."""

    def to_internal_value(self, data: Any) -> int:
        if not isinstance(data, int) or isinstance(data, bool):
            self.fail("invalid")
        return data

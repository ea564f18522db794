"""Shapes of the household's requests and answers (api.md)."""

from typing import Any

from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ValidationError as DjangoValidationError
from rest_framework import serializers

from parentalcontrols.fields import (
    StrictBooleanField,
    StrictCharField,
    StrictEmailField,
    StrictURLField,
)
from parentalcontrols.models import Account, Profile


class CredentialsSerializer(serializers.Serializer[Any]):
    """An e-mail and a password, as they are typed."""

    email = StrictEmailField(max_length=254)
    password = StrictCharField(min_length=1, max_length=128, trim_whitespace=False)


class RegistrationSerializer(CredentialsSerializer):
    """A new account: the password has 8 to 128 characters and is not a common one."""

    password = StrictCharField(min_length=8, max_length=128, trim_whitespace=False)

    def validate_password(self, value: str) -> str:
        try:
            validate_password(value)
        except DjangoValidationError as error:
            raise serializers.ValidationError(
                [
                    serializers.ErrorDetail(message, code=str(one.code))
                    for one in error.error_list
                    for message in one.messages
                ]
            ) from None
        return value


class RefreshSerializer(serializers.Serializer[Any]):
    """The refresh token of the last pair."""

    refresh_token = StrictCharField(max_length=4096)


class TokenPairSerializer(serializers.Serializer[Any]):
    """An access token, and the refresh token for the next pair."""

    access_token = serializers.CharField()
    refresh_token = serializers.CharField()
    token_type = serializers.CharField(help_text="always `bearer`")


class AccountSerializer(serializers.ModelSerializer[Account]):
    """The account itself."""

    is_admin = serializers.BooleanField(source="is_staff", read_only=True)

    class Meta:
        model = Account
        fields = ("id", "email", "is_admin", "created_at")
        read_only_fields = fields


class ProfileRequestSerializer(serializers.Serializer[Any]):
    """A new profile; `is_kids` is fixed from then on."""

    name = StrictCharField(max_length=100)
    is_kids = StrictBooleanField()
    parental_rating = StrictCharField(max_length=20, required=False, allow_null=True, default=None)
    avatar_url = StrictURLField(max_length=500, required=False, allow_null=True, default=None)


class ProfileSerializer(serializers.ModelSerializer[Profile]):
    """A person in the household."""

    class Meta:
        model = Profile
        fields = ("id", "name", "is_kids", "parental_rating", "avatar_url")
        read_only_fields = fields

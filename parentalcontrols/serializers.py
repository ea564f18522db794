"""Shapes of the household's requests and answers (api.md)."""

from typing import Any

from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ValidationError as DjangoValidationError
from django.core.validators import RegexValidator
from rest_framework import serializers

from parentalcontrols.fields import (
    StrictBooleanField,
    StrictCharField,
    StrictEmailField,
    StrictURLField,
)
from parentalcontrols.models import Account, Profile
from pins.models import ActorKind, AuditAction, AuditEntry


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


class ProfileTokenSerializer(TokenPairSerializer):
    """Tokens that speak for one child."""

    scope = serializers.CharField(help_text="always `profile`")
    profile_id = serializers.UUIDField()


class PinField(StrictCharField):
    """Four digits, as text; never in an answer."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(write_only=True, trim_whitespace=False, **kwargs)
        self.validators.append(
            RegexValidator(r"\A[0-9]{4}\Z", "A PIN is four digits.", code="not_a_pin")
        )


class PinChangeSerializer(serializers.Serializer[Any]):
    """A new PIN, and the current one where there is one."""

    new_pin = PinField()
    current_pin = PinField(required=False, allow_null=True, default=None)


class PinSerializer(serializers.Serializer[Any]):
    """A PIN as it was typed."""

    pin = PinField()


class PinResetSerializer(serializers.Serializer[Any]):
    """The account's password, and the PIN from now on."""

    password = StrictCharField(min_length=1, max_length=128, trim_whitespace=False, write_only=True)
    new_pin = PinField()


class PinStatusSerializer(serializers.Serializer[Any]):
    """Whether there is a PIN, and until when it is locked, if it is."""

    has_pin = serializers.BooleanField()
    locked_until = serializers.DateTimeField(allow_null=True)


class PinVerifiedSerializer(serializers.Serializer[Any]):
    """What a right PIN buys."""

    verified = serializers.BooleanField(help_text="always true")
    pin_token = serializers.CharField(help_text="good for five minutes, until the PIN changes")


class DetailSerializer(serializers.Serializer[Any]):
    """One sentence about what was done."""

    detail = serializers.CharField()


class AuditEntrySerializer(serializers.ModelSerializer[AuditEntry]):
    """One loosening or tightening: who, by what, from what to what."""

    actor = serializers.ChoiceField(ActorKind.values, help_text="what the actor signed in with")
    action = serializers.ChoiceField(AuditAction.values)
    before = serializers.DictField(allow_null=True)
    after = serializers.DictField(allow_null=True)

    class Meta:
        model = AuditEntry
        fields = (
            "id",
            "at",
            "action",
            "profile_id",
            "actor",
            "actor_id",
            "login_id",
            "device",
            "before",
            "after",
        )
        read_only_fields = fields


class AuditPageSerializer(serializers.Serializer[Any]):
    """Entries, newest first, and the cursor of the next page; null on the last one."""

    entries = AuditEntrySerializer(many=True)
    next_cursor = serializers.CharField(allow_null=True)


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

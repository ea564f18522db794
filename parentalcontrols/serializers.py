"""Shapes of the household's requests and answers (api.md)."""

from typing import Any

from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ValidationError as DjangoValidationError
from django.core.validators import RegexValidator
from rest_framework import serializers

from parentalcontrols import examples
from parentalcontrols.fields import (
    StrictBooleanField,
    StrictCharField,
    StrictEmailField,
    StrictURLField,
)
from parentalcontrols.models import Account, Profile
from parentalcontrols.schema import shows
from pins.models import ActorKind, AuditAction, AuditEntry


@shows(examples.CREDENTIALS)
class CredentialsSerializer(serializers.Serializer[Any]):
    """An e-mail and a password, as they are typed."""

    email = StrictEmailField(max_length=254, help_text="the same in upper and lower case")
    password = StrictCharField(
        min_length=1, max_length=128, trim_whitespace=False, help_text="the account's"
    )


class RegistrationSerializer(CredentialsSerializer):
    """A new account: the password has 8 to 128 characters and is not a common one."""

    password = StrictCharField(
        min_length=8, max_length=128, trim_whitespace=False, help_text="none of the common ones"
    )

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


@shows(examples.REFRESH)
class RefreshSerializer(serializers.Serializer[Any]):
    """The refresh token of the last pair."""

    refresh_token = StrictCharField(max_length=4096, help_text="good once")


@shows(examples.TOKEN_PAIR)
class TokenPairSerializer(serializers.Serializer[Any]):
    """An access token, and the refresh token for the next pair."""

    access_token = serializers.CharField(
        help_text="for `Authorization: Bearer`; good for an hour, unless the operator set otherwise"
    )
    refresh_token = serializers.CharField(
        help_text="buys the next pair, once; good for 30 days, unless the operator set otherwise"
    )
    token_type = serializers.CharField(help_text="always `bearer`")


@shows(examples.PROFILE_TOKEN)
class ProfileTokenSerializer(TokenPairSerializer):
    """Tokens that speak for one child."""

    scope = serializers.CharField(help_text="always `profile`")
    profile_id = serializers.UUIDField(help_text="the child that the tokens speak for")


class PinField(StrictCharField):
    """Four digits, as text; never in an answer."""

    def __init__(self, help_text: str, **kwargs: Any) -> None:
        super().__init__(
            write_only=True,
            trim_whitespace=False,
            help_text=f"{help_text}: four digits, as text",
            **kwargs,
        )
        self.validators.append(
            RegexValidator(r"\A[0-9]{4}\Z", "A PIN is four digits.", code="not_a_pin")
        )


class PinTokenField(StrictCharField):
    """What a checked PIN bought, where it was sent; never in an answer."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(
            max_length=4096, required=False, allow_null=True, write_only=True, **kwargs
        )


class PasswordField(StrictCharField):
    """The account's password once more, as it was typed; never in an answer."""

    def __init__(self) -> None:
        super().__init__(
            min_length=1,
            max_length=128,
            trim_whitespace=False,
            write_only=True,
            help_text="the account's",
        )


@shows(examples.PIN_CHANGE)
class PinChangeSerializer(serializers.Serializer[Any]):
    """A new PIN, and the current one where there is one."""

    new_pin = PinField("the PIN from now on")
    current_pin = PinField(
        "the PIN until now, needed where there is one",
        required=False,
        allow_null=True,
        default=None,
    )


@shows(examples.PIN)
class PinSerializer(serializers.Serializer[Any]):
    """A PIN as it was typed."""

    pin = PinField("the account's PIN")


@shows(examples.PIN_RESET)
class PinResetSerializer(serializers.Serializer[Any]):
    """The account's password, and the PIN from now on."""

    password = PasswordField()
    new_pin = PinField("the PIN from now on")


@shows(examples.PIN_STATUS)
class PinStatusSerializer(serializers.Serializer[Any]):
    """Whether there is a PIN, and until when it is locked, if it is."""

    has_pin = serializers.BooleanField(help_text="whether the account has one")
    locked_until = serializers.DateTimeField(
        allow_null=True, help_text="when PINs are checked again; null unless it is locked now"
    )


@shows(examples.PIN_VERIFIED)
class PinVerifiedSerializer(serializers.Serializer[Any]):
    """What a right PIN buys."""

    verified = serializers.BooleanField(help_text="always true")
    pin_token = serializers.CharField(help_text="good for five minutes, until the PIN changes")


@shows(examples.DETAIL)
class DetailSerializer(serializers.Serializer[Any]):
    """One sentence about what was done."""

    detail = serializers.CharField(help_text="for people")


class AuditEntrySerializer(serializers.ModelSerializer[AuditEntry]):
    """One loosening or tightening: who, by what, from what to what."""

    actor = serializers.ChoiceField(ActorKind.choices, help_text="what the actor signed in with")
    action = serializers.ChoiceField(AuditAction.choices)
    before = serializers.DictField(
        allow_null=True, help_text="what changed, as it was; null where there is nothing to tell"
    )
    after = serializers.DictField(
        allow_null=True, help_text="what changed, as it is; null where there is nothing to tell"
    )

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
        extra_kwargs = {
            "id": {"help_text": "a later entry has a higher one"},
            "at": {"help_text": "by the database's clock"},
            "profile_id": {"help_text": "whom it is about; null: the account"},
            "actor_id": {
                "help_text": "the account, profile or member of staff; null for an operator"
            },
            "login_id": {
                "help_text": "the log-in or device token it was done with; null where there is none"
            },
            "device": {"help_text": "what the client called itself: its `User-Agent`"},
        }


class AuditPageSerializer(serializers.Serializer[Any]):
    """Entries, newest first, and the cursor of the next page; null on the last one."""

    entries = AuditEntrySerializer(many=True, help_text="the newest first, 50 at most")
    next_cursor = serializers.CharField(
        allow_null=True, help_text="the `cursor` of the next page; null on the last one"
    )


class AccountSerializer(serializers.ModelSerializer[Account]):
    """The account itself."""

    is_admin = serializers.BooleanField(
        source="is_staff", read_only=True, help_text="whether it is a member of staff's"
    )

    class Meta:
        model = Account
        fields = ("id", "email", "is_admin", "created_at")
        read_only_fields = fields
        extra_kwargs = {
            "id": {"help_text": "the account's"},
            "email": {"help_text": "in lower case"},
            "created_at": {"help_text": "when it was registered"},
        }


_PROFILE = {
    "name": "what the household calls the person",
    "is_kids": "whether it is a child: only children are limited; never changes",
    "parental_rating": "an age rating; stored, not enforced",
    "avatar_url": "a picture, http or https",
}


@shows(examples.PROFILE_REQUEST)
class ProfileRequestSerializer(serializers.Serializer[Any]):
    """A new profile; `is_kids` is fixed from then on."""

    name = StrictCharField(max_length=100, help_text=_PROFILE["name"])
    is_kids = StrictBooleanField(help_text=_PROFILE["is_kids"])
    parental_rating = StrictCharField(
        max_length=20,
        required=False,
        allow_null=True,
        default=None,
        help_text=_PROFILE["parental_rating"],
    )
    avatar_url = StrictURLField(
        max_length=500,
        required=False,
        allow_null=True,
        default=None,
        help_text=_PROFILE["avatar_url"],
    )


@shows(examples.PROFILE)
class ProfileSerializer(serializers.ModelSerializer[Profile]):
    """A person in the household."""

    class Meta:
        model = Profile
        fields = ("id", "name", "is_kids", "parental_rating", "avatar_url")
        read_only_fields = fields
        extra_kwargs = {
            "id": {"help_text": "what other requests call `profile_id`"},
            **{name: {"help_text": text} for name, text in _PROFILE.items()},
        }

"""The household's PIN, the tokens it bought that are spent, and the audit of what was changed."""

import uuid

from django.conf import settings
from django.db import models
from django.db.models.functions import Now
from django.utils import timezone


class Pin(models.Model):
    """Four digits that the caregivers of an account share (domain.md section 7).

    Attempts are numbered: `attempts_reserved` is the number of the latest one, and those up to
    `attempts_cleared` count no more, because a right PIN or the end of a lock cleared them. So a
    success never forgives a guess that was reserved after it.
    """

    account = models.OneToOneField(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, primary_key=True, related_name="pin"
    )
    pin_hash = models.CharField(max_length=100, editable=False)
    version = models.UUIDField(
        default=uuid.uuid4, editable=False, help_text="A new one with every new PIN."
    )
    attempts_reserved = models.BigIntegerField(default=0, db_default=0, editable=False)
    attempts_cleared = models.BigIntegerField(default=0, db_default=0, editable=False)
    locked_until = models.DateTimeField(null=True, blank=True)
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    changed_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        db_table = "pins"
        verbose_name = "PIN"
        verbose_name_plural = "PINs"
        indexes = [
            # The admin's list of locks.
            models.Index(
                fields=["locked_until"],
                name="ix_pins_locked",
                condition=models.Q(locked_until__isnull=False),
            ),
        ]
        constraints = [
            models.CheckConstraint(
                condition=models.Q(
                    attempts_cleared__gte=0, attempts_reserved__gte=models.F("attempts_cleared")
                ),
                name="ck_pins_attempts",
            ),
        ]

    def __str__(self) -> str:
        return f"PIN of {self.account}"

    @property
    def is_locked(self) -> bool:
        """Whether the lock is in force, by this host's clock; the database's clock decides."""
        return self.locked_until is not None and self.locked_until > timezone.now()

    @property
    def failed_attempts(self) -> int:
        """Wrong attempts that count at present."""
        is_over = self.locked_until is not None and not self.is_locked
        return 0 if is_over else self.attempts_reserved - self.attempts_cleared

    @property
    def state(self) -> str:
        """Open or locked, for people."""
        return (
            f"locked until {self.locked_until:%Y-%m-%d %H:%M:%S} UTC" if self.is_locked else "open"
        )


class UsedPinToken(models.Model):
    """A PIN token that was good once; kept until it would have run out."""

    token_id = models.UUIDField(primary_key=True, editable=False)
    expires_at = models.DateTimeField()

    class Meta:
        db_table = "used_pin_tokens"
        indexes = [
            # What `prune_expired` deletes.
            models.Index(fields=["expires_at"], name="ix_used_pin_tokens_expires"),
        ]

    def __str__(self) -> str:
        return str(self.token_id)


class AuditAction(models.TextChoices):
    """What loosened or tightened a household's limits."""

    PIN_SET = "pin_set", "PIN set"
    PIN_CHANGED = "pin_changed", "PIN changed"
    PIN_RESET = "pin_reset", "PIN reset by password"
    PIN_LOCKED = "pin_locked", "PIN locked"
    PIN_UNLOCKED = "pin_unlocked", "PIN unlocked"
    CONFIG_CHANGED = "config_changed", "Viewing-time config changed"
    TIME_GRANTED = "time_granted", "Extra time granted"
    PROFILE_CREATED = "profile_created", "Profile created"
    PROFILE_TOKEN_ISSUED = "profile_token_issued", "Token for a child's device issued"
    ACCOUNT_DEACTIVATED = "account_deactivated", "Account deactivated"
    ACCOUNT_REACTIVATED = "account_reactivated", "Account reactivated"
    PROFILE_ERASED = "profile_erased", "Profile erased"


class ActorKind(models.TextChoices):
    """Who acted, by what it was authenticated with."""

    ACCOUNT = "account", "account token"
    PROFILE = "profile", "profile token"
    STAFF = "staff", "member of staff"
    OPERATOR = "operator", "operator at the command line"


class AuditEntry(models.Model):
    """One loosening or tightening. A trigger refuses every change of a row that is written.

    Without a constraint to the account: what was recorded outlives it. Deleted is an entry by an
    erasure of its account or profile alone, in the transaction that records the `Erasure`.
    """

    id = models.BigAutoField(primary_key=True)
    account = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        on_delete=models.DO_NOTHING,
        db_constraint=False,
        db_index=False,
        related_name="audit_entries",
    )
    profile_id = models.UUIDField(null=True, blank=True)
    at = models.DateTimeField(db_default=Now())
    action = models.CharField(max_length=30, choices=AuditAction.choices)
    actor = models.CharField(max_length=10, choices=ActorKind.choices)
    actor_id = models.UUIDField(
        null=True, blank=True, help_text="The account, profile or member of staff."
    )
    login_id = models.UUIDField(
        null=True, blank=True, help_text="The log-in or device token, to tell devices apart."
    )
    device = models.CharField(
        max_length=200, blank=True, default="", db_default="", help_text="As it called itself."
    )
    before = models.JSONField(null=True, blank=True)
    after = models.JSONField(null=True, blank=True)

    class Meta:
        db_table = "audit_entries"
        verbose_name_plural = "audit entries"
        indexes = [
            # What the parent reads, newest first, a page at a time.
            models.Index(fields=["account", "-id"], name="ix_audit_account"),
        ]

    def __str__(self) -> str:
        return f"{self.get_action_display()}, {self.at:%Y-%m-%d %H:%M:%S} UTC"


class Erasure(models.Model):
    """That a profile, or a whole account, was erased. A trigger refuses every change of a row.

    It names nobody: what its ids belonged to is gone. They are kept so that an erasure can be
    repeated after an older backup was restored.
    """

    id = models.UUIDField(
        primary_key=True, default=uuid.uuid4, editable=False, help_text="The receipt's number."
    )
    at = models.DateTimeField(db_default=Now())
    account_id = models.UUIDField()
    profile_id = models.UUIDField(
        null=True, blank=True, help_text="Without one the whole account was erased."
    )
    actor = models.CharField(max_length=10, choices=ActorKind.choices)
    deleted = models.JSONField(help_text="How many rows of each kind.")
    transaction_id = models.BigIntegerField(
        help_text="The transaction that may delete what the audit says of them."
    )

    class Meta:
        db_table = "erasures"
        indexes = [
            # The trigger that guards the audit, and the search for one household.
            models.Index(fields=["account_id"], name="ix_erasures_account"),
        ]

    def __str__(self) -> str:
        return str(self.id)

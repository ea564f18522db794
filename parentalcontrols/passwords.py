"""How account passwords are hashed."""

from django.conf import settings
from django.contrib.auth.hashers import BCryptSHA256PasswordHasher


class BCryptSHA256Hasher(BCryptSHA256PasswordHasher):
    """bcrypt over SHA-256 (no 72-byte limit), with the cost that the settings name.

    OWASP's password storage cheat sheet asks for a cost of 10 or more.
    """

    @property
    def rounds(self) -> int:  # type: ignore[override]
        return int(settings.PASSWORD_BCRYPT_ROUNDS)

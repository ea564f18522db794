"""How account passwords are hashed."""

from django.conf import settings
from django.contrib.auth.hashers import BCryptSHA256PasswordHasher

from pins import hashing


class BCryptSHA256Hasher(BCryptSHA256PasswordHasher):
    """bcrypt over SHA-256 (no 72-byte limit), with the cost that the settings name.

    OWASP's password storage cheat sheet asks for a cost of 10 or more. Whoever hashes or checks a
    password, the admin's own pages included, does so in the hashing threads.
    """

    @property
    def rounds(self) -> int:  # type: ignore[override]
        return int(settings.PASSWORD_BCRYPT_ROUNDS)

    def encode(self, password: str, salt: str) -> str:
        """The stored form; Django's check encodes, too, and compares."""
        return hashing.run(super().encode, password, salt)

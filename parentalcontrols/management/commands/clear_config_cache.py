"""`manage.py clear_config_cache`: forgets what the cache knows of profiles."""

from typing import Any

from django.core.management.base import BaseCommand, CommandError
from redis.exceptions import RedisError

from parentalcontrols import config_cache


class Command(BaseCommand):
    """Needed after a restore; calls `parentalcontrols.config_cache`."""

    help = (
        "Forgets what the cache knows of profiles and their configs. Needed where the database "
        "went back to an earlier state: the cache may know of changes that it has not seen."
    )

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            config_cache.clear()
        except (RedisError, OSError) as error:
            raise CommandError(f"The cache does not answer ({type(error).__name__}).") from None
        self.stdout.write("The cache is empty.")

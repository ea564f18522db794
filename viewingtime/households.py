"""Finding the household that an operator names at the command line."""

from uuid import UUID

from django.core.management.base import CommandError

from parentalcontrols.models import Account


def named(text: str) -> Account:
    """The account with that e-mail, in any case, or with that id; a `CommandError` without one."""
    wanted: dict[str, UUID | str]
    try:
        wanted = {"id": UUID(text)}
    except ValueError:
        wanted = {"email": text.strip().lower()}
    account: Account | None = Account.objects.filter(**wanted).first()
    if account is None:
        raise CommandError("There is no such account: give its e-mail or its id.")
    return account

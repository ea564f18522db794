"""What the demo's household has watched when it is first met."""

from typing import Final

from django.db import transaction

from parentalcontrols.demo import PARENT_EMAIL
from parentalcontrols.models import Account, Profile
from viewingtime.generator import history

DAYS: Final = 28
#: Of each profile, in all of these days.
SESSIONS: Final = 84
SEED: Final = "demo"


def fill() -> int:
    """Gives the demo's household four weeks of history; answers how many sessions.

    None where anything is booked for it already, or where it is not there. Locks the account:
    of two at once the second finds it done.
    """
    with transaction.atomic():
        parent = Account.objects.select_for_update().filter(email=PARENT_EMAIL).first()
        if parent is None or history.is_booked(parent.id):
            return 0
        profiles = Profile.objects.filter(account=parent).select_related("viewing_time_config")
        return history.fill(list(profiles), sessions=SESSIONS, days=DAYS, seed=SEED)

from django.apps import AppConfig


class ViewingTimeConfig(AppConfig):
    name = "viewingtime"
    verbose_name = "Viewing time"

    def ready(self) -> None:
        from django.db.models.signals import pre_delete

        from parentalcontrols.models import Profile
        from viewingtime import ledgers

        pre_delete.connect(
            ledgers.hold_deleted, sender=Profile, dispatch_uid="viewingtime_hold_deleted"
        )

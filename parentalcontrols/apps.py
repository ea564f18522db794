from django.apps import AppConfig


class ParentalControlsConfig(AppConfig):
    name = "parentalcontrols"
    verbose_name = "Parental controls"

    def ready(self) -> None:
        from parentalcontrols import invalidation

        invalidation.connect()

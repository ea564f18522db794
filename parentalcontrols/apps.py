from django.apps import AppConfig


class ParentalControlsConfig(AppConfig):
    name = "parentalcontrols"
    verbose_name = "Parental controls"

from django.apps import AppConfig


class ViewingTimeConfig(AppConfig):
    name = "viewingtime"
    verbose_name = "Viewing time"

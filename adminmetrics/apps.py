from django.apps import AppConfig


class AdminMetricsConfig(AppConfig):
    name = "adminmetrics"
    verbose_name = "Metrics"

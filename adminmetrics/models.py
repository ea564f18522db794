"""The processes that count, and what they counted: by minute at first, coarser as it ages."""

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models.functions import Now


class Resolution(models.IntegerChoices):
    """How long a roll-up's span is, in seconds; `EVER` is all that is older than any other."""

    EVER = 0, "ever"
    MINUTE = 60, "minute"
    HOUR = 3600, "hour"
    DAY = 86400, "day"


class MetricProcess(models.Model):
    """A process that hands over what it counted, and the number of its latest hand-over.

    The number is written with what was handed over: one that is sent again, because its answer
    was lost, is known by it and not added again.
    """

    id = models.UUIDField(primary_key=True, editable=False)
    instance = models.CharField(max_length=200, help_text="`INSTANCE_NAME` of its host.")
    worker = models.CharField(max_length=50, help_text="Its process id.")
    started_at = models.DateTimeField(db_default=Now())
    up_since = models.DateTimeField(
        db_default=Now(), help_text="Since when some process of the service was always there."
    )
    seen_at = models.DateTimeField(db_default=Now())
    ended_at = models.DateTimeField(null=True, blank=True)
    sequence = models.BigIntegerField(default=0, db_default=0)
    gauges = models.JSONField(default=dict, db_default={}, blank=True)

    class Meta:
        db_table = "metric_processes"
        verbose_name = "worker process"
        verbose_name_plural = "worker processes"

    def __str__(self) -> str:
        return f"{self.instance} {self.worker}"


class MetricRollup(models.Model):
    """What was counted under a name within a span, by one worker or one instance.

    A number is in exactly one row: it moves to a coarser one when it ages (`prune_metrics`). One of
    all time without an instance is of before instances were kept there. For a counter `count` is
    all there is. For durations `count` is how many, `total` and `most` are microseconds, and
    `counts[i]` of them fell into `buckets[i]` (`adminmetrics.histograms`). For a gauge `count` is
    how often it was read, `total` and `most` are of the readings.
    """

    id = models.BigAutoField(primary_key=True)
    resolution = models.PositiveIntegerField(choices=Resolution.choices)
    starts_at = models.DateTimeField()
    instance = models.CharField(max_length=200, blank=True, default="", db_default="")
    worker = models.CharField(max_length=50, blank=True, default="", db_default="")
    name = models.CharField(max_length=60)
    count = models.BigIntegerField(default=0, db_default=0)
    total = models.BigIntegerField(default=0, db_default=0)
    most = models.BigIntegerField(default=0, db_default=0)
    buckets = ArrayField(models.SmallIntegerField(), default=list, db_default=[])
    counts = ArrayField(models.BigIntegerField(), default=list, db_default=[])

    class Meta:
        db_table = "metric_rollups"
        verbose_name = "metrics"
        verbose_name_plural = "metrics"
        constraints = [
            # The upserts that add, and every reading: the roll-ups of a resolution from an
            # instant on.
            models.UniqueConstraint(
                fields=["resolution", "starts_at", "name", "instance", "worker"],
                name="uq_metric_rollups_span",
            ),
            models.CheckConstraint(
                condition=models.Q(resolution__in=Resolution.values),
                name="ck_metric_rollups_resolution",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.name} from {self.starts_at}"

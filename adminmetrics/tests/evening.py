"""Something to look at: hours of metrics, a child's evening, a locked PIN."""

import math
import random
from datetime import timedelta
from decimal import Decimal

from django.db import connection

from adminmetrics import histograms, recorder
from adminmetrics.models import MetricProcess, MetricRollup
from adminmetrics.tests.settled import forget_settled
from parentalcontrols.models import ViewingTimeConfig
from parentalcontrols.tests.cast import Cast, database_now, set_pin
from viewingtime import ledgers
from viewingtime.models import ViewingSession, ViewingTimeBalance


def fill(cast: Cast, *, hours: int = 30) -> None:
    """Metrics of two instances for so many hours, of an evening with its rise and fall."""
    chance = random.Random(7)
    now = database_now()
    rows = []
    for minute in range(hours * 60):
        starts_at = (now - timedelta(minutes=minute)).replace(second=0, microsecond=0)
        tide = 1.1 + math.sin((starts_at.hour * 60 + starts_at.minute) / 1440 * 2 * math.pi)
        for instance in ("tv-1:8000", "tv-2:8000"):
            rows += _minute(instance, starts_at, int(900 * tide), chance)
    MetricRollup.objects.bulk_create(rows, batch_size=5000)
    forget_settled()
    for number, instance in enumerate(("tv-1:8000", "tv-1:8000", "tv-2:8000", "tv-2:8000")):
        MetricProcess.objects.create(
            id=f"{number:032x}",
            instance=instance,
            worker=str(4100 + number),
            started_at=now - timedelta(days=3),
            up_since=now - timedelta(days=12, hours=5),
            seen_at=now,
        )
    _watch(cast)
    set_pin(cast.parent)
    with connection.cursor() as cursor:
        cursor.execute("UPDATE pins SET locked_until = clock_timestamp() + interval '20 minutes'")


def _minute(instance: str, starts_at: object, beats: int, chance: random.Random) -> list[object]:
    def row(name: str, count: int, **fields: object) -> MetricRollup:
        return MetricRollup(
            resolution=60,
            starts_at=starts_at,
            instance=instance,
            worker="4101" if instance < "tv-2" else "4103",
            name=name,
            count=count,
            **fields,
        )

    counts: dict[int, int] = {}
    total = most = 0
    for _ in range(40):
        seconds = 0.004 * math.exp(chance.gauss(0, 0.55))
        if chance.random() < 0.02:
            seconds *= 12
        bucket = histograms.bucket_of(seconds)
        counts[bucket] = counts.get(bucket, 0) + beats // 40
        total += int(seconds * 1e6) * (beats // 40)
        most = max(most, int(seconds * 1e6))
    beats = sum(counts.values())
    latency = {"total": total, "most": most}
    latency |= {"buckets": sorted(counts), "counts": [counts[b] for b in sorted(counts)]}
    return [
        row(recorder.HEARTBEATS, beats),
        row(recorder.HEARTBEAT_REQUESTS, beats),
        row(recorder.HEARTBEAT_ROUND_TRIPS, int(beats * 1.03)),
        row(recorder.HEARTBEAT_SECONDS, beats, **latency),
        row(recorder.CONFIG_CACHE_HITS, int(beats * 0.97)),
        row(recorder.CONFIG_CACHE_MISSES, beats - int(beats * 0.97)),
        row("verdict_allowed", int(beats * 0.86)),
        row("verdict_warning_15", int(beats * 0.08)),
        row("verdict_warning_5", int(beats * 0.04)),
        row("verdict_blocked", int(beats * 0.02)),
        row("pin_right", chance.randint(0, 6)),
        row("pin_wrong", chance.randint(0, 2)),
        row("refused_not_authenticated", chance.randint(0, 9)),
    ]


def _watch(cast: Cast) -> None:
    """What the child watched today: three titles, the last one still playing."""
    viewer = ledgers.viewer_of(ViewingTimeConfig.objects.get(profile=cast.child))
    now, balance = ledgers.read_balance(cast.child.pk, viewer)
    used = educational = Decimal(0)
    for hours_ago, minutes, title in (
        (8, 35, cast.cartoon),
        (6, 50, cast.documentary),
        (2, 40, cast.cartoon),
        (0, 25, cast.cartoon),
    ):
        starts_at = now - timedelta(hours=hours_ago, minutes=minutes)
        seconds = Decimal(minutes * 60)
        exempt = seconds if title.is_educational else Decimal(0)
        ends_at = None if not hours_ago else starts_at + timedelta(minutes=minutes)
        ViewingSession.objects.create(
            profile=cast.child,
            title=title,
            device_id="living-room-tv",
            device_type="tv",
            is_educational=title.is_educational,
            reset_date=balance.reset_date,
            started_at=starts_at,
            last_heartbeat_at=ends_at or now,
            ended_at=ends_at,
            end_reason=ends_at and "stopped",
            total_seconds=seconds,
            educational_seconds=exempt,
        )
        used += seconds - exempt
        educational += exempt
    ViewingTimeBalance.objects.create(
        profile=cast.child,
        reset_date=balance.reset_date,
        used_seconds=used,
        educational_seconds=educational,
        granted_seconds=0,
        limit_seconds=7200,
    )

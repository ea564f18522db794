"""Every raw statement of the metrics: what it does, and which rows it locks.

A number is in one row at any time, so that a sum over all rows is exact whatever moves meanwhile.
"""

#: Seconds after its last hand-over for which a process counts as alive.
ALIVE_SECONDS = 15

#: Adds what a process counted since its last hand-over to the roll-ups of the running minute.
#:
#: One statement: the process's row takes the hand-over's number if it is a new one, and only then
#: anything is added. So one that is sent again, after an answer that was lost, adds nothing.
#: Locks the process's row, then its minute's rows by name; no other process writes those. Sparse
#: histograms, of the row that is there and of the one that comes, merge in the order of buckets.
#: A process that comes while another is alive goes on from that one's `up_since`.
HAND_OVER = """
WITH claimed AS (
    INSERT INTO metric_processes AS p (
        id, instance, worker, started_at, up_since, seen_at, ended_at, sequence, gauges
    )
    SELECT
        %(process_id)s, %(instance)s, %(worker)s,
        c.now - make_interval(secs => %(age)s),
        least(
            c.now - make_interval(secs => %(service_age)s),
            (
                SELECT min(o.up_since) FROM metric_processes AS o
                WHERE o.ended_at IS NULL
                    AND o.seen_at > c.now - make_interval(secs => %(alive_seconds)s)
            )
        ),
        c.now,
        CASE WHEN %(is_last)s THEN c.now END,
        %(sequence)s, %(gauges)s::jsonb
    FROM (SELECT clock_timestamp() AS now) AS c
    ON CONFLICT (id) DO UPDATE SET
        seen_at = excluded.seen_at, ended_at = excluded.ended_at,
        sequence = excluded.sequence, gauges = excluded.gauges
    WHERE p.sequence < excluded.sequence
    RETURNING p.seen_at
)
INSERT INTO metric_rollups AS r (
    resolution, starts_at, instance, worker, name, count, total, most, buckets, counts
)
SELECT
    60, date_trunc('minute', c.seen_at, 'UTC'), %(instance)s, %(worker)s,
    x.name, x.count, x.total, x.most, x.buckets, x.counts
FROM claimed AS c
CROSS JOIN jsonb_to_recordset(%(rows)s::jsonb) AS x (
    name text, count bigint, total bigint, most bigint, buckets smallint[], counts bigint[]
)
ORDER BY x.name
ON CONFLICT (resolution, starts_at, name, instance, worker) DO UPDATE SET
    count = r.count + excluded.count,
    total = r.total + excluded.total,
    most = greatest(r.most, excluded.most),
    (buckets, counts) = (
        SELECT
            coalesce(array_agg(m.bucket ORDER BY m.bucket), '{}'),
            coalesce(array_agg(m.n ORDER BY m.bucket), '{}')
        FROM (
            SELECT u.bucket, sum(u.n)::bigint AS n
            FROM (
                SELECT * FROM unnest(r.buckets, r.counts)
                UNION ALL
                SELECT * FROM unnest(excluded.buckets, excluded.counts)
            ) AS u (bucket, n)
            GROUP BY u.bucket
        ) AS m
    )
"""

#: Moves a batch of roll-ups that start before an instant into coarser ones, which forget the
#: worker, or, of whatever is oldest, also the time. The instance stays: what it tells Prometheus
#: must never shrink. Answers how many it moved.
#:
#: Locks the rows that go, oldest first, those that somebody holds left for the next run; then the
#: rows that they are added to, by key. Only other runs lock any of them, in the same order.
FOLD = """
WITH chosen AS MATERIALIZED (
    SELECT id
    FROM metric_rollups
    WHERE resolution = %(fine)s AND starts_at < %(before)s
    ORDER BY resolution, starts_at
    LIMIT %(batch)s
    FOR UPDATE SKIP LOCKED
),
moved AS MATERIALIZED (
    DELETE FROM metric_rollups AS r USING chosen AS c WHERE r.id = c.id
    RETURNING
        CASE WHEN %(coarse)s = 0 THEN 'epoch'::timestamptz
            ELSE date_trunc(%(unit)s, r.starts_at, 'UTC') END AS starts_at,
        r.name,
        r.instance,
        r.count, r.total, r.most, r.buckets, r.counts
),
sums AS (
    SELECT
        starts_at, name, instance,
        sum(count)::bigint AS count, sum(total)::bigint AS total, max(most) AS most
    FROM moved
    GROUP BY starts_at, name, instance
),
histograms AS (
    SELECT
        starts_at, name, instance,
        array_agg(bucket ORDER BY bucket) AS buckets, array_agg(n ORDER BY bucket) AS counts
    FROM (
        SELECT m.starts_at, m.name, m.instance, u.bucket, sum(u.n)::bigint AS n
        FROM moved AS m CROSS JOIN unnest(m.buckets, m.counts) AS u (bucket, n)
        GROUP BY m.starts_at, m.name, m.instance, u.bucket
    ) AS merged
    GROUP BY starts_at, name, instance
),
folded AS (
    INSERT INTO metric_rollups AS r (
        resolution, starts_at, name, instance, worker, count, total, most, buckets, counts
    )
    SELECT
        %(coarse)s, s.starts_at, s.name, s.instance, '', s.count, s.total, s.most,
        coalesce(h.buckets, '{}'), coalesce(h.counts, '{}')
    FROM sums AS s
    LEFT JOIN histograms AS h USING (starts_at, name, instance)
    ORDER BY s.starts_at, s.name, s.instance
    ON CONFLICT (resolution, starts_at, name, instance, worker) DO UPDATE SET
        count = r.count + excluded.count,
        total = r.total + excluded.total,
        most = greatest(r.most, excluded.most),
        (buckets, counts) = (
            SELECT
                coalesce(array_agg(m.bucket ORDER BY m.bucket), '{}'),
                coalesce(array_agg(m.n ORDER BY m.bucket), '{}')
            FROM (
                SELECT u.bucket, sum(u.n)::bigint AS n
                FROM (
                    SELECT * FROM unnest(r.buckets, r.counts)
                    UNION ALL
                    SELECT * FROM unnest(excluded.buckets, excluded.counts)
                ) AS u (bucket, n)
                GROUP BY u.bucket
            ) AS m
        )
)
SELECT count(*) FROM moved
"""

#: Forgets processes that have not been heard of since an instant.
FORGET_PROCESSES = """
WITH forgotten AS (
    DELETE FROM metric_processes WHERE id IN (
        SELECT id FROM metric_processes WHERE seen_at < %(before)s
        ORDER BY id FOR UPDATE SKIP LOCKED
    )
    RETURNING id
)
SELECT count(*) FROM forgotten
"""

#: Sums by name and step of time, in seconds since 1970; one step of nothing where `step` is null:
#: step, name, null, count, total, most. And of histograms of some names: step, name, bucket, how
#: many. Both of one snapshot, so that they agree whatever is handed over or folded meanwhile.
#: Between two instants, and of one instance or worker if one is named. Served by
#: `uq_metric_rollups_span`; locks nothing.
FIGURES = """
SELECT
    coalesce(extract(epoch FROM
        date_bin(make_interval(secs => %(step)s::integer), r.starts_at, 'epoch')
    )::bigint, 0),
    r.name, NULL::smallint, sum(r.count)::bigint, sum(r.total)::bigint, max(r.most)
FROM metric_rollups AS r
WHERE r.resolution = ANY(%(resolutions)s)
    AND r.starts_at >= %(since)s::timestamptz
    AND r.starts_at < %(before)s::timestamptz
    AND (%(instance)s::text IS NULL OR r.instance = %(instance)s)
    AND (%(worker)s::text IS NULL OR r.worker = %(worker)s)
GROUP BY 1, r.name
UNION ALL
SELECT
    coalesce(extract(epoch FROM
        date_bin(make_interval(secs => %(step)s::integer), r.starts_at, 'epoch')
    )::bigint, 0),
    r.name, u.bucket, sum(u.n)::bigint, NULL, NULL
FROM metric_rollups AS r
CROSS JOIN unnest(r.buckets, r.counts) AS u (bucket, n)
WHERE r.resolution = ANY(%(resolutions)s)
    AND r.starts_at >= %(since)s::timestamptz
    AND r.starts_at < %(before)s::timestamptz
    AND (%(instance)s::text IS NULL OR r.instance = %(instance)s)
    AND (%(worker)s::text IS NULL OR r.worker = %(worker)s)
    AND r.name = ANY(%(names)s)
GROUP BY 1, r.name, u.bucket
"""

#: How often one thing was counted between two instants; of one instance if one is named. Served by
#: `uq_metric_rollups_span`, as far as the instants narrow it; locks nothing.
TOTAL = """
SELECT coalesce(sum(r.count), 0)::bigint
FROM metric_rollups AS r
WHERE r.resolution = ANY(%(resolutions)s)
    AND r.starts_at >= %(since)s::timestamptz
    AND r.starts_at < %(before)s::timestamptz
    AND r.name = %(name)s
    AND (%(instance)s::text IS NULL OR r.instance = %(instance)s)
"""

#: The service as its processes tell it: now by the database's clock, seconds for which some
#: process was always there, the instant up to which everybody's figures are complete, how many
#: are alive, and the sums of their gauges. Of one instance if one is named; locks nothing.
SERVICE = """
WITH alive AS MATERIALIZED (
    SELECT p.*
    FROM metric_processes AS p
    WHERE p.ended_at IS NULL
        AND p.seen_at > clock_timestamp() - make_interval(secs => %(alive_seconds)s)
        AND (%(instance)s::text IS NULL OR p.instance = %(instance)s)
)
SELECT
    clock_timestamp(),
    coalesce(extract(epoch FROM clock_timestamp() - min(a.up_since)), 0)::double precision,
    min(a.seen_at),
    count(*),
    (
        SELECT coalesce(jsonb_object_agg(g.key, g.value), '{}')::text
        FROM (
            SELECT e.key, sum(e.value::bigint)::bigint AS value
            FROM alive AS b CROSS JOIN jsonb_each_text(b.gauges) AS e
            GROUP BY e.key
        ) AS g
    )
FROM alive AS a
"""

#: Instances (their worker null), and their workers, that a page can be narrowed to: those heard of
#: since an instant; of workers the one that is asked for and the latest. Instances also by their
#: roll-ups, which outlive the processes: the coarser ones alone, for a process is not forgotten
#: before its minutes are folded. Those are served by `uq_metric_rollups_span`; locks nothing.
SOURCES = """
(
    SELECT p.instance, p.worker
    FROM metric_processes AS p
    WHERE p.seen_at >= %(since)s
    ORDER BY
        (p.instance = %(instance)s::text AND p.worker = %(worker)s::text) IS TRUE DESC,
        p.seen_at DESC
    LIMIT 200
)
UNION
SELECT p.instance, NULL
FROM metric_processes AS p
WHERE p.seen_at >= %(since)s
UNION
SELECT r.instance, NULL
FROM metric_rollups AS r
WHERE r.resolution = ANY(%(resolutions)s)
    AND r.starts_at >= %(since)s
    AND r.instance <> ''
"""

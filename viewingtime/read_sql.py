"""The raw statements of history and report (domain.md section 8). They lock nothing.

Sessions are found by half-open ranges of `started_at`, which `ix_vs_profile_started` serves, and
then by their `reset_date`; no function stands around a column. Of a title the id and the display
name alone are read. Amounts travel as whole microseconds; values are always bound.
"""

#: A page of a profile's sessions, newest first, each with the totals of its viewing day.
#:
#: The page begins below the key `(last_at, last_id)`; the comparison of `last_at` alone is what
#: the index can begin at. A day's totals are those of all its sessions up to the key `(top_at,
#: top_id)`, the newest one of the reading, on whatever page they stand.
HISTORY_PAGE = """
WITH page AS MATERIALIZED (
    SELECT
        s.id, s.title_id, s.device_type, s.is_educational, s.reset_date, s.started_at, s.ended_at,
        s.total_seconds
    FROM viewing_sessions AS s
    WHERE s.profile_id = %(profile_id)s::uuid
        AND s.started_at >= %(range_starts)s::timestamptz
        AND s.started_at < %(range_ends)s::timestamptz
        AND s.started_at <= %(last_at)s::timestamptz
        AND (s.started_at, s.id) < (%(last_at)s::timestamptz, %(last_id)s::uuid)
        AND s.reset_date BETWEEN %(from_date)s::date AND %(to_date)s::date
    ORDER BY s.started_at DESC, s.id DESC
    LIMIT %(size)s::integer
),
totals AS MATERIALIZED (
    SELECT
        s.reset_date,
        sum(s.total_seconds) AS total_seconds,
        sum(s.educational_seconds) AS educational_seconds
    FROM viewing_sessions AS s
    WHERE s.profile_id = %(profile_id)s::uuid
        AND s.started_at >= (SELECT min(reset_date) FROM page)::timestamp AT TIME ZONE 'UTC'
            - %(before)s::interval
        AND s.started_at < (SELECT max(reset_date) FROM page)::timestamp AT TIME ZONE 'UTC'
            + %(after)s::interval
        AND s.started_at <= %(top_at)s::timestamptz
        AND (s.started_at, s.id) <= (%(top_at)s::timestamptz, %(top_id)s::uuid)
        AND s.reset_date IN (SELECT reset_date FROM page)
    GROUP BY s.reset_date
)
SELECT
    p.id, p.title_id, t.title, p.device_type, p.is_educational, p.reset_date, p.started_at,
    p.ended_at,
    (p.total_seconds * 1000000)::bigint,
    (d.total_seconds * 1000000)::bigint,
    (d.educational_seconds * 1000000)::bigint
FROM page AS p
JOIN totals AS d USING (reset_date)
JOIN titles AS t ON t.id = p.title_id
ORDER BY p.started_at DESC, p.id DESC
"""

#: What some profiles watched on some viewing days each: the days, and the titles most watched.
#:
#: `OFFSET 0` keeps the look-up of one profile's range of sessions a query of its own: it is done
#: by the index for each profile, and never by a scan of the table for all of them. Of the titles
#: only those are looked up that can be among a profile's first three.
WEEKLY_REPORT = """
WITH days AS MATERIALIZED (
    SELECT *
    FROM unnest(%(day_profile_ids)s::uuid[], %(days)s::date[]) AS d (profile_id, reset_date)
),
weeks AS MATERIALIZED (
    SELECT profile_id, r.starts_at, r.ends_at, array_agg(d.reset_date) AS days
    FROM unnest(
        %(profile_ids)s::uuid[], %(range_starts)s::timestamptz[], %(range_ends)s::timestamptz[]
    ) AS r (profile_id, starts_at, ends_at)
    JOIN days AS d USING (profile_id)
    GROUP BY profile_id, r.starts_at, r.ends_at
),
watched AS MATERIALIZED (
    SELECT
        w.profile_id, s.reset_date, s.title_id,
        sum(s.total_seconds) AS total_seconds,
        sum(s.educational_seconds) AS educational_seconds
    FROM weeks AS w
    CROSS JOIN LATERAL (
        SELECT reset_date, title_id, total_seconds, educational_seconds
        FROM viewing_sessions
        WHERE profile_id = w.profile_id
            AND started_at >= w.starts_at
            AND started_at < w.ends_at
            AND reset_date = ANY(w.days)
        OFFSET 0
    ) AS s
    GROUP BY w.profile_id, s.reset_date, s.title_id
),
day_totals AS (
    SELECT
        profile_id, reset_date,
        sum(total_seconds) AS total_seconds,
        sum(educational_seconds) AS educational_seconds
    FROM watched
    GROUP BY profile_id, reset_date
),
title_totals AS (
    SELECT profile_id, title_id, sum(total_seconds) AS total_seconds
    FROM watched
    GROUP BY profile_id, title_id
    HAVING sum(total_seconds) > 0
),
candidates AS MATERIALIZED (
    SELECT *
    FROM (
        SELECT *, rank() OVER (PARTITION BY profile_id ORDER BY total_seconds DESC) AS place
        FROM title_totals
    ) AS ranked
    WHERE place <= %(top)s::integer
),
top_titles AS (
    SELECT
        c.profile_id, c.title_id, c.total_seconds, t.title,
        row_number() OVER (
            PARTITION BY c.profile_id
            ORDER BY c.total_seconds DESC, t.title COLLATE "C", c.title_id
        ) AS place
    FROM candidates AS c
    JOIN titles AS t ON t.id = c.title_id
)
SELECT
    (SELECT coalesce(json_agg(json_build_object(
        'profile_id', d.profile_id, 'reset_date', d.reset_date,
        'total', (coalesce(w.total_seconds, 0) * 1000000)::bigint,
        'educational', (coalesce(w.educational_seconds, 0) * 1000000)::bigint,
        'balance', CASE WHEN b.profile_id IS NOT NULL THEN json_build_object(
            'used', (b.used_seconds * 1000000)::bigint,
            'granted', (b.granted_seconds * 1000000)::bigint,
            'is_unlimited_override', b.is_unlimited_override,
            'limit_seconds', b.limit_seconds
        ) END
    )), '[]')::text
    FROM days AS d
    LEFT JOIN day_totals AS w USING (profile_id, reset_date)
    LEFT JOIN viewing_time_balances AS b USING (profile_id, reset_date)),
    (SELECT coalesce(json_agg(json_build_object(
        'profile_id', profile_id, 'title_id', title_id, 'title', title,
        'total', (total_seconds * 1000000)::bigint
    ) ORDER BY profile_id, place), '[]')::text
    FROM top_titles
    WHERE place <= %(top)s::integer)
"""

#: A page of all sessions of a profile, oldest first, above the key `(last_at, last_id)`.
EXPORT_SESSIONS = """
SELECT
    s.id, s.title_id, t.title, s.device_id, s.device_type, s.is_educational, s.reset_date,
    s.started_at, s.last_heartbeat_at, s.paused_at, s.ended_at, s.end_reason, s.total_seconds,
    s.educational_seconds
FROM (
    SELECT *
    FROM viewing_sessions
    WHERE profile_id = %(profile_id)s::uuid
        AND started_at >= %(last_at)s::timestamptz
        AND (started_at, id) > (%(last_at)s::timestamptz, %(last_id)s::uuid)
    ORDER BY started_at, id
    LIMIT %(size)s::integer
) AS s
JOIN titles AS t ON t.id = s.title_id
ORDER BY s.started_at, s.id
"""

#: The database's clock.
CLOCK = "SELECT clock_timestamp()"

"""Every raw statement of the accounting: what it does, which rows it locks, and in which order.

One global order keeps the statements from ever waiting for each other in a circle: profiles by
id, then sessions by id, then balances by profile and day. Whatever opens, ends or moves a session
or makes a balance row holds the profile's lock (`LOCK_AND_READ`); a steady beat (`CREDIT_STEADY`)
holds its session's lock and only adds to rows that are there.

Amounts travel as whole microseconds; values are always bound.
"""

#: Credits beats that only add to their session and its day, or use the day up.
#:
#: Locks the sessions (by id), and then, by the upsert, their balances (by profile and day). A
#: session that somebody else holds is skipped: a copy of the same beat, an end, a grant. Its beat
#: is not answered here, so one that has to wait keeps no other waiting. The clock is read when
#: the locks are held: whoever moves `last_heartbeat_at` next reads it later.
#: A balance is locked by whoever holds its session, too, except for an operator's own statements:
#: for those it waits a tenth of a second, and fails. The limit is set by the statement, for its
#: transaction: that costs no message, and holds behind a pooler.
#: A beat that is not steady after all (judged by the row as it is under the lock, and by the
#: database's clock) is not answered either, and left as it was. The rules: domain.md section 2;
#: `viewingtime.ledger` tells the same in Python, and a test holds the two against each other.
#: Three kinds of rows: the beats that were credited, by their places from 1; what the day of each
#: child stands at; the clock. They are not joined here, because a plan that is made once, for
#: however many beats, would compare each with each. For the same reason the children whose time is
#: used up are looked for by `IN`, which is a hash.
CREDIT_STEADY = """
WITH beats AS (
    SELECT *
    FROM unnest(
        %(session_ids)s::uuid[], %(profile_ids)s::uuid[], %(title_ids)s::uuid[],
        %(device_ids)s::text[], %(paused)s::boolean[], %(exempting)s::boolean[],
        %(days)s::date[], %(ends)s::timestamptz[], %(limits)s::integer[]
    ) WITH ORDINALITY AS b (
        session_id, profile_id, title_id, device_id, is_paused, exempts, reset_date, day_ends_at,
        limit_seconds, place
    )
),
locked AS MATERIALIZED (
    SELECT
        s.id, s.profile_id, s.reset_date, s.last_heartbeat_at, s.paused_at, s.is_kids,
        s.is_educational, b.place, b.is_paused, b.day_ends_at, b.limit_seconds,
        s.is_kids AND s.is_educational AND b.exempts AS is_exempt
    FROM viewing_sessions AS s
    JOIN beats AS b ON b.session_id = s.id
    WHERE s.ended_at IS NULL
        AND s.profile_id = b.profile_id
        AND s.title_id = b.title_id
        AND s.device_id = b.device_id
        AND s.reset_date = b.reset_date
    ORDER BY s.id
    FOR NO KEY UPDATE OF s SKIP LOCKED
),
clock AS MATERIALIZED (
    SELECT clock_timestamp() AS now, set_config('lock_timeout', '100ms', true)
    FROM (SELECT count(*) FROM locked) AS all_locked
),
steady AS MATERIALIZED (
    SELECT
        l.*,
        greatest(c.now, l.last_heartbeat_at) AS beat_at,
        extract(epoch FROM greatest(
            interval '0',
            least(c.now, coalesce(l.paused_at + interval '300 seconds', c.now))
                - l.last_heartbeat_at
        )) AS credit
    FROM locked AS l
    CROSS JOIN clock AS c
    WHERE c.now < l.day_ends_at
        AND l.last_heartbeat_at < l.day_ends_at
        AND c.now - l.last_heartbeat_at BETWEEN interval '-5 seconds' AND interval '300 seconds'
),
booked AS (
    INSERT INTO viewing_time_balances AS b (
        profile_id, reset_date, used_seconds, educational_seconds, limit_seconds
    )
    SELECT
        profile_id, reset_date,
        CASE WHEN is_exempt THEN 0 ELSE credit END,
        CASE WHEN is_exempt THEN credit ELSE 0 END,
        limit_seconds
    FROM steady
    WHERE is_kids
    ORDER BY profile_id, reset_date
    ON CONFLICT (profile_id, reset_date) DO UPDATE SET
        used_seconds = b.used_seconds + excluded.used_seconds,
        educational_seconds = b.educational_seconds + excluded.educational_seconds
    RETURNING
        b.profile_id, b.used_seconds,
        CASE WHEN NOT b.is_unlimited_override
            THEN b.limit_seconds + b.granted_seconds - b.used_seconds
        END AS remaining
),
credited AS (
    UPDATE viewing_sessions AS s SET
        last_heartbeat_at = t.beat_at,
        paused_at = CASE WHEN t.is_paused THEN coalesce(s.paused_at, t.beat_at) END,
        total_seconds = s.total_seconds + t.credit,
        educational_seconds = s.educational_seconds
            + CASE WHEN t.is_exempt THEN t.credit ELSE 0 END,
        ended_at = CASE WHEN t.uses_up THEN t.beat_at END,
        end_reason = CASE WHEN t.uses_up THEN 'exhausted' END
    FROM (
        SELECT
            *,
            NOT is_exempt
                AND profile_id IN (SELECT profile_id FROM booked WHERE remaining <= 0) AS uses_up
        FROM steady
    ) AS t
    WHERE s.id = t.id
    RETURNING
        t.place, t.is_educational, t.is_exempt, s.last_heartbeat_at - s.paused_at AS paused_for
)
SELECT
    place, is_educational, is_exempt, (extract(epoch FROM paused_for) * 1000000)::bigint,
    NULL::uuid, NULL::bigint, NULL::bigint
FROM credited
UNION ALL
SELECT
    NULL, NULL, NULL, NULL,
    profile_id, (used_seconds * 1000000)::bigint, (remaining * 1000000)::bigint
FROM booked
UNION ALL
SELECT NULL, NULL, NULL, (extract(epoch FROM now) * 1000000)::bigint, NULL, NULL, NULL FROM clock
"""

#: Locks and reads all that the rules must know of some profiles, and the instant of that.
#:
#: Locks the profiles (by id): from then on nobody else opens, ends or moves their sessions. Then
#: their open sessions and those asked for (by id), then the balances of the open sessions' days
#: and the latest ones: a steady beat that is under way is waited for. The clock is read last.
#: The statement's snapshot is older than its locks. A row that was locked is read as it is by
#: then, but a session or a balance that was made while we waited for the profile is not seen.
#: Whoever makes one updates the profile's row, too (`WRITE_BACK`): `is_current` is false where
#: the version that was locked is not the one that the snapshot saw. Then nothing but the profiles
#: is locked, or a session that was not seen would be asked for with its balance in hand, against
#: the order; and the statement is sent again, the profiles held.
LOCK_AND_READ = """
WITH locked AS MATERIALIZED (
    SELECT p.id, p.is_kids, p.xmin::text AS version
    FROM profiles AS p
    WHERE p.id = ANY(%(profile_ids)s::uuid[])
    ORDER BY p.id
    FOR NO KEY UPDATE
),
fresh AS MATERIALIZED (
    SELECT NOT EXISTS (
        SELECT FROM locked AS l JOIN profiles AS p ON p.id = l.id
        WHERE p.xmin::text <> l.version
    ) AS is_current
),
held_sessions AS MATERIALIZED (
    SELECT s.*
    FROM viewing_sessions AS s
    WHERE (SELECT is_current FROM fresh)
        AND (
            s.id = ANY(%(session_ids)s::uuid[]) AND s.profile_id = ANY(ARRAY(SELECT id FROM locked))
            OR s.profile_id = ANY(ARRAY(SELECT id FROM locked)) AND s.ended_at IS NULL AND s.is_kids
            OR s.profile_id = ANY(ARRAY(SELECT id FROM locked)) AND s.ended_at IS NULL
                AND NOT s.is_kids
        )
    ORDER BY s.id
    FOR NO KEY UPDATE
),
held_balances AS MATERIALIZED (
    SELECT b.*
    FROM (
        SELECT profile_id, reset_date FROM held_sessions WHERE ended_at IS NULL
        UNION
        SELECT l.id, latest.reset_date
        FROM locked AS l
        CROSS JOIN LATERAL (
            SELECT reset_date FROM viewing_time_balances
            WHERE profile_id = l.id
            ORDER BY reset_date DESC
            LIMIT 1
        ) AS latest
    ) AS days
    JOIN viewing_time_balances AS b USING (profile_id, reset_date)
    WHERE (SELECT is_current FROM fresh) AND (SELECT count(*) FROM held_sessions) >= 0
    ORDER BY b.profile_id, b.reset_date
    FOR NO KEY UPDATE OF b
)
SELECT
    (SELECT clock_timestamp() FROM (SELECT count(*) FROM held_balances) AS all_locked),
    (SELECT is_current FROM fresh),
    (SELECT coalesce(json_agg(json_build_object(
        'id', l.id, 'is_kids', l.is_kids,
        'config', CASE WHEN c.profile_id IS NOT NULL THEN json_build_object(
            'weekday_limit_minutes', c.weekday_limit_minutes,
            'weekend_limit_minutes', c.weekend_limit_minutes,
            'reset_hour', c.reset_hour,
            'timezone', c.timezone,
            'educational_exempt', c.educational_exempt,
            'earlier_schedules', c.earlier_schedules
        ) END
    )), '[]')::text FROM locked AS l LEFT JOIN viewing_time_configs AS c ON c.profile_id = l.id),
    (SELECT coalesce(json_agg(json_build_object(
        'id', s.id, 'profile_id', s.profile_id, 'title_id', s.title_id,
        'device_id', s.device_id, 'device_type', s.device_type,
        'is_educational', s.is_educational, 'reset_date', s.reset_date,
        'started_at', s.started_at, 'last_heartbeat_at', s.last_heartbeat_at,
        'paused_at', s.paused_at, 'ended_at', s.ended_at, 'end_reason', s.end_reason,
        'total', (s.total_seconds * 1000000)::bigint,
        'educational', (s.educational_seconds * 1000000)::bigint
    )), '[]')::text FROM held_sessions AS s),
    (SELECT coalesce(json_agg(json_build_object(
        'profile_id', b.profile_id, 'reset_date', b.reset_date,
        'used', (b.used_seconds * 1000000)::bigint,
        'educational', (b.educational_seconds * 1000000)::bigint,
        'granted', (b.granted_seconds * 1000000)::bigint,
        'is_unlimited_override', b.is_unlimited_override,
        'limit_seconds', b.limit_seconds
    )), '[]')::text FROM held_balances AS b),
    (SELECT coalesce(json_agg(json_build_object(
        'id', t.id, 'is_educational', t.is_educational,
        'is_withdrawn', coalesce(t.withdrawn_at <= clock_timestamp(), false)
    )), '[]')::text FROM titles AS t WHERE t.id = ANY(%(title_ids)s::uuid[]))
"""

#: The same for those of the profiles that nobody else holds: one that has to be waited for keeps no
#: other waiting. The profiles that are missing in the answer are held, or are not there.
LOCK_FREE_AND_READ = LOCK_AND_READ.replace("FOR NO KEY UPDATE", "FOR NO KEY UPDATE SKIP LOCKED", 1)

#: Writes back what the rules made of some ledgers, everything in one statement.
#:
#: The locks are held already (`LOCK_AND_READ`); a balance of an earlier day is locked here, and
#: nobody else can be after it, because every way to it leads over the profile or over an open
#: session of the profile. Sessions are written as they are to be, balances are added to. The
#: sessions that end are written before those that open, or the index that allows a child one open
#: session would refuse.
WRITE_BACK = """
WITH touched AS (
    UPDATE profiles SET last_viewing_change_at = %(now)s
    WHERE id = ANY(%(profile_ids)s::uuid[])
),
configured AS (
    INSERT INTO viewing_time_configs (profile_id)
    SELECT unnest(%(unconfigured_ids)s::uuid[])
    ON CONFLICT (profile_id) DO NOTHING
),
changed AS (
    UPDATE viewing_sessions AS s SET
        last_heartbeat_at = c.last_heartbeat_at,
        paused_at = c.paused_at,
        ended_at = c.ended_at,
        end_reason = c.end_reason,
        total_seconds = c.total::numeric / 1000000,
        educational_seconds = c.educational::numeric / 1000000
    FROM jsonb_to_recordset(%(changed)s::jsonb) AS c (
        id uuid, last_heartbeat_at timestamptz, paused_at timestamptz, ended_at timestamptz,
        end_reason text, total bigint, educational bigint
    )
    WHERE s.id = c.id
    RETURNING s.id
),
opened AS (
    INSERT INTO viewing_sessions (
        id, profile_id, title_id, is_kids, device_id, device_type, is_educational, reset_date,
        started_at, last_heartbeat_at, paused_at, ended_at, end_reason,
        total_seconds, educational_seconds
    )
    SELECT
        o.id, o.profile_id, o.title_id, o.is_kids, o.device_id, o.device_type, o.is_educational,
        o.reset_date, o.started_at, o.last_heartbeat_at, o.paused_at, o.ended_at, o.end_reason,
        o.total::numeric / 1000000, o.educational::numeric / 1000000
    FROM jsonb_to_recordset(%(opened)s::jsonb) AS o (
        id uuid, profile_id uuid, title_id uuid, is_kids boolean, device_id text,
        device_type text, is_educational boolean, reset_date date, started_at timestamptz,
        last_heartbeat_at timestamptz, paused_at timestamptz, ended_at timestamptz,
        end_reason text, total bigint, educational bigint
    )
    WHERE (SELECT count(*) FROM changed) >= 0
    RETURNING id
),
booked AS (
    INSERT INTO viewing_time_balances AS b (
        profile_id, reset_date, used_seconds, educational_seconds, granted_seconds,
        is_unlimited_override, limit_seconds
    )
    SELECT
        d.profile_id, d.reset_date, d.used::numeric / 1000000, d.educational::numeric / 1000000,
        d.granted::numeric / 1000000, d.is_unlimited_override, d.limit_seconds
    FROM jsonb_to_recordset(%(booked)s::jsonb) AS d (
        profile_id uuid, reset_date date, used bigint, educational bigint, granted bigint,
        is_unlimited_override boolean, limit_seconds integer
    )
    ORDER BY d.profile_id, d.reset_date
    ON CONFLICT (profile_id, reset_date) DO UPDATE SET
        used_seconds = b.used_seconds + excluded.used_seconds,
        educational_seconds = b.educational_seconds + excluded.educational_seconds,
        granted_seconds = b.granted_seconds + excluded.granted_seconds,
        is_unlimited_override = b.is_unlimited_override OR excluded.is_unlimited_override
    RETURNING b.profile_id
)
SELECT
    (SELECT count(*) FROM changed), (SELECT count(*) FROM opened), (SELECT count(*) FROM booked)
"""

#: The database's clock and the latest balance of a profile; locks nothing.
LATEST_BALANCE = """
SELECT
    clock_timestamp(), b.reset_date,
    (b.used_seconds * 1000000)::bigint,
    (b.educational_seconds * 1000000)::bigint,
    (b.granted_seconds * 1000000)::bigint,
    b.is_unlimited_override, b.limit_seconds
FROM (SELECT) AS always
LEFT JOIN LATERAL (
    SELECT * FROM viewing_time_balances
    WHERE profile_id = %(profile_id)s
    ORDER BY reset_date DESC
    LIMIT 1
) AS b ON true
"""

#: The limit in force of a child's running day; its profile is locked by `LOCK_AND_READ`.
SET_LIMIT = """
UPDATE viewing_time_balances SET limit_seconds = %(limit_seconds)s
WHERE profile_id = %(profile_id)s AND reset_date = %(reset_date)s
"""

#: Profiles that have a session which went silent, in batches by id; locks nothing.
#:
#: In two arms, because the open sessions are in two indexes (`uq_vs_open_kids`,
#: `ix_vs_open_adult`): either is read in its order from `after` on, up to a batch.
SILENT_PROFILES = """
SELECT profile_id
FROM (
    (
        SELECT profile_id
        FROM viewing_sessions
        WHERE ended_at IS NULL AND is_kids
            AND last_heartbeat_at < clock_timestamp() - interval '300 seconds'
            AND profile_id > %(after)s
        ORDER BY profile_id
        LIMIT %(batch)s
    )
    UNION
    (
        SELECT DISTINCT profile_id
        FROM viewing_sessions
        WHERE ended_at IS NULL AND NOT is_kids
            AND last_heartbeat_at < clock_timestamp() - interval '300 seconds'
            AND profile_id > %(after)s
        ORDER BY profile_id
        LIMIT %(batch)s
    )
) AS silent
ORDER BY profile_id
LIMIT %(batch)s
"""

#: A profile with many sessions by the planner's statistics, else one of any session, else any
#: child; no row where there is none. For audits: cheap on a table of any size, locks nothing.
BUSIEST_PROFILE = """
SELECT id
FROM (
    SELECT 1 AS choice, (
        SELECT (most_common_vals::text::uuid[])[1]
        FROM pg_stats
        WHERE tablename = 'viewing_sessions' AND attname = 'profile_id'
            AND to_regclass(format('%I.%I', schemaname, tablename))
                = to_regclass('viewing_sessions')
    ) AS id
    UNION ALL SELECT 2, (SELECT profile_id FROM viewing_sessions LIMIT 1)
    UNION ALL SELECT 3, (SELECT id FROM profiles WHERE is_kids LIMIT 1)
) AS candidates
JOIN profiles USING (id)
ORDER BY choice
LIMIT 1
"""

"""Every raw statement of the PIN: what it does, and which row it locks.

Each locks one PIN's row at most, and no other row after it, so that none can wait in a circle.
"""

#: Failures after which a PIN is locked, and for how long (domain.md section 7).
FAILURES_TO_LOCK = 5
LOCK_MINUTES = 30

#: Reserves an attempt before anything is hashed, unless the PIN is locked.
#:
#: One statement: of any number of parallel guesses, whichever path and process they come by, each
#: finds under the row's lock what the one before it wrote. The attempt that uses up the count
#: locks the PIN already; a right one lifts that again. A lock that has run out starts a fresh
#: count. No row: there is no PIN, or it is locked.
RESERVE_ATTEMPT = """
UPDATE pins AS p SET
    attempts_cleared = CASE
        WHEN p.locked_until IS NULL THEN p.attempts_cleared ELSE p.attempts_reserved
    END,
    attempts_reserved = p.attempts_reserved + 1,
    locked_until = CASE
        WHEN p.locked_until IS NULL
            AND p.attempts_reserved + 1 - p.attempts_cleared >= %(failures)s
        THEN clock_timestamp() + make_interval(mins => %(minutes)s)
    END
WHERE p.account_id = %(account_id)s
    AND (p.locked_until IS NULL OR p.locked_until <= clock_timestamp())
RETURNING p.pin_hash, p.version, p.attempts_reserved, p.locked_until
"""

#: Whether there is a PIN, and until when it is locked, if it is; locks nothing.
LOCK_STATE = """
SELECT
    p.version,
    p.locked_until,
    ceil(extract(epoch FROM p.locked_until - clock_timestamp()))::integer
FROM pins AS p
WHERE p.account_id = %(account_id)s
"""

#: A right PIN clears the attempts up to its own, if it still is the PIN; and the lock, unless a
#: later count set it. Answers the lock that was in force before, if it was lifted.
CLEAR_ATTEMPTS = """
WITH held AS MATERIALIZED (
    SELECT p.account_id, p.locked_until
    FROM pins AS p
    WHERE p.account_id = %(account_id)s AND p.version = %(version)s
    FOR NO KEY UPDATE
)
UPDATE pins AS p SET
    attempts_cleared = greatest(p.attempts_cleared, %(attempt)s),
    locked_until = CASE
        WHEN p.attempts_reserved - greatest(p.attempts_cleared, %(attempt)s) >= %(failures)s
        THEN p.locked_until
    END
FROM held AS h
WHERE p.account_id = h.account_id AND p.version = %(version)s
RETURNING CASE
    WHEN p.locked_until IS NULL AND h.locked_until > clock_timestamp() THEN h.locked_until
END
"""

#: Gives an attempt back that was never evaluated, and lifts the lock that it set; no row where
#: others came after it. Answers the lock that was in force before.
GIVE_ATTEMPT_BACK = """
WITH held AS MATERIALIZED (
    SELECT p.account_id, p.locked_until
    FROM pins AS p
    WHERE p.account_id = %(account_id)s AND p.version = %(version)s
    FOR NO KEY UPDATE
)
UPDATE pins AS p SET attempts_reserved = p.attempts_reserved - 1, locked_until = NULL
FROM held AS h
WHERE p.account_id = h.account_id
    AND p.version = %(version)s
    AND p.attempts_reserved = %(attempt)s
    AND p.attempts_cleared < %(attempt)s
RETURNING CASE WHEN h.locked_until > clock_timestamp() THEN h.locked_until END
"""

#: How many PINs are locked now; served by `ix_pins_locked`, locks nothing.
COUNT_LOCKED = """
SELECT count(*) FROM pins WHERE locked_until > clock_timestamp()
"""

#: The first PIN of an account; no row where it has one by now.
SET_FIRST = """
INSERT INTO pins (account_id, pin_hash, version)
VALUES (%(account_id)s, %(pin_hash)s, %(version)s)
ON CONFLICT (account_id) DO NOTHING
RETURNING version
"""

#: Another PIN in the place of the one that was checked; no row where that changed meanwhile.
REPLACE = """
UPDATE pins SET
    pin_hash = %(pin_hash)s, version = %(version)s, changed_at = clock_timestamp(),
    attempts_cleared = attempts_reserved, locked_until = NULL
WHERE account_id = %(account_id)s AND version = %(old_version)s
RETURNING version
"""

#: A new PIN whatever was there before; the lock is lifted.
OVERWRITE = """
INSERT INTO pins AS p (account_id, pin_hash, version)
VALUES (%(account_id)s, %(pin_hash)s, %(version)s)
ON CONFLICT (account_id) DO UPDATE SET
    pin_hash = excluded.pin_hash, version = excluded.version, changed_at = clock_timestamp(),
    attempts_cleared = p.attempts_reserved, locked_until = NULL
"""

#: Lifts the locks in force and clears what was counted; answers whose PIN was locked.
UNLOCK = """
WITH held AS MATERIALIZED (
    SELECT p.account_id, p.locked_until
    FROM pins AS p
    WHERE p.account_id = ANY(%(account_ids)s::uuid[])
    ORDER BY p.account_id
    FOR NO KEY UPDATE
),
unlocked AS (
    UPDATE pins AS p SET attempts_cleared = p.attempts_reserved, locked_until = NULL
    FROM held AS h
    WHERE p.account_id = h.account_id
)
SELECT h.account_id, h.locked_until
FROM held AS h
WHERE h.locked_until > clock_timestamp()
ORDER BY h.account_id
"""

#: Spends a PIN token that is good once; no row where it was spent before. A racing second use
#: waits for the transaction of the first.
SPEND_TOKEN = """
INSERT INTO used_pin_tokens (token_id, expires_at)
VALUES (%(token_id)s, %(expires_at)s)
ON CONFLICT (token_id) DO NOTHING
RETURNING token_id
"""

#: Deletes a batch of spent tokens, oldest first, an hour after they ran out: their end is by the
#: clock of the host that signed them, and one that is forgotten before it would be good again.
#: Answers how many, and when the last of them ran out, where the next batch starts. A row that
#: somebody holds is left for the next run, so that this waits for no lock.
DELETE_USED_TOKENS = """
WITH expired AS MATERIALIZED (
    SELECT token_id
    FROM used_pin_tokens
    WHERE expires_at >= %(since)s::timestamptz
        AND expires_at <= statement_timestamp() - interval '1 hour'
    ORDER BY expires_at
    LIMIT %(batch)s
    FOR UPDATE SKIP LOCKED
),
deleted AS (
    DELETE FROM used_pin_tokens AS u USING expired AS e WHERE u.token_id = e.token_id
    RETURNING u.expires_at
)
SELECT count(*), max(expires_at) FROM deleted
"""

#: Records an erasure; from then on this transaction may delete what the audit says of it.
RECORD_ERASURE = """
INSERT INTO erasures (id, at, account_id, profile_id, actor, deleted, transaction_id)
VALUES (
    %(id)s, clock_timestamp(), %(account_id)s, %(profile_id)s, %(actor)s, %(deleted)s,
    pg_current_xact_id()::text::bigint
)
RETURNING at
"""

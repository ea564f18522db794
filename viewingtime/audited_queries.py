"""The queries whose plans `manage.py verify_indexes` judges, as the service sends them.

`settings.AUDITED_QUERIES` names `audited`; `adminmetrics.plans` knows nothing of these tables.
"""

import re
from datetime import UTC, date, datetime, timedelta
from uuid import UUID

from django.db import connection

from adminmetrics.plans import AuditedQuery, UnknownProfile
from parentalcontrols.models import Profile
from viewingtime import heartbeats, history, ledgers, reports, sql, steady
from viewingtime.heartbeats import Heartbeat
from viewingtime.models import ViewingSession

_NOBODY = UUID(int=0)


def audited(profile_id: UUID | None = None) -> list[AuditedQuery]:
    """The queries of heartbeat, balance, sweep, history and report, asked for a profile.

    Without one it is a profile with many sessions, or any. Reads only; raises `UnknownProfile`.
    """
    profile_id = profile_id or _busiest()
    subject = profile_id or _NOBODY
    if profile_id is not None and not Profile.objects.filter(id=profile_id).exists():
        raise UnknownProfile(profile_id)
    now = datetime.now(UTC)
    session = (
        ViewingSession.objects.filter(profile_id=subject).order_by("-started_at").first()
    ) or ViewingSession(id=_NOBODY, title_id=_NOBODY, device_id="", reset_date=now.date())
    look_up = heartbeats.look_up([subject], [session.id])
    look_up_sql, look_up_parameters = look_up.query.sql_with_params()
    rules = steady.Rules(ledgers.viewer_of(None))
    beat = Heartbeat(subject, session.title_id, session.device_id, session_id=session.id)
    beats = steady.statement_parameters(
        [steady.Candidate(beat, rules, rules.day(session.reset_date))]
    )
    return [
        AuditedQuery(
            name="heartbeat: look-up",
            statement=look_up_sql,
            parameters=look_up_parameters,
            served_by={
                "profiles": ["profiles_pkey"],
                "accounts": ["accounts_pkey"],
                "viewing_time_configs": ["viewing_time_configs_pkey"],
                "viewing_sessions": ["viewing_sessions_pkey"],
            },
            profile_id=profile_id,
        ),
        AuditedQuery(
            name="heartbeat: steady beats",
            statement=sql.CREDIT_STEADY,
            parameters=beats,
            served_by={
                "viewing_sessions": ["viewing_sessions_pkey"],
                "viewing_time_balances": ["uq_vtb_profile_reset_date"],
            },
            profile_id=profile_id,
            writes=True,
        ),
        AuditedQuery(
            name="heartbeat, grant: lock and read",
            statement=sql.LOCK_AND_READ,
            parameters={
                "profile_ids": [subject],
                "session_ids": [session.id],
                "title_ids": [session.title_id],
            },
            served_by={
                "profiles": ["profiles_pkey"],
                "viewing_sessions": [
                    "viewing_sessions_pkey",
                    "uq_vs_open_kids",
                    "ix_vs_open_adult",
                ],
                "viewing_time_balances": ["uq_vtb_profile_reset_date"],
                "viewing_time_configs": ["viewing_time_configs_pkey"],
                "titles": ["titles_pkey"],
            },
            profile_id=profile_id,
            writes=True,
            reading=_without_locks(sql.LOCK_AND_READ),
        ),
        AuditedQuery(
            name="heartbeat, grant: write back",
            statement=sql.WRITE_BACK,
            parameters={
                "now": now,
                "profile_ids": [subject],
                "unconfigured_ids": [subject],
                "changed": "[]",
                "opened": "[]",
                "booked": "[]",
            },
            served_by={
                "profiles": ["profiles_pkey"],
                "viewing_sessions": ["viewing_sessions_pkey"],
                "viewing_time_balances": ["uq_vtb_profile_reset_date"],
                "viewing_time_configs": ["viewing_time_configs_pkey"],
            },
            profile_id=profile_id,
            writes=True,
        ),
        AuditedQuery(
            name="balance: latest day",
            statement=sql.LATEST_BALANCE,
            parameters={"profile_id": subject},
            served_by={"viewing_time_balances": ["uq_vtb_profile_reset_date"]},
            profile_id=profile_id,
        ),
        AuditedQuery(
            name="sweep: silent profiles",
            statement=sql.SILENT_PROFILES,
            parameters={"after": _NOBODY, "batch": 500},
            served_by={"viewing_sessions": ["uq_vs_open_kids", "ix_vs_open_adult"]},
        ),
        *_reads(subject, session.reset_date, profile_id=profile_id),
    ]


def _reads(subject: UUID, last_day: date, *, profile_id: UUID | None) -> list[AuditedQuery]:
    """History and report up to a viewing day."""
    month = history.Place(last_day - timedelta(days=history.USUAL_DAYS - 1), last_day)
    page, page_parameters = history.page_statement(
        profile_id=subject, place=month, size=history.PAGE_SESSIONS + 1
    )
    week = [last_day - timedelta(days=ago) for ago in reversed(range(reports.DAYS))]
    report, report_parameters = reports.statement({subject: week})
    return [
        AuditedQuery(
            name="history: a page",
            statement=page,
            parameters=page_parameters,
            served_by={
                "viewing_sessions": ["ix_vs_profile_started"],
                "titles": ["titles_pkey"],
            },
            profile_id=profile_id,
        ),
        AuditedQuery(
            name="weekly report",
            statement=report,
            parameters=report_parameters,
            served_by={
                "viewing_sessions": ["ix_vs_profile_started"],
                "viewing_time_balances": ["uq_vtb_profile_reset_date"],
                "titles": ["titles_pkey"],
            },
            profile_id=profile_id,
        ),
    ]


def _busiest() -> UUID | None:
    """A profile with many sessions, as far as statistics tell; None where there is no profile."""
    with connection.cursor() as cursor:
        cursor.execute(sql.BUSIEST_PROFILE)
        row = cursor.fetchone()
    return row[0] if row else None


def _without_locks(statement: str) -> str:
    """The same statement for a role that may only read."""
    return re.sub(r"FOR NO KEY UPDATE( OF \w+)?( SKIP LOCKED)?", "", statement)

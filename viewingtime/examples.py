"""Bodies about viewing time, by name, as the OpenAPI document shows them."""

from parentalcontrols.examples import MIA, PASSWORD, TOKEN

_SESSION = "79b48e2c-d4f8-4935-8d23-61315b903032"
_RESET = "2026-11-24T05:00:00Z"
_BEAT = {
    "profile_id": MIA,
    "title_id": "00000000-0000-4000-8000-000000000001",
    "device_id": "living-room",
    "device_type": "tv",
}
_NEXT_BEAT = {**_BEAT, "session_id": _SESSION, "is_paused": False}
_PLAYING = {
    "session_id": _SESSION,
    "enforcement": "allowed",
    "remaining_minutes": 134.5,
    "used_minutes": 0.5,
    "is_educational": False,
    "reason": None,
    "next_heartbeat_seconds": 30,
}
_EXHAUSTED = {
    **_PLAYING,
    "enforcement": "blocked",
    "remaining_minutes": 0.0,
    "used_minutes": 120.05,
    "reason": "viewing_time_exhausted",
}
_REFUSED = {"status": 404, "code": "not_found", "detail": "There is no such thing here."}
_LIMITS = {"weekday_limit_minutes": 90, "weekend_limit_minutes": None}

HEARTBEAT = {"first beat": _BEAT, "next beat": _NEXT_BEAT}
HEARTBEAT_ANSWER = {"playing": _PLAYING, "time is up": _EXHAUSTED}
BATCH = {"two beats": {"heartbeats": [_NEXT_BEAT, {**_BEAT, "profile_id": _SESSION}]}}
BATCH_ANSWER = {"one is refused": {"results": [_PLAYING, {"error": _REFUSED}]}}
SESSION_END = {
    "ended": {
        "session_id": _SESSION,
        "total_seconds": 1815.25,
        "ended_at": "2026-11-23T17:40:12.225499Z",
    }
}
BALANCE = {
    "child": {
        "profile_id": MIA,
        "is_child_profile": True,
        "has_limits": True,
        "used_minutes": 30.25,
        "educational_minutes": 12.1,
        "granted_minutes": 15.0,
        "limit_minutes": 120.0,
        "remaining_minutes": 104.75,
        "is_unlimited_override": False,
        "next_reset_at": _RESET,
        "warning_threshold_minutes": [15, 5],
    }
}
ELIGIBILITY = {
    "may start": {
        "eligible": True,
        "remaining_minutes": 104.75,
        "reason": None,
        "next_reset_at": _RESET,
    },
    "time is up": {
        "eligible": False,
        "remaining_minutes": 0.0,
        "reason": "viewing_time_exhausted",
        "next_reset_at": _RESET,
    },
}
CONFIG_CHANGE = {
    "without a PIN": _LIMITS,
    "with a PIN": {**_LIMITS, "timezone": "Europe/Berlin", "pin_token": TOKEN},
}
CONFIG = {
    "child": {
        "profile_id": MIA,
        "profile_name": "Mia",
        **_LIMITS,
        "reset_hour": 6,
        "educational_exempt": True,
        "timezone": "Europe/Berlin",
        "updated_at": "2026-11-23T22:45:01.575753Z",
    }
}
GRANT_REQUEST = {
    "from a device of the parent": {"minutes": 15},
    "with the PIN": {"minutes": 30, "pin": "0420"},
    "unlimited until the reset": {"minutes": None, "pin_token": TOKEN},
}
GRANT = {
    "15 minutes": {
        "granted_minutes": 15,
        "remaining_minutes": 119.75,
        "is_unlimited_override": False,
    },
    "unlimited": {
        "granted_minutes": None,
        "remaining_minutes": None,
        "is_unlimited_override": True,
    },
}
ERASURE = {"with a PIN": {"pin_token": TOKEN}}
ACCOUNT_ERASURE = {"with a PIN": {"password": PASSWORD, "pin_token": TOKEN}}
RECEIPT = {
    "child": {
        "receipt_id": "1b7f6a02-93c8-4e2f-a6dd-7a6f0f6f2c11",
        "erased_at": "2026-11-24T18:02:11.482731Z",
        "deleted": {"profiles": 1, "configs": 1, "log_ins": 1, "sessions": 412},
    }
}

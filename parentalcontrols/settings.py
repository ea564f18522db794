"""All settings, twelve-factor: every knob is an environment variable, a wrong one stops the start.

Outside demo mode (`DEMO=true`, which `make run` sets together with secrets of its own) nothing
secret has a default. `environment.py` reads the variables, `variables.py` says what each means;
docs/settings.md is made from both by `manage.py settings_table`.
"""

import re
import socket
import sys
import warnings
import zoneinfo
from pathlib import Path
from typing import Any

import psycopg
from csp.constants import NONE, SELF
from django.core.exceptions import ImproperlyConfigured
from psycopg.conninfo import conninfo_to_dict

from parentalcontrols import openapi_text
from parentalcontrols.environment import Rate
from parentalcontrols.environment import cache_url as _cache_url
from parentalcontrols.environment import flag as _flag
from parentalcontrols.environment import items as _list
from parentalcontrols.environment import networks as _networks
from parentalcontrols.environment import number as _number
from parentalcontrols.environment import origins as _origins
from parentalcontrols.environment import rate as _rate
from parentalcontrols.environment import required as _required
from parentalcontrols.environment import secret as _secret
from parentalcontrols.environment import text as _text

BASE_DIR = Path(__file__).resolve().parent.parent

# Every host decides by the same zone rules: those of the pinned `tzdata`, not the system's.
zoneinfo.reset_tzpath(to=())


def _database() -> dict[str, Any]:
    """`DATABASE_URL`, any URI that libpq understands, as Django's parameters."""
    url = _required("DATABASE_URL", "set it to postgresql://user:password@host:port/database.")
    try:
        parts = conninfo_to_dict(url)
    except psycopg.Error:
        raise ImproperlyConfigured(
            "DATABASE_URL is no PostgreSQL address: set it to "
            "postgresql://user:password@host:port/database."
        ) from None
    name = parts.pop("dbname", None)
    if not name:
        raise ImproperlyConfigured("DATABASE_URL names no database: add /database to its end.")
    options: dict[str, Any] = {"application_name": "viewingtime", "connect_timeout": 2, **parts}
    named = {key: options.pop(key, "") for key in ("user", "password", "host", "port")}
    if SERVING and not DATABASE_POOLED:
        limits = " ".join(f"-c {name}={value}" for name, value in DATABASE_LIMITS.items())
        # Every statement is served by an index, whatever its values: plan it once.
        limits += " -c plan_cache_mode=force_generic_plan"
        options["options"] = f"{options.get('options', '')} {limits}".strip()
    # Prepared statements are kept per connection (T020); PgBouncer before 1.21 cannot do that.
    options["server_side_binding"] = DATABASE_PREPARED
    options["prepare_threshold"] = PREPARE_THRESHOLD if DATABASE_PREPARED else None
    return {
        "ENGINE": "parentalcontrols.postgresql",
        "NAME": name,
        "USER": named["user"],
        "PASSWORD": named["password"],
        "HOST": named["host"],
        "PORT": str(named["port"]),
        "CONN_MAX_AGE": None,
        # Ordinary requests check a reused connection once; the hot path skips the check and
        # reconnects on error instead (viewingtime.heartbeats).
        "CONN_HEALTH_CHECKS": True,
        "DISABLE_SERVER_SIDE_CURSORS": DATABASE_POOLED,
        "OPTIONS": options,
        "TEST": {"NAME": _text("TEST_DATABASE_NAME", "") or None},
    }


# A statement is prepared when it was sent so many times.
PREPARE_THRESHOLD = 2

DEMO = _flag("DEMO")
DEBUG = False
# Set by the web server's configuration: limits meant for requests must not hit a migration.
SERVING = _flag("SERVING")
TESTING = "pytest" in sys.modules
# Greenlets or threads; only the former gather heartbeats (viewingtime.gathering).
WORKER_CLASS = _text("WORKER_CLASS", "gevent")
if WORKER_CLASS not in {"gevent", "gthread"}:
    raise ImproperlyConfigured("WORKER_CLASS is neither gevent nor gthread: set it to one of them.")

# The longest a heartbeat or an eligibility question may wait for the database, in milliseconds
# (domain.md section 4 says 2 seconds; the rest is for the answer's way).
REQUEST_DEADLINE_MS = _number("REQUEST_DEADLINE_MS", 1800, least=500, most=2000)
STATEMENT_TIMEOUT_MS = _number("STATEMENT_TIMEOUT_MS", 15000, least=1000, most=600000)
# The server's limits for the sessions of web processes, in milliseconds. A lock that is not had in
# time is an honest 503, and a client that went away frees its server process (domain.md section 4,
# "Fail closed").
DATABASE_LIMITS = {
    "lock_timeout": REQUEST_DEADLINE_MS - 400,
    "statement_timeout": STATEMENT_TIMEOUT_MS,
    "client_connection_check_interval": 500,
    "idle_in_transaction_session_timeout": 10000,
}
DATABASE_PREPARED = _flag("DATABASE_PREPARED", default=True)
# Through a pooler whose connections serve another client with each transaction: nothing is kept in
# a session, and the limits are the pooler's or the role's to set; whether they are is looked for
# (parentalcontrols.postgresql.limits).
DATABASE_POOLED = _flag("DATABASE_POOLED", default=not DATABASE_PREPARED)

# Sessions are kept for so many viewing days before the running one; histories reach back 90.
HISTORY_RETENTION_DAYS = _number("HISTORY_RETENTION_DAYS", 91, least=91, most=36500)

SECRET_KEY = _secret("SECRET_KEY", "signs the admin's sessions")
TOKEN_SIGNING_KEY = _secret("TOKEN_SIGNING_KEY", "signs the API's tokens")
PIN_PEPPER = _secret("PIN_PEPPER", "mixed into PINs before they are hashed")
if SECRET_KEY == TOKEN_SIGNING_KEY:
    raise ImproperlyConfigured("TOKEN_SIGNING_KEY equals SECRET_KEY: give each a value of its own.")
if PIN_PEPPER in {SECRET_KEY, TOKEN_SIGNING_KEY}:
    raise ImproperlyConfigured("PIN_PEPPER equals another secret: give each a value of its own.")

ALLOWED_HOSTS = _list("ALLOWED_HOSTS")
if DEMO or TESTING:
    ALLOWED_HOSTS = ALLOWED_HOSTS or ["*"] if DEMO else ["*"]
elif not ALLOWED_HOSTS:
    raise ImproperlyConfigured(
        "ALLOWED_HOSTS is not set: name the host names that clients use, separated by commas."
    )
CSRF_TRUSTED_ORIGINS = _origins("CSRF_TRUSTED_ORIGINS")
BASE_URL = _text("BASE_URL", "http://127.0.0.1:8000").rstrip("/")

INSTALLED_APPS = [
    # Before the admin, whose templates it completes.
    "adminmetrics",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.postgres",
    "django.contrib.staticfiles",
    "rest_framework",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "corsheaders",
    "csp",
    "parentalcontrols",
    "viewingtime",
    "pins",
]
if TESTING or _flag("LINT_MIGRATIONS"):
    INSTALLED_APPS.append("django_migration_linter")
MIGRATION_LINTER_OPTIONS = {
    "include_apps": ["parentalcontrols", "viewingtime", "pins", "adminmetrics"],
    "exclude_migration_tests": [],
}

# Sessions, users and messages belong to the admin's paths alone; an API request pays for none.
MIDDLEWARE = [
    "parentalcontrols.request_ids.RequestIdMiddleware",
    "parentalcontrols.middleware.RefusalMiddleware",
    "parentalcontrols.middleware.LengthMiddleware",
    "parentalcontrols.middleware.NoStoreMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "parentalcontrols.middleware.StaticFilesMiddleware",
    "corsheaders.middleware.CorsMiddleware",
    "parentalcontrols.middleware.AdminSessionMiddleware",
    "parentalcontrols.middleware.AdminCommonMiddleware",
    "parentalcontrols.middleware.AdminCsrfViewMiddleware",
    "parentalcontrols.middleware.AdminAuthenticationMiddleware",
    "parentalcontrols.middleware.AdminMessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "csp.middleware.CSPMiddleware",
    "parentalcontrols.middleware.BodyLimitMiddleware",
    "parentalcontrols.middleware.ProblemMiddleware",
]
ROOT_URLCONF = "parentalcontrols.urls"
WSGI_APPLICATION = "parentalcontrols.wsgi.application"
# What answers a request before Django does, if it can.
PLAIN_REQUESTS = "viewingtime.plain_beats.answer"
# Called in each web process before its first request.
WEB_PROCESS_STARTS = [
    "parentalcontrols.postgresql.limits.look",
    "viewingtime.gathering.start",
    "viewingtime.plain_beats.rehearse",
    "parentalcontrols.config_cache.watch",
]
APPEND_SLASH = True
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]

# The statements of a heartbeat run on connections of their own: so many credit, so many decide.
HEARTBEAT_CREDITORS = _number("HEARTBEAT_CREDITORS", 1, least=1, most=16)
HEARTBEAT_DECIDERS = _number("HEARTBEAT_DECIDERS", 2, least=1, most=16)
# With greenlets every request looks like a thread: their connections come from a pool.
DATABASE_POOL_SIZE = _number("DATABASE_POOL_SIZE", 16, least=1, most=1000)
DATABASES = {"default": _database()}
if SERVING and WORKER_CLASS == "gevent":
    DATABASES["default"] |= {
        "CONN_MAX_AGE": 0,
        # The pool looks whether a connection still stands, without a round trip.
        "CONN_HEALTH_CHECKS": False,
        "POOL": {
            # One more for beats of children that somebody holds.
            "size": DATABASE_POOL_SIZE + HEARTBEAT_CREDITORS + HEARTBEAT_DECIDERS + 1,
            "wait_seconds": 1.0,
        },
    }
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
# The queries whose plans `verify_indexes` judges; they belong to the package on the far left.
AUDITED_QUERIES = "viewingtime.audited_queries.audited"

# A cache that is down must cost milliseconds, not seconds: short timeouts, no retry.
_REDIS = {
    "BACKEND": "django_redis.cache.RedisCache",
    "LOCATION": _cache_url("REDIS_URL"),
    "OPTIONS": {
        "CONNECTION_POOL_KWARGS": {
            "socket_connect_timeout": 0.1,
            "socket_timeout": 0.1,
            "retry": None,
            "retry_on_timeout": False,
        },
    },
}
CACHES = {
    "default": {**_REDIS, "KEY_PREFIX": "viewingtime"},
    # What heartbeats must know of profiles (parentalcontrols.config_cache).
    "configs": {**_REDIS, "KEY_PREFIX": "viewingtime-configs"},
}
CONFIG_CACHE_SECONDS = _number("CONFIG_CACHE_SECONDS", 60, least=1, most=3600)
CONFIG_CACHE_ENTRIES = _number("CONFIG_CACHE_ENTRIES", 10_000, least=1, most=10_000_000)

AUTH_USER_MODEL = "parentalcontrols.Account"
# SHA-256 first, so that bcrypt never sees more than its 72 bytes.
PASSWORD_HASHERS = ["parentalcontrols.passwords.BCryptSHA256Hasher"]
# The costs of bcrypt: each step doubles them. 10 is about 55 ms of a core.
PASSWORD_BCRYPT_ROUNDS = _number("PASSWORD_BCRYPT_ROUNDS", 10, least=10, most=16)
PIN_BCRYPT_ROUNDS = _number("PIN_BCRYPT_ROUNDS", 10, least=10, most=16)
if TESTING:
    PASSWORD_BCRYPT_ROUNDS = PIN_BCRYPT_ROUNDS = 4
# Per web process: how many hashes run at a time, how many requests may hash or wait for it
# (fewer than the process has threads for requests), and how far they give way to requests.
HASHING_THREADS = _number("HASHING_THREADS", 1, least=1, most=64)
THREADS = _number("THREADS", 16, least=1, most=1024)
HASHING_SLOTS = _number("HASHING_SLOTS", min(8, max(1, THREADS // 2)), least=1, most=1024)
HASHING_NICENESS = _number("HASHING_NICENESS", 10, least=0, most=19)
AUTH_PASSWORD_VALIDATORS = [
    {
        "NAME": "django.contrib.auth.password_validation.MinimumLengthValidator",
        "OPTIONS": {"min_length": 8},
    },
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
]

# Lifetimes of the API's tokens, in seconds.
ACCESS_TOKEN_SECONDS = _number("ACCESS_TOKEN_SECONDS", 3600, least=60, most=86400)
REFRESH_TOKEN_SECONDS = _number("REFRESH_TOKEN_SECONDS", 30 * 86400, least=3600, most=366 * 86400)
TOKEN_ISSUER = "viewingtime"
TOKEN_AUDIENCE = "viewingtime-api"

# How many wrong guesses at a password or PIN are let through, per e-mail or account and per
# address; and how many registrations, exchanges of refresh tokens, and files to take away.
RATELIMIT_ENABLED = _flag("RATELIMIT_ENABLED", default=True)
RATELIMITS: dict[str, Rate] = {
    "LOGIN_ACCOUNT": _rate("LOGIN_ACCOUNT", "10/15m"),
    "LOGIN_ADDRESS": _rate("LOGIN_ADDRESS", "100/15m"),
    "PIN_RESET": _rate("PIN_RESET", "5/30m"),
    "PIN_RESET_ADDRESS": _rate("PIN_RESET_ADDRESS", "50/30m"),
    "PIN_ADDRESS": _rate("PIN_ADDRESS", "50/30m"),
    "REGISTER_EMAIL": _rate("REGISTER_EMAIL", "10/1h"),
    "REGISTER_ADDRESS": _rate("REGISTER_ADDRESS", "300/1h"),
    "REFRESH_LOGIN": _rate("REFRESH_LOGIN", "60/15m"),
    "REFRESH_ADDRESS": _rate("REFRESH_ADDRESS", "300/15m"),
    "EXPORT": _rate("EXPORT", "30/1h"),
    "EXPORT_ADDRESS": _rate("EXPORT_ADDRESS", "300/1h"),
}
# Proxies whose `X-Forwarded-For` is believed.
TRUSTED_PROXIES = _networks("TRUSTED_PROXIES")

# Metrics: how often each process hands over what it counted, in seconds, and how long minutes,
# hours and days of it are kept apart.
METRICS_ENABLED = _flag("METRICS_ENABLED", default=True)
METRICS_FLUSH_SECONDS = _number("METRICS_FLUSH_SECONDS", 2, least=1, most=5)
METRICS_MINUTE_DAYS = _number("METRICS_MINUTE_DAYS", 2, least=1, most=30)
# The longest range of the admin's charts is 30 days, in steps shorter than a day.
METRICS_HOUR_DAYS = _number("METRICS_HOUR_DAYS", 30, least=30, most=400)
METRICS_DAY_DAYS = _number("METRICS_DAY_DAYS", 400, least=METRICS_HOUR_DAYS, most=4000)
INSTANCE_NAME = _text("INSTANCE_NAME", "").strip()
INSTANCE_NAME = INSTANCE_NAME or f"{socket.gethostname()}:{_text('PORT', '') or 8000}"
if not re.fullmatch(r"[A-Za-z0-9._:\[\]-]{1,200}", INSTANCE_NAME):
    raise ImproperlyConfigured(
        "INSTANCE_NAME must be 1 to 200 letters, digits or any of . _ : - [ ]: set it so, or "
        "leave it out."
    )
# Who may read /metrics: who asks from this host, who has the token, or nobody.
METRICS_ACCESS = _text("METRICS_ACCESS", "").strip().lower() or "loopback"
if METRICS_ACCESS not in {"loopback", "token", "off"}:
    raise ImproperlyConfigured("METRICS_ACCESS must be loopback, token or off.")
METRICS_TOKEN = ""
if METRICS_ACCESS == "token":
    METRICS_TOKEN = _secret("METRICS_TOKEN", "opens /metrics")
# Of so many heartbeats one is logged; 0 logs none.
HEARTBEAT_LOG_SAMPLE = _number("HEARTBEAT_LOG_SAMPLE", 1000, least=0, most=1_000_000)
# What adminmetrics shows of packages that it does not know, figures of the moment: label, note, and
# by its dotted path a callable that answers a whole number.
METRICS_LIVE_FIGURES = {
    "watching": ("Children watching", "now", "viewingtime.watching.children_watching"),
    "pins_locked": ("PINs locked", "now", "pins.verification.locked_now"),
}

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": ["parentalcontrols.authentication.AccountAuthentication"],
    "DEFAULT_PERMISSION_CLASSES": ["parentalcontrols.authentication.ParentOnly"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_PARSER_CLASSES": ["parentalcontrols.parsers.StrictJSONParser"],
    "DEFAULT_SCHEMA_CLASS": "parentalcontrols.schema.ProblemAwareSchema",
    "DEFAULT_CONTENT_NEGOTIATION_CLASS": "parentalcontrols.parsers.JSONOnlyNegotiation",
    "EXCEPTION_HANDLER": "parentalcontrols.problems.exception_handler",
    "UNAUTHENTICATED_USER": None,
    "COERCE_DECIMAL_TO_STRING": False,
}
SPECTACULAR_SETTINGS = {
    "TITLE": "Viewing time and parental controls",
    "DESCRIPTION": openapi_text.DESCRIPTION,
    "TAGS": openapi_text.TAGS,
    "VERSION": "0.1.0",
    "OAS_VERSION": "3.1.0",
    "SERVE_INCLUDE_SCHEMA": False,
    "SERVE_PERMISSIONS": ["rest_framework.permissions.AllowAny"],
    "SERVE_AUTHENTICATION": [],
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
    "COMPONENT_SPLIT_REQUEST": True,
    "SCHEMA_PATH_PREFIX": r"/api/v1",
    "ENUM_NAME_OVERRIDES": {},
}

# The longest request body, in bytes: a batch of 500 heartbeats needs about 200 kB.
MAX_BODY_BYTES = _number("MAX_BODY_BYTES", 1024 * 1024, least=65536, most=16 * 1024 * 1024)
DATA_UPLOAD_MAX_MEMORY_SIZE = MAX_BODY_BYTES
# How long a client may take for a request's head, for its body, and for each 64 KiB of an answer
# (parentalcontrols.worker), in seconds; and how many connections a process has at most.
CLIENT_SECONDS = _number("CLIENT_SECONDS", 20, least=1, most=300)
WORKER_CONNECTIONS = _number("WORKER_CONNECTIONS", 4096, least=16, most=100_000)

CORS_ALLOWED_ORIGINS = _origins("CORS_ALLOWED_ORIGINS")
CORS_ALLOW_HEADERS = ["authorization", "content-type", "idempotency-key", "x-request-id"]
CORS_URLS_REGEX = r"^/api/.*$"
CORS_EXPOSE_HEADERS = [
    "Retry-After",
    "X-Locked-Until",
    "X-Request-ID",
    "Content-Disposition",
]

CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": [NONE],
        "script-src": [SELF],
        "style-src": [SELF],
        "img-src": [SELF, "data:"],
        "font-src": [SELF],
        "connect-src": [SELF],
        "form-action": [SELF],
        "base-uri": [NONE],
        "frame-ancestors": [NONE],
    }
}

HTTPS_ONLY = _flag("HTTPS_ONLY")
SECURE_SSL_REDIRECT = False
SESSION_COOKIE_SECURE = HTTPS_ONLY
CSRF_COOKIE_SECURE = HTTPS_ONLY
SECURE_HSTS_SECONDS = 31536000 if HTTPS_ONLY else 0
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https") if HTTPS_ONLY else None
# What `check --deploy` asks for and is decided otherwise.
SILENCED_SYSTEM_CHECKS = [
    "security.W003",  # AdminCsrfViewMiddleware is Django's, for the pages that have cookies
    "security.W005",  # other hosts of the domain are not ours to bind to HTTPS
    "security.W008",  # a redirect is the proxy's: a token that came in the clear is known already
    "security.W021",  # nor is the browsers' preload list
]
SECURE_REFERRER_POLICY = "same-origin"
SESSION_COOKIE_HTTPONLY = True
X_FRAME_OPTIONS = "DENY"

USE_TZ = True
TIME_ZONE = "UTC"
LANGUAGE_CODE = "en-us"
USE_I18N = False
FORMAT_MODULE_PATH = "parentalcontrols.formats"
STATIC_URL = "/static/"
STATIC_ROOT = BASE_DIR / "staticfiles"
# Without a `collectstatic` the files are found with the packages they come from.
WHITENOISE_USE_FINDERS = True
warnings.filterwarnings("ignore", message="No directory at", category=UserWarning)
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
}

LOG_LEVEL = _text("LOG_LEVEL", "INFO").upper()
if LOG_LEVEL not in {"DEBUG", "INFO", "WARNING", "ERROR"}:
    raise ImproperlyConfigured("LOG_LEVEL must be DEBUG, INFO, WARNING or ERROR.")
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "json": {"()": "parentalcontrols.logs.formatter", "is_plain": False},
        "plain": {"()": "parentalcontrols.logs.formatter", "is_plain": True},
    },
    "filters": {
        # A 4xx is the client's affair, and a 503 is logged where it is decided.
        "ours": {
            "()": "django.utils.log.CallbackFilter",
            "callback": lambda record: getattr(record, "status_code", 500) != 503,
        },
        "request_id": {"()": "parentalcontrols.request_ids.RequestIdFilter"},
    },
    "handlers": {
        "stderr": {
            "class": "logging.StreamHandler",
            "formatter": "plain" if sys.stderr.isatty() else "json",
            "filters": ["request_id"],
        }
    },
    "root": {"handlers": ["stderr"], "level": LOG_LEVEL},
    "loggers": {
        "django.request": {"level": "ERROR", "filters": ["ours"]},
        "django.security.DisallowedHost": {"level": "CRITICAL"},
    },
}

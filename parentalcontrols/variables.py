"""What every environment variable means, by the table of docs/settings.md that it stands in.

What it may be and what it is when it is left out is noted where it is read (`environment.read`);
here is said only what cannot be seen there. `manage.py settings_table` makes the tables.
"""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Variable:
    """A variable: its meaning, and, where no reader notes it, its default and what is refused."""

    name: str
    meaning: str
    default: str | None = None
    wrong: str | None = None


#: Set by the tools themselves; docs/settings.md tells of them beside the tables.
INTERNAL: Final = frozenset(
    {
        *("SERVING", "SERVICE_STARTED", "TEST_DATABASE_NAME", "LINT_MIGRATIONS", "CI"),
        *("LAUNCHER_DATA_DIR", "SERVICES_ENV_OF"),
    }
)

TABLES: Final[dict[str, tuple[Variable, ...]]] = {
    "needed": (
        Variable(
            "DATABASE_URL",
            "PostgreSQL as a libpq URI, parameters such as `sslmode` included. "
            "`connect_timeout` is 2 s unless it says otherwise",
            wrong=(
                "unset, no address, or without a database: no start. A server that does not "
                "answer: the service starts and answers 503 until it does; `make run`, which "
                "migrates first, ends with a sentence"
            ),
        ),
        Variable(
            "REDIS_URL",
            "`redis://[:password@]host:port/0`, also `rediss://` and `unix://`",
            wrong=(
                "unset, or another scheme: no start. A server that does not answer is noticed "
                'in use: `/readyz` says `"cache": "unavailable"`'
            ),
        ),
        Variable(
            "SECRET_KEY",
            "signs the admin's sessions, and keys what is stored of limits on guessing and of "
            "repeats; 32 characters at least, 10 of them different, better 50 random ones",
            wrong=(
                "unset, weak: no start. A new value logs staff out, starts the counts of "
                "guesses afresh, and lets repeats of requests from before be refused as "
                "others (400)"
            ),
        ),
        Variable(
            "TOKEN_SIGNING_KEY",
            "signs access, refresh and PIN tokens; same demands, and not the same as `SECRET_KEY`",
            wrong=("unset, weak, the same: no start. A new value ends every token"),
        ),
        Variable(
            "ALLOWED_HOSTS",
            "host names that clients use, separated by commas; `.example.com` for all below",
            wrong=(
                "unset: no start. Requests to the admin with another `Host` get 400; the API "
                "does not look at it"
            ),
        ),
        Variable(
            "PIN_PEPPER",
            "mixed into each PIN before it is hashed; same demands, and not the same as the "
            "other two. Set it once and keep it",
            wrong=(
                "unset, weak, the same: no start. With another value no PIN fits any more, "
                "see [The pepper is lost](operations.md#the-pepper-is-lost)"
            ),
        ),
    ),
    "service": (
        Variable(
            "DEMO",
            "demo: without `ALLOWED_HOSTS` any host is allowed, and `seed_demo`, whose "
            "passwords are public, may run",
            default=(
                "false; true under `make run` where neither `DATABASE_URL` nor `REDIS_URL` is set"
            ),
        ),
        Variable(
            "HTTPS_ONLY",
            "the service is reached by HTTPS alone: cookies are secure, HSTS for a year, and "
            "`X-Forwarded-Proto: https` is believed. The proxy has to set or remove that "
            "header. There is no redirect",
        ),
        Variable(
            "CORS_ALLOWED_ORIGINS",
            "origins of web players, `https://host[:port]`, separated by commas; read once at "
            "the start. `Retry-After`, `X-Locked-Until` and `Content-Disposition` are exposed",
            default="none",
            wrong=("not an origin (`*`, a path, no scheme): no start"),
        ),
        Variable(
            "CSRF_TRUSTED_ORIGINS",
            "origins from which the admin's forms come, where a proxy ends TLS",
            default="none",
            wrong=("not an origin (`*`, a path, no scheme): no start"),
        ),
        Variable(
            "BASE_URL",
            "the service that `manage.py play` plays with",
            default="`http://127.0.0.1:8000`; under `make run` where it serves",
            wrong=("`play` says that nobody answers, and ends with 2"),
        ),
        Variable(
            "REQUEST_DEADLINE_MS",
            "how long a heartbeat, `session/end` or eligibility question may wait for the "
            "database in all. Waits for locks end 400 ms before",
        ),
        Variable(
            "STATEMENT_TIMEOUT_MS",
            "the server's limit for one statement of a web process",
        ),
        Variable(
            "ACCESS_TOKEN_SECONDS",
            "life of an access token",
        ),
        Variable(
            "REFRESH_TOKEN_SECONDS",
            "life of a refresh token, anew with each exchange",
            default="2592000 (30 days)",
        ),
        Variable(
            "PASSWORD_BCRYPT_ROUNDS",
            "cost of a password's hash; each step doubles the time. Passwords that are there "
            "keep the cost they were made with until they are changed",
        ),
        Variable(
            "PIN_BCRYPT_ROUNDS",
            "cost of a PIN's hash, likewise",
        ),
        Variable(
            "MAX_BODY_BYTES",
            "longest request body; more is a 413 on every path, also where no body is asked for",
        ),
        Variable(
            "HISTORY_RETENTION_DAYS",
            "how many viewing days before a child's running one `prune_history` keeps the "
            "single sessions of; 91 at least, since histories reach back 90 days",
        ),
        Variable(
            "DATABASE_PREPARED",
            "prepared statements, kept per connection. false for poolers that cannot, PgBouncer "
            "before 1.21 among them: parameters are bound here, and `DATABASE_POOLED` is true "
            "unless it says otherwise",
        ),
        Variable(
            "DATABASE_POOLED",
            "the address is that of a pooler in transaction mode: nothing is kept in a session, "
            "no cursor opened on the server, and no limit sent when connecting; "
            "[Behind PgBouncer](deployment.md#behind-pgbouncer)",
            default="true with `DATABASE_PREPARED=false`, else false",
        ),
        Variable(
            "LOG_LEVEL",
            "`DEBUG`, `INFO`, `WARNING`, `ERROR`, in either case",
            default="`INFO` for the application, `warning` for gunicorn; both where set",
            wrong=("anything else, or empty: no start"),
        ),
    ),
    "metrics": (
        Variable(
            "METRICS_ENABLED",
            "false: nothing is counted",
        ),
        Variable(
            "METRICS_FLUSH_SECONDS",
            "every so often each process hands over what it counted. A process that is killed "
            "outright loses what it counted since",
        ),
        Variable(
            "METRICS_MINUTE_DAYS",
            "for how many days minutes are kept apart",
            wrong=("no whole number from 1 to 30: no start"),
        ),
        Variable(
            "METRICS_HOUR_DAYS",
            "for how many days hours are kept apart; 30 at least, since the admin's charts reach "
            "back as far in steps of hours",
        ),
        Variable(
            "METRICS_DAY_DAYS",
            "for how many days whole days are kept apart",
            wrong=("no whole number from `METRICS_HOUR_DAYS` to 4000: no start"),
        ),
        Variable(
            "INSTANCE_NAME",
            "what this instance is called in the metrics; let it be the same after a restart",
            default="host name and `PORT`",
            wrong=("1 to 200 letters, digits or any of `. _ : - [ ]`, else no start"),
        ),
        Variable(
            "METRICS_ACCESS",
            "who may read `/metrics`: `loopback`, who asks from this host (by the peer's "
            "address, and never with a forwarding header); `token`, who sends `Authorization: "
            "Bearer` and `METRICS_TOKEN`; `off`, nobody",
            default="`loopback`",
            wrong=("anything else: no start"),
        ),
        Variable(
            "METRICS_TOKEN",
            "needed with `token`; same demands as for other secrets",
            default="none",
            wrong=("unset, weak: no start"),
        ),
        Variable(
            "HEARTBEAT_LOG_SAMPLE",
            "of so many heartbeats one is logged; 1: each, 0: none",
        ),
    ),
    "limits": (
        Variable(
            "RATELIMIT_LOGIN_ACCOUNT",
            "wrong passwords at log-in for one e-mail, the admin's log-in included. "
            "`count/period`: a period is a number and `s`, `m`, `h` or `d`, 31 days at most",
        ),
        Variable(
            "RATELIMIT_LOGIN_ADDRESS",
            "wrong passwords at log-in from one address",
        ),
        Variable(
            "RATELIMIT_PIN_RESET",
            "wrong passwords at `pin/reset` for one account",
        ),
        Variable(
            "RATELIMIT_PIN_RESET_ADDRESS",
            "wrong passwords at `pin/reset` from one address",
        ),
        Variable(
            "RATELIMIT_PIN_ADDRESS",
            "wrong PINs from one address, whosever they are; the PIN's own lock is beside it",
        ),
        Variable(
            "RATELIMIT_REGISTER_EMAIL",
            "registrations of one e-mail, successful or not",
        ),
        Variable(
            "RATELIMIT_REGISTER_ADDRESS",
            "registrations from one address, successful or not. `manage.py play` registers its "
            "families from one",
        ),
        Variable(
            "RATELIMIT_REFRESH_LOGIN",
            "exchanges of refresh tokens of one log-in, or of one child's device",
        ),
        Variable(
            "RATELIMIT_REFRESH_ADDRESS",
            "refresh tokens from one address that were not good",
        ),
        Variable(
            "RATELIMIT_EXPORT",
            "files that one account takes away: history and report as CSV, and its export",
        ),
        Variable(
            "RATELIMIT_EXPORT_ADDRESS",
            "files that one address takes away",
        ),
        Variable(
            "RATELIMIT_ENABLED",
            "false switches all of these off, for load tests; not the PIN's lock",
        ),
        Variable(
            "TRUSTED_PROXIES",
            "addresses and networks of proxies in front, separated by commas, whose "
            "`X-Forwarded-For` is believed: its last address that is none of theirs counts, with "
            "or without a port. **Needed behind a proxy**: without it all clients "
            "share the proxy's address, and 100 wrong passwords of anybody keep everybody out "
            "for a quarter of an hour. Name no network from which clients come: they could "
            "write any address",
            default="none",
            wrong=("no address or network: no start"),
        ),
        Variable(
            "HASHING_THREADS",
            "passwords and PINs that each web process hashes at a time. More than its share "
            "of the cores takes time from heartbeats",
        ),
        Variable(
            "HASHING_SLOTS",
            "requests of each process that may hash or wait for it, those included that wait "
            "for the 200 ms of a PIN; one more gets a 503, and an account or address that "
            "takes half of them already, too. 8, or half of `THREADS` where that is less. Set "
            "it below `THREADS`, so that threads are left for heartbeats",
            default="8",
            wrong=("no whole number from 1 to 1024: no start"),
        ),
        Variable(
            "HASHING_NICENESS",
            "how far hashing threads give way to others, on Linux",
        ),
    ),
    "heartbeats": (
        Variable(
            "CONFIG_CACHE_SECONDS",
            "how long a profile is known to the cache; the bound on what an invalidation "
            "costs that was lost with its process",
        ),
        Variable(
            "CONFIG_CACHE_ENTRIES",
            "how many profiles the cache knows; the least recently used go first",
        ),
        Variable(
            "DATABASE_POOL_SIZE",
            "connections of each process for everything but gathered beats, with "
            "`WORKER_CLASS=gevent`. Who finds none free for a second gets a 503. All in all "
            "`WORKERS` x (this + `HEARTBEAT_CREDITORS` + `HEARTBEAT_DECIDERS` + 1)",
        ),
        Variable(
            "HEARTBEAT_CREDITORS",
            "connections of each process that credit gathered beats",
        ),
        Variable(
            "HEARTBEAT_DECIDERS",
            "connections of each process for beats that open, end or change something",
        ),
    ),
    "web": (
        Variable(
            "BIND_HOST",
            "address to listen on, IPv6 too",
            default="`127.0.0.1` (Docker: `0.0.0.0`)",
            wrong=(
                "cannot listen: no start. The demo refuses addresses that others reach, "
                "unless `DEMO=true` is set"
            ),
        ),
        Variable(
            "PORT",
            "port to listen on",
            default="8000",
            wrong=("no whole number from 1 to 65535, or in use: no start"),
        ),
        Variable(
            "WORKERS",
            "processes, about one per core",
            default="2",
            wrong=("no whole number from 1 to 256: no start"),
        ),
        Variable(
            "WORKER_CLASS",
            "`gevent`: greenlets, in which heartbeats gather into common statements. "
            "`gthread`: threads, one statement a beat; a fifth as fast",
            wrong=("neither: no start"),
        ),
        Variable(
            "THREADS",
            "with `gthread`: threads per process, 1 to 1024; **each keeps a database "
            "connection**, and the metrics keep one more per process",
            wrong=(
                "no such number: no start. More than the database's `max_connections` allows: "
                "503 for those that get none"
            ),
        ),
        Variable(
            "WORKER_CONNECTIONS",
            "connections of each process, and no more than the files it may open, which it raises "
            "as far as it may. Beyond nine tenths of it the one whose last answer is longest ago, "
            "idle or slow, is closed for a new one",
        ),
        Variable(
            "CLIENT_SECONDS",
            "with `gevent`: seconds that a client has for a request's head, for its body, and for "
            "each 64 KiB of an answer",
        ),
        Variable(
            "MAX_REQUESTS",
            "a worker starts afresh after about so many requests (plus up to a tenth, by "
            "chance); 0 is never",
            default="0",
            wrong=("no whole number: no start"),
        ),
        Variable(
            "FORWARDED_ALLOW_IPS",
            "proxies whose forwarding headers gunicorn believes",
            default="`127.0.0.1`",
            wrong=("no address or network: no start"),
        ),
        Variable(
            "ACCESS_LOG",
            "a file for the access log, `-` for standard output",
            default="none",
            wrong=("a file that cannot be opened: no start"),
        ),
    ),
    "launcher": (
        Variable(
            "DATA_DIR",
            "database, logs, demo secrets, sockets; private to the account that runs it",
            default="`.data`",
            wrong=("in use by another launcher, or cannot be made: no start"),
        ),
        Variable(
            "PYTHON",
            "for `make`: what makes `.venv`",
            default="`python3`",
            wrong=("older than 3.11, or without venv: a sentence, no start"),
        ),
        Variable(
            "TMPDIR",
            "where sockets go if `DATA_DIR`'s path is too long for them, and the tests' "
            "throw-away servers",
            default="the system's",
            wrong=("no folder is short enough: a sentence, no start"),
        ),
    ),
}

"""The doctor on an operator's server: with an archive, and the role that the compose file makes."""

import json
import os
import subprocess

import psycopg
from psycopg.conninfo import make_conninfo

from parentalcontrols.embedded_servers import program_of_postgres
from parentalcontrols.processes import wait_until
from pins.tests.service import LONG, PYTHON, ROOT
from tests.restore.cluster import servers
from tests.restore.test_point_in_time import manage

ROLE = ROOT / "deploy" / "compose" / "role.sql"
PASSWORD = "it's a \\\\ password"


def test_a_sound_deployment_is_told_to_be_and_a_full_disk_is_foreseen() -> None:
    with servers() as (cluster, valkey):
        with psycopg.connect(cluster.url, autocommit=True) as connection:
            connection.execute("CREATE DATABASE viewingtime")
        superuser = make_conninfo(cluster.url, dbname="viewingtime")
        subprocess.run(
            [program_of_postgres("psql"), "-qXv", "ON_ERROR_STOP=1", "-f", ROLE, superuser],
            env={**os.environ, "SERVICE_PASSWORD": PASSWORD},
            check=True,
        )
        environment = {
            "DATABASE_URL": make_conninfo(superuser, user="viewingtime"),
            "REDIS_URL": valkey.url,
            "ALLOWED_HOSTS": "tv.example.com",
            "HTTPS_ONLY": "true",
        }
        manage("migrate", "-v0", **environment)
        cluster.archive_all()

        def states(*arguments: str) -> tuple[int, dict[str, str]]:
            done = subprocess.run(
                [*PYTHON, "manage.py", "doctor", "--json", *arguments],
                cwd=ROOT,
                env={**os.environ, **environment},
                capture_output=True,
                text=True,
                check=False,
            )
            return done.returncode, {f["name"]: f["state"] for f in json.loads(done.stdout)}

        code, found = states()
        assert code == 0, found
        assert not {"problem", "unknown"} & set(found.values())
        for name in ("archive", "disk of the log", "database durability", "hosts", "https"):
            assert found[name] == "ok"
        assert found["rights of the role"] == "ok"
        environment["DATABASE_URL"] = superuser
        code, found = states("--strict")
        assert (code, found["rights of the role"]) == (1, "warning")

        with psycopg.connect(cluster.url, autocommit=True) as connection:
            connection.execute("SELECT pg_create_physical_replication_slot('forgotten', true)")
            connection.execute("ALTER SYSTEM SET archive_timeout = '1s'")
            connection.execute("SELECT pg_reload_conf()")
            # The archive is full, as it were: what is not there yet cannot be put there.
            cluster.archive.rename(cluster.archive.with_name("away"))
            connection.execute("SELECT pg_switch_wal()")

            def fails() -> bool:
                query = "SELECT failed_count > 0 FROM pg_stat_archiver"
                return connection.execute(query).fetchone() == (True,)

            connection.execute("CREATE TABLE something (id integer)")
            connection.execute("SELECT pg_switch_wal()")
            assert wait_until(fails, LONG)
        code, found = states()
        assert code == 2
        assert found["archive"] == "problem"
        assert found["disk of the log"] == "warning"

# The service's image: Debian's Python, the requirements as wheels, the application; no compiler, no
# pip, no tests. It needs nothing of its own file system to be writable but /tmp (and /dev/shm):
#   docker run --read-only --tmpfs /tmp ...
#
# The base is pinned to Debian's point release. To pin it to its very bits, too, append the digest
# that `docker buildx imagetools inspect debian:12.15-slim` tells: debian:12.15-slim@sha256:...
ARG BASE=debian:12.15-slim

FROM ${BASE} AS build

RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates python3 python3-pip python3-venv \
    && rm -rf /var/lib/apt/lists/*

# Into an environment without pip of its own; what has no wheel is not built but refused.
WORKDIR /srv/viewing-time
COPY requirements.txt ./
RUN python3 -m venv --without-pip /opt/venv \
    && python3 -m pip --python /opt/venv/bin/python install \
        --no-cache-dir --disable-pip-version-check --only-binary :all: -r requirements.txt

COPY . .
# The settings want their secrets; these stand in for this one command and are gone afterwards.
RUN SECRET_KEY=only-to-collect-the-static-files-0123456789 \
    TOKEN_SIGNING_KEY=only-to-collect-the-static-files-9876543210 \
    PIN_PEPPER=only-to-collect-the-static-files-abcdefghij \
    DATABASE_URL=postgresql://nobody@127.0.0.1:1/nowhere \
    REDIS_URL=redis://127.0.0.1:1/0 \
    ALLOWED_HOSTS=localhost \
    /opt/venv/bin/python manage.py collectstatic --noinput \
    && /opt/venv/bin/python -m compileall -q .


FROM ${BASE}

LABEL org.opencontainers.image.title="viewing-time" \
    org.opencontainers.image.description="Viewing time and parental controls for a family streaming service" \
    org.opencontainers.image.licenses="Apache-2.0"

# Security updates of the day, which the base does not have yet.
RUN apt-get update \
    && apt-get upgrade -y \
    && apt-get install -y --no-install-recommends python3 \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/log/apt /var/log/dpkg.log \
    && useradd --uid 10001 --user-group --no-create-home --home-dir /nonexistent \
        --shell /usr/sbin/nologin viewingtime

COPY --from=build /opt/venv /opt/venv
COPY --from=build /srv/viewing-time /srv/viewing-time

ENV PATH=/opt/venv/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    BIND_HOST=0.0.0.0 \
    PORT=8000
WORKDIR /srv/viewing-time
# By number, so that whoever runs it can see that it is not root.
USER 10001:10001

EXPOSE 8000
# gunicorn finishes the requests under way, for 30 s at most: docker stop --time 40.
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s --retries=3 \
    CMD ["python", "-m", "parentalcontrols.liveness"]

# Migrations are a step of their own: docker run ... python manage.py migrate
CMD ["gunicorn", "parentalcontrols.wsgi:application", "-c", "parentalcontrols/gunicorn.conf.py"]

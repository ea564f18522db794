FROM python:3.11-slim

ENV PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    BIND_HOST=0.0.0.0 \
    PORT=8000

WORKDIR /app
COPY requirements.txt .
RUN pip install --no-cache-dir --disable-pip-version-check -r requirements.txt

COPY . .
# The settings want their secrets; these stand in for this one command and are gone afterwards.
RUN SECRET_KEY=only-to-collect-the-static-files-0123456789 \
    TOKEN_SIGNING_KEY=only-to-collect-the-static-files-9876543210 \
    PIN_PEPPER=only-to-collect-the-static-files-abcdefghij \
    DATABASE_URL=postgresql://nobody@127.0.0.1:1/nowhere \
    REDIS_URL=redis://127.0.0.1:1/0 \
    ALLOWED_HOSTS=localhost \
    python manage.py collectstatic --noinput

RUN useradd --system --no-create-home --shell /usr/sbin/nologin app
USER app

EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s CMD ["python", "-c", \
    "import os, urllib.request as r; host = os.environ['ALLOWED_HOSTS'].split(',')[0].strip(' .*') or 'localhost'; r.urlopen(r.Request('http://127.0.0.1:' + os.environ['PORT'] + '/livez', headers={'Host': host}), timeout=2)"]

# Migrations are a step of their own: docker run ... python manage.py migrate
CMD ["gunicorn", "parentalcontrols.wsgi:application", "-c", "parentalcontrols/gunicorn.conf.py"]

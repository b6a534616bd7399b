# One image for all processes; docker-compose.yml says which one a container runs.
FROM python:3.13-slim AS builtin
WORKDIR /app
ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 HOST=0.0.0.0
COPY requirements.lock .
RUN pip install --no-cache-dir --disable-pip-version-check --root-user-action=ignore -r requirements.lock
COPY saga saga
COPY orchestrator orchestrator
COPY service_a service_a
COPY service_b service_b
COPY service_c service_c
COPY ui ui
USER 10001:10001

# The same with Temporal's SDK and its development server (about 220 MB more): ENGINE=temporal.
FROM builtin AS temporal
USER root
COPY requirements-temporal.lock .
RUN pip install --no-cache-dir --disable-pip-version-check --root-user-action=ignore -r requirements-temporal.lock \
 && install -d -o 10001 -g 10001 /data
ENV USER=saga HOME=/tmp
USER 10001:10001

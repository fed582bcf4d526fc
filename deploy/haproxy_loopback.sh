#!/bin/sh
# Runs the HAProxy that comes with Ray Serve, after binding its statistics and metrics pages to
# loopback: Serve writes them into the configuration on all interfaces, with no setting for it.
# Called by Serve as `haproxy -db -f CONFIG ...`, again at every reload.
set -eu

config=""
previous=""
for argument in "$@"; do
    if [ "$previous" = "-f" ]; then config="$argument"; fi
    previous="$argument"
done

if [ -n "$config" ]; then
    pages="${RAY_SERVE_HAPROXY_STATS_PORT:-8404}|${RAY_SERVE_HAPROXY_METRICS_PORT:-9101}"
    sed -i -E "s/^([[:space:]]*bind) (\*|0\.0\.0\.0|::)?:($pages)\$/\1 127.0.0.1:\3/" "$config"
fi
exec "$_ORRERY_HAPROXY" "$@"

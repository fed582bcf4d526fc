#!/bin/sh
# Runs the HAProxy that comes with Ray Serve, after two changes to the configuration that Serve has
# no settings for. Its statistics and metrics pages are bound to loopback: Serve writes them on all
# interfaces. Where it writes them in another way there is no proxy, rather than an open one. A frontend for which there are rules in the platform's run folder, the one above the
# configuration's, has them before its own (deploy/front_door.py).
# Called by Serve as `haproxy -db -f CONFIG ...`, again at every reload.
set -eu

config=""
previous=""
for argument in "$@"; do
    if [ "$previous" = "-f" ]; then config="$argument"; fi
    previous="$argument"
done

if [ -n "$config" ]; then
    for port in "${RAY_SERVE_HAPROXY_STATS_PORT:-8404}" "${RAY_SERVE_HAPROXY_METRICS_PORT:-9101}"; do
        sed -i -E "s/^([[:space:]]*bind) (\*|0\.0\.0\.0|::)?:$port\$/\1 127.0.0.1:$port/" "$config"
        if ! grep -Eq "^[[:space:]]*bind 127\.0\.0\.1:$port\$" "$config"; then
            echo "$0: expected a page at port $port, to be bound to loopback" >&2
            exit 1
        fi
    done
    for frontend in http_frontend grpc_frontend; do
        rules="$(dirname "$config")/../$frontend.rules"
        if [ -f "$rules" ]; then sed -i "/^frontend $frontend\$/r $rules" "$config"; fi
    done
fi
exec "$_ORRERY_HAPROXY" "$@"

#!/bin/sh
# Starts the daemon with a small heap: it is idle nearly always, and what takes memory is done by its workers.
here=/usr/libexec/kcare
exec "$here/node" --max-semi-space-size=1 --max-old-space-size=96 --optimize-for-size \
    "$here/dist/bundle/libcare-server/libcare-server.js" "$@"

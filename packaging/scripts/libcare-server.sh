#!/bin/sh
# Starts the daemon with a small heap: it is idle nearly always, and what takes memory is done by its workers.
here=/usr/libexec/kcare
# Each request to the engine has a thread of its own; without this each leaves memory in an arena of its own.
MALLOC_ARENA_MAX=1 exec "$here/node" --max-semi-space-size=1 --max-old-space-size=96 --optimize-for-size \
    "$here/dist/bundle/libcare-server/libcare-server.js" "$@"

#!/usr/bin/env bash
# Runs a command after all other sessions of this machine: within a session `nice` is enough, between sessions it isn't.
{ echo 19 >/proc/self/autogroup; } 2>/dev/null || true
exec "$@"

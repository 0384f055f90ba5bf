#!/usr/bin/env bash
# Everything that must hold, cheap parts first. The Go tools and images of the test bed build in the background
# meanwhile, so a cold run waits for them only once.
set -euo pipefail
cd "$(dirname "$0")/.."
py=.venv/bin/python
logs=$(mktemp -d "${TMPDIR:-/tmp}/trainmaster-test.XXXX")
began=$SECONDS
say() { printf '\n[%3d:%02d] %s\n' $(((SECONDS - began) / 60)) $(((SECONDS - began) % 60)) "$*"; }

fast=${1:-}
cluster=yes
if [ "$fast" = "--fast" ]; then cluster="left out by --fast"
elif [ -n "${KUBECONFIG:-}" ]; then cluster=given
elif [ "$(uname -s)" != Linux ]; then cluster="left out: the test bed needs Linux (set KUBECONFIG to use your own cluster)"
elif [ "$(id -u)" != 0 ]; then cluster="left out: the test bed needs root (set KUBECONFIG to use your own cluster)"
fi

builds=
if [ "$fast" != "--fast" ] && [ "$(uname -s)" = Linux ]; then
  say "test-bed tools build in the background, log in $logs/build.log"
  nice $py -m testbed build >"$logs/build.log" 2>&1 &
  builds=$!
fi
up_by_us=
finish() {
  status=$?
  [ -n "$builds" ] && kill "$builds" 2>/dev/null || true
  [ -n "$up_by_us" ] && { say "taking the cluster down"; $py -m testbed down; }
  exit $status
}
trap finish EXIT

say "lint"
tools/lint.sh
say "unit tests"
$py -m pytest tests/unit -q
[ "$fast" = "--fast" ] && { say "cluster tests $cluster"; exit 0; }

if [ "$(uname -s)" != Linux ]; then
  say "integration and cluster tests left out: kube-apiserver is built for Linux here"
  exit 0
fi
wait_for_builds() {
  [ -n "$builds" ] || return 0
  say "$1"
  tail -n 3 -f --pid="$builds" "$logs/build.log" 2>/dev/null || true
  wait "$builds" || { cat "$logs/build.log"; exit 1; }
  builds=
}
wait_for_builds "waiting for the test-bed tools"
say "integration tests: real kube-apiserver, real Ray on this machine"
$py -m pytest tests/integration -q

case $cluster in
  yes)
    say "images"
    $py -m testbed images build
    if ! $py -m testbed status >/dev/null 2>&1; then up_by_us=1; fi
    say "cluster up"
    $py -m testbed up
    export KUBECONFIG; KUBECONFIG=$($py -m testbed kubeconfig)
    ;;
  given) ;;
  *) say "cluster tests $cluster"; exit 0 ;;
esac
say "end-to-end tests"
$py -m pytest tests/e2e -q --durations=15
say "all passed"

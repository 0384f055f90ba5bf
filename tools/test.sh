#!/usr/bin/env bash
# Everything that must hold, cheap parts first. The Go tools and the images of the test bed build in the background
# meanwhile, so that a cold run waits for little of it. Tests that mostly wait run side by side.
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

background() { # name, command: in a session of its own, so that a compiler ends with the build that started it; and
  # after everything else, also after the training processes of the tests, to which Ray gives a niceness of 15
  setsid tools/lowest.sh bash -ec "$2" >"$logs/$1.log" 2>&1 &
  echo $! >"$logs/$1.pid"
}
await() { # name, what for: show the log until the build has ended
  [ -f "$logs/$1.pid" ] || return 0
  local pid
  pid=$(cat "$logs/$1.pid")
  say "waiting for the test bed's $2"
  tail -n 3 -f --pid="$pid" "$logs/$1.log" 2>/dev/null || true
  wait "$pid" || { cat "$logs/$1.log"; exit 1; }
  rm "$logs/$1.pid"
}
failed=()
tests() { # arguments of pytest. A failure doesn't keep the later parts from running: a run names all that is wrong.
  # Properties are tried on the same examples everywhere; without the profile, as pytest alone does, on new ones.
  $py -m pytest -q --hypothesis-profile=ci "$@" || failed+=("$*")
}
ended() {
  [ ${#failed[@]} = 0 ] && { say "all passed"; exit 0; }
  say "failed:"
  printf '  %s\n' "${failed[@]}"
  exit 1
}
up_by_us=
finish() {
  status=$?
  for pid in "$logs"/*.pid; do [ -f "$pid" ] && kill -- "-$(cat "$pid")" 2>/dev/null || true; done
  [ -n "$up_by_us" ] && { say "taking the cluster down"; $py -m testbed down; }
  [ $status != 0 ] || rm -r "$logs"
  exit $status
}
trap finish EXIT

bed=
if [ "$fast" != "--fast" ] && [ "$(uname -s)" = Linux ]; then bed=yes; fi
if [ -n "$bed" ]; then
  say "the test bed's tools build in the background, logs in $logs"
  background tools "exec ${PYTHON:-python3} -m testbed.builds"
fi
make -s setup
if [ -n "$bed" ]; then
  after_tools="tail -f /dev/null --pid=$(cat "$logs/tools.pid")"
  # compilers want the cores and images the disk, so both together take little longer than one
  [ "$cluster" = yes ] && background images "$py -m testbed images build; $after_tools; exec $py -m testbed images unpack"
fi

say "lint"
tools/lint.sh
say "unit tests"
tests tests/unit -n 2
[ "$fast" = "--fast" ] && { say "cluster tests $cluster"; ended; }

if [ "$(uname -s)" != Linux ]; then
  say "integration and cluster tests left out: kube-apiserver is built for Linux here"
  ended
fi
await tools "Go tools"
say "integration tests: a real kube-apiserver"
tests tests/integration -m "not ray" -n 3 --durations=5

if [ "$cluster" = yes ]; then
  await images images
  if ! $py -m testbed status >/dev/null 2>&1; then up_by_us=1; fi
  say "cluster up"
  $py -m testbed up
  export KUBECONFIG; KUBECONFIG=$($py -m testbed kubeconfig)
fi
if [ -n "${KUBECONFIG:-}" ]; then
  say "end-to-end tests, two side by side"
  tests tests/e2e -m "not alone" -n 2 --dist loadscope --durations=20
  say "end-to-end tests that take the operator away, and beside them, because they mostly wait, a real Ray on this machine"
  tests tests/e2e tests/integration -m "alone or ray" -n 3 --dist loadscope --durations=10
else
  say "cluster tests $cluster"
  say "integration tests: a real Ray on this machine"
  tests tests/integration -m ray -n 2 --dist loadfile --durations=5
fi
ended

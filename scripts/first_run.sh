#!/usr/bin/env bash
# Be the newcomer: `make up`, the curl line it prints, stop, and look whether anything was left running.
set -euo pipefail
cd "$(dirname "$0")/.."
log=$(mktemp)
export ROWHOUSE_PORT="${ROWHOUSE_PORT:-8377}"

run_once() {
  local started=$SECONDS line answer pid
  : > "$log"
  make up > "$log" 2>&1 &
  local make_pid=$!
  until grep -q '^ *curl ' "$log"; do
    kill -0 "$make_pid" 2> /dev/null || { cat "$log"; echo "make up ended before it was up" >&2; exit 1; }
    [ $((SECONDS - started)) -lt 300 ] || { cat "$log"; echo "make up took more than 5 minutes" >&2; exit 1; }
    sleep 0.2
  done
  echo "$1 start: $((SECONDS - started)) s"
  line=$(grep -m 1 '^ *curl ' "$log")
  answer=$(bash -c "$line")
  printf '%s\n' "$answer" | head -c 300
  echo
  printf '%s' "$answer" | grep -q '"items"' || { echo "the printed curl line did not answer with items" >&2; exit 1; }
  pid=$(pgrep -f "$PWD/.venv/bin/.*rowhouse up" | head -n 1)
  kill -TERM "$pid"
  wait "$make_pid" || true
  if pgrep -f "$PWD/.(venv/bin|rowhouse)" > /dev/null; then
    pgrep -af "$PWD/.(venv/bin|rowhouse)" >&2
    echo "processes were left behind" >&2
    exit 1
  fi
}

run_once "first"
run_once "second"
echo "first run: as README says"

#!/bin/sh
# Write requirements.lock (to run) and requirements-dev.lock (to develop): names, versions and hashes for Python 3.11 and
# later on Linux and macOS. The build tools are in both, so that installing Rowhouse itself fetches nothing unhashed.
# Usage: make lock, or sh scripts/lock.sh PYTHON
set -eu

python=${1:-python3}
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

"$python" -m venv "$work/venv"
"$work/venv/bin/python" -m pip --disable-pip-version-check -qq install 'uv==0.13.9'

# hatchling needs editables for an editable install only, and so does not name it.
sed -n '/^\[build-system\]/,/^$/s/^requires = \["\(.*\)"\]$/\1/p' pyproject.toml > "$work/build.in"
grep -q '^hatchling==' "$work/build.in" || { echo "lock: pyproject.toml pins no hatchling in [build-system]" >&2; exit 1; }
echo editables >> "$work/build.in"

lock() {
  "$work/venv/bin/uv" pip compile pyproject.toml "$work/build.in" "$@" --universal --python-version 3.11 \
    --generate-hashes --no-header --no-annotate --upgrade --no-config --quiet
}

lock --output-file "$work/requirements.lock" > /dev/null
# The same versions in both, so that switching between them reinstalls nothing.
lock --extra dev --constraint "$work/requirements.lock" --output-file "$work/requirements-dev.lock" > /dev/null

for name in requirements.lock requirements-dev.lock; do
  if grep -nE '://|--index|--find-links' "$work/$name"; then
    echo "lock: $name names an address; remove it from the configuration of uv" >&2
    exit 1
  fi
  cp "$work/$name" "$name"
  echo "$name: $(grep -c '^[a-zA-Z]' "$name") packages"
done

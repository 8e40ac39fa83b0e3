#!/bin/sh
# Creates the Python environment of tests/suite/redis_door.rs below target/, unless it is already up to date.
set -eu
cd "$(dirname "$0")/../.."

wanted=tests/redis_clients/requirements.txt
folder=target/tools/redis_clients
installed=$folder/installed.txt

if cmp -s "$wanted" "$installed" && "$folder/bin/python" -c '' 2>/dev/null; then
    exit 0
fi
echo "installing: redis-py, into $folder"
rm -rf "$folder"
python3 -m venv "$folder"
# The pinned list is complete, so pip need not look for dependencies; and nothing is compiled on this machine.
"$folder/bin/pip" install --quiet --disable-pip-version-check --no-deps --only-binary :all: -r "$wanted"
# This is the last step, so that an interrupted installation starts again.
cp "$wanted" "$installed"

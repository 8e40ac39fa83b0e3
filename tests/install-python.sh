#!/bin/sh
# Creates a Python environment in target/tools/NAME for the packages in tests/NAME/requirements.txt, unless it is already
# up to date. Usage: install-python.sh NAME
set -eu
cd "$(dirname "$0")/.."

wanted=tests/$1/requirements.txt
folder=target/tools/$1
installed=$folder/installed.txt

if cmp -s "$wanted" "$installed" && "$folder/bin/python" -c '' 2>/dev/null; then
    exit 0
fi
echo "installing: Python packages of $wanted, into $folder"
rm -rf "$folder"
python3 -m venv "$folder"
# The pinned list is complete, so pip need not look for dependencies; and nothing is compiled on this machine.
"$folder/bin/pip" install --quiet --disable-pip-version-check --no-deps --only-binary :all: -r "$wanted"
# This is the last step, so that an interrupted installation starts again.
cp "$wanted" "$installed"

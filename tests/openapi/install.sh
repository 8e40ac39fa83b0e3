#!/bin/sh
# Makes the Python environment of tests/suite/openapi.rs below target/, unless it is there as it should be.
set -eu
cd "$(dirname "$0")/../.."

wanted=tests/openapi/requirements.txt
folder=target/tools/openapi
installed=$folder/installed.txt

if cmp -s "$wanted" "$installed" && "$folder/bin/python" -c '' 2>/dev/null; then
    exit 0
fi
echo "installing: schemathesis, into $folder"
rm -rf "$folder"
python3 -m venv "$folder"
# What is pinned is whole, and nothing of it is to be compiled here.
"$folder/bin/pip" install --quiet --disable-pip-version-check --no-deps --only-binary :all: -r "$wanted"
# Last, so that one that broke off is begun anew.
cp "$wanted" "$installed"

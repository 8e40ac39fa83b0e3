#!/bin/sh
# Installs the missing servers and programs that the tests start, from Debian's packages.
# Arguments name further programs: pairs of a package and a command. Without arguments, the script also creates a
# Python environment for the tests and downloads Redis servers of other versions than Debian's.
# It starts nothing: the tests start their own servers, on free ports.
set -eu

missing=""
need() { # need <package> <command or path>...
    package=$1
    shift
    for candidate in "$@"; do
        if command -v "$candidate" >/dev/null 2>&1; then
            return
        fi
    done
    missing="$missing $package"
}

need redis-server redis-server
need redis-tools redis-cli
need nginx-light nginx /usr/sbin/nginx
need haproxy haproxy /usr/sbin/haproxy
need postgresql /usr/lib/postgresql/*/bin/postgres
need pgbouncer pgbouncer /usr/sbin/pgbouncer
need prometheus promtool
need util-linux setpriv
need build-essential cc gcc clang
# The module venv is in a separate package, which also installs ensurepip.
need python3 python3
python3 -c 'import ensurepip, venv' 2>/dev/null || missing="$missing python3-venv"
need curl curl
need openssl openssl
need chromium chromium
need chromium-driver chromedriver
[ -e /usr/share/fonts/truetype/dejavu/DejaVuSans.ttf ] || missing="$missing fonts-dejavu-core"
[ -e /usr/include/stdio.h ] || missing="$missing libc6-dev"

environment=$((1 - ($# > 0)))
while [ $# -ge 2 ]; do
    need "$1" "$2"
    shift 2
done

install() {
    echo "installing:$missing"

    as_root=""
    if [ "$(id -u)" -ne 0 ]; then
        command -v sudo >/dev/null 2>&1 || {
            echo "packages are missing and sudo is not available; as root, run: apt-get install$missing" >&2
            exit 1
        }
        as_root=sudo
    fi

    # Debian starts the services of a package when it installs the package, unless this file forbids it
    # (https://people.debian.org/~hmh/invokerc.d-policyrc.d-specification.txt).
    policy=/usr/sbin/policy-rc.d
    if [ ! -e "$policy" ]; then
        printf '#!/bin/sh\nexit 101\n' | $as_root tee "$policy" >/dev/null
        $as_root chmod 755 "$policy"
        trap '$as_root rm -f "$policy"' EXIT
        trap 'exit 1' INT TERM HUP
    fi

    $as_root env DEBIAN_FRONTEND=noninteractive apt-get update -qq
    # shellcheck disable=SC2086 # $missing is a list and must be split
    $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing
}

[ -z "$missing" ] || install
if [ "$environment" -ne 0 ]; then
    "$(dirname "$0")/install-python.sh" openapi
    "$(dirname "$0")/install-python.sh" redis_clients
    "$(dirname "$0")/redis/install.sh"
fi

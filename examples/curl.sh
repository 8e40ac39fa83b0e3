#!/bin/sh
# A walk through the API with curl: PUT, GET, mset, mget, flush by pattern, stats.
#
#   examples/curl.sh [URL]        URL defaults to http://127.0.0.1:8080
#
# It writes only into the namespace `curl_demo`, and flushes that at the end.
set -eu

url=${1:-http://127.0.0.1:8080}
cache="${url%/}/api/v1/cache/curl_demo"

# step TITLE CURL-ARGUMENTS...: says what comes, does it, and stops the walk when it is refused.
step() {
    printf '\n# %s\n' "$1"
    shift
    curl --silent --show-error --fail-with-body --noproxy '*' "$@"
    printf '\n'
}

step 'is the service there? (if not: cargo run --release)' "${url%/}/livez"

step 'PUT: store a value for 60 seconds' \
    -X PUT "$cache/user_123" -d '{"value": {"name": "Ada", "visits": 1.50}, "ttl": 60}'

step 'GET: the value comes back byte for byte; the headers say hit, TTL and which tier answered' \
    -i "$cache/user_123"

step 'a "/" in a key is %2F in the path' \
    -X PUT "$cache/photos%2Fcat.jpg" -d '{"value": "meow"}'

step 'mset: several entries at once' \
    -X POST "$cache/mset" -d '{"entries": [
        {"key": "user_1", "value": {"name": "Grace"}},
        {"key": "user_2", "value": [1, 2, 3], "ttl": 60}
    ]}'

step 'mget: several keys at once; user_404 is a miss' \
    -X POST "$cache/mget" -d '{"keys": ["user_1", "user_2", "user_404"]}'

step 'flush by pattern: the three users go, the photo stays' \
    -X DELETE "$cache?pattern=user_*"

step 'list what is left' "$cache"

step 'stats: reads so far, keys and bytes now' "$cache/stats"

step 'flush the whole namespace' -X DELETE "$cache"

step 'who changed what, the newest first (a flush shows up within a moment)' \
    "${url%/}/api/v1/namespaces/curl_demo/audit?limit=3"

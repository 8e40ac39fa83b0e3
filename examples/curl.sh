#!/bin/sh
# A walk through the API with curl: PUT, GET, mset, mget, flush by pattern, stats.
#
#   examples/curl.sh [URL]        URL defaults to http://127.0.0.1:8080
#
# It only writes to the namespace `curl_demo`, and flushes it at the end.
set -eu

url=${1:-http://127.0.0.1:8080}
cache="${url%/}/api/v1/cache/curl_demo"

# step TITLE CURL-ARGUMENTS...: prints the title, sends the request, and stops if it fails.
step() {
    printf '\n# %s\n' "$1"
    shift
    curl --silent --show-error --fail-with-body --noproxy '*' "$@"
    printf '\n'
}

step 'is the service running? (if not: cargo run --release)' "${url%/}/livez"

step 'PUT: store a value for 60 seconds' \
    -X PUT "$cache/user_123" -d '{"value": {"name": "Ada", "visits": 1.50}, "ttl": 60}'

step 'GET: the value comes back byte for byte; the headers show hit, TTL and the tier that answered' \
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

step 'flush by pattern: deletes the three users, keeps the photo' \
    -X DELETE "$cache?pattern=user_*"

step 'list what is left' "$cache"

step 'stats: reads so far, keys and bytes now' "$cache/stats"

step 'flush the whole namespace' -X DELETE "$cache"

step 'the audit trail, newest first (a flush appears after a moment)' \
    "${url%/}/api/v1/namespaces/curl_demo/audit?limit=3"

#!/bin/sh
# A cache-aside loop with curl (7.83 or later), for any POSIX shell. Values must be one line.
set -u

case ${1-} in '' | *://*) echo 'usage: cache_aside.sh HOST:PORT NAMESPACE' >&2; exit 2 ;; esac
url="http://$1/api/v1/cache/$2"
resume=0 # if the cache does not answer, reads use the source until this second
source_of_truth=$(mktemp -d) # in your script: the database
trap 'rm -rf "$source_of_truth"' EXIT
newline='
'

# Encodes every byte as %XX, which works for any key in any shell.
encoded() { printf %s "$1" | od -An -v -tx1 | tr -d '\n' | tr ' ' '%'; }

# call METHOD PATH [OPTION...]: prints the answer, and then the header Cache-Lease and the status on a line; the status
# 000 means no answer in time. --max-time is more than the service's redis_timeout_ms, so that it can report a dead shard.
call() {
    method=$1 path=$2
    shift 2
    curl --silent --noproxy '*' --connect-timeout 0.1 --max-time 0.4 --write-out '\n%header{cache-lease} %{http_code}\n' \
        --request "$method" "$@" "$url/$path"
}

# A 404 without this code is not a miss: it comes from another server or path.
is_miss() { case $1 in *'"key_not_found"'*404) true ;; *) false ;; esac; }

load() { cat "$source_of_truth/$(encoded "$1")" 2>/dev/null; }

# Prints where the value came from, and the value. An error of `load` is passed on and not stored.
read_through() {
    path=$(encoded "$1")
    answer=
    if [ "$(date +%s)" -ge "$resume" ]; then
        answer=$(call GET "$path" --header 'Prefer: lease=10')
        # Another program is loading the value: wait for it.
        case ${answer##*"$newline"} in
            held*) answer=$(call GET "$path" --max-time 2.4 --header 'Prefer: lease=10, wait=2') ;;
        esac
        case $answer in *000) resume=$(($(date +%s) + 2)) ;; esac
    fi
    # The answer is {"value":...,"metadata":{...}}, and the metadata contains no braces.
    value=$(printf '%s\n' "$answer" | sed -n '1s/^{"value":\(.*\),"metadata":{[^{}]*}}$/\1/p')
    if [ -n "$value" ]; then
        printf 'cache %s\n' "$value"
        return
    fi
    lease=${answer##*"$newline"} # won;token="...";ttl=10 404
    token=$(printf '%s\n' "$lease" | sed -n 's/^won;token="\([^"]*\)".*/\1/p')
    if ! value=$(load "$1"); then
        # Give the lease up: the next program need not wait until it ends.
        if [ -n "$token" ]; then call DELETE "$path/lease" --header "Cache-Lease: $token" >/dev/null; fi
        return 1
    fi
    printf 'source %s\n' "$value"
    # Store only after a miss: otherwise storing would probably fail, too. While another program has the lease, it stores.
    case $lease in held*) return ;; esac
    if is_miss "$answer"; then
        # The answer 412 means that the key changed during the load. Then nothing is stored, which is right.
        call PUT "$path" ${token:+--header "Cache-Lease: $token"} \
            --data-binary "{\"value\": $value, \"ttl\": 300}" >/dev/null
    fi
}

# Call this after the source has changed. Fails if the cache may serve the old value until its TTL ends.
changed() {
    for pause in 0.05 0.1 0.2; do
        answer=$(call DELETE "$(encoded "$1")")
        case $answer in *200) return 0 ;; esac
        if is_miss "$answer"; then return 0; fi
        sleep "$pause" # also after `outcome_unknown`: deleting again is safe
    done
    return 1
}

# Reads lines from stdin: `read KEY`, or `change KEY VALUE` with a value in JSON.
while read -r word key value; do
    if [ "$word" = change ]; then
        printf %s "$value" >"$source_of_truth/$(encoded "$key")"
        if changed "$key"; then echo changed; else echo 'changed, and the cache does not know'; fi
    else
        read_through "$key" || echo 'error: not in the source'
    fi
done

#!/bin/sh
# A cache-aside loop with curl; any POSIX shell, values of one line.
set -u

case ${1-} in '' | *://*) echo 'usage: cache_aside.sh HOST:PORT NAMESPACE' >&2; exit 2 ;; esac
url="http://$1/api/v1/cache/$2"
resume=0 # after no answer at all, reads go to the source until this second
source_of_truth=$(mktemp -d) # in your script: the database
trap 'rm -rf "$source_of_truth"' EXIT

# Every byte as %XX: right for any key, in any shell.
encoded() { printf %s "$1" | od -An -v -tx1 | tr -d '\n' | tr ' ' '%'; }

# call METHOD KEY [BODY]: prints the answer, and its status as the last line; 000 is no answer in time.
# The whole timeout is more than the service's redis_timeout_ms: a dead shard is then its answer.
call() {
    curl --silent --noproxy '*' --connect-timeout 0.1 --max-time 0.4 --write-out '\n%{http_code}\n' \
        --request "$1" ${3:+--data-binary "$3"} "$url/$(encoded "$2")"
}

# A 404 of somebody else is no miss.
is_miss() { case $1 in *'"key_not_found"'*404) true ;; *) false ;; esac; }

load() { cat "$source_of_truth/$(encoded "$1")" 2>/dev/null; }

# Prints where the value came from, and the value. An error of `load` is passed on and never stored.
read_through() {
    answer=
    if [ "$(date +%s)" -ge "$resume" ]; then
        answer=$(call GET "$1")
        case $answer in *000) resume=$(($(date +%s) + 2)) ;; esac
    fi
    # The answer is {"value":...,"metadata":{...}}, and the metadata has no braces in it.
    value=$(printf '%s\n' "$answer" | sed -n '1s/^{"value":\(.*\),"metadata":{[^{}]*}}$/\1/p')
    if [ -n "$value" ]; then
        printf 'cache %s\n' "$value"
        return
    fi
    value=$(load "$1") || return
    printf 'source %s\n' "$value"
    # After any other answer, or none, storing would fail or wait as well.
    if is_miss "$answer"; then
        # Jitter: 270 to 330 s, so that what was stored in one moment does not expire in one moment.
        random=$(od -An -N2 -tu2 /dev/urandom)
        call PUT "$1" "{\"value\": $value, \"ttl\": $((270 + random % 61))}" >/dev/null
    fi
}

# To be called after the source has changed. Fails when the old value may be served until its TTL ends.
changed() {
    for pause in 0.05 0.1 0.2; do
        answer=$(call DELETE "$1")
        case $answer in *200) return 0 ;; esac
        if is_miss "$answer"; then return 0; fi
        sleep "$pause" # also after `outcome_unknown`: deleting again is safe, and tells
    done
    return 1
}

# Reads lines: `read KEY`, or `change KEY VALUE` with a value in JSON.
while read -r word key value; do
    if [ "$word" = change ]; then
        printf %s "$value" >"$source_of_truth/$(encoded "$key")"
        if changed "$key"; then echo changed; else echo 'changed, and the cache does not know'; fi
    else
        read_through "$key" || echo 'error: not in the source'
    fi
done

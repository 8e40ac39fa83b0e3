"""A cache-aside client of sidecache; Python 3.9 or later, standard library only."""

import http.client
import json
import random
import socket
import sys
import threading
import time
from urllib.parse import quote

CONNECT_TIMEOUT = 0.1  # seconds; the sidecar is on this machine or next to it
WHOLE_TIMEOUT = 0.4  # more than the service's redis_timeout_ms, so that it can report a dead shard before our timeout
REST = 1.0  # if the cache does not answer, reads use the source for this long


class Unavailable(Exception):
    """The cache did not answer, or its answer says nothing about the key."""


class _Socket(socket.socket):
    """One deadline for all reads of an answer; Python's own timeouts restart with each read."""

    deadline = 0.0

    def recv_into(self, *arguments):
        self.settimeout(max(0.001, self.deadline - time.monotonic()))
        return super().recv_into(*arguments)


class _Connection(http.client.HTTPConnection):
    def connect(self):
        super().connect()
        self.sock = _Socket(fileno=self.sock.detach())

    def exchange(self, method, path, body):
        deadline = time.monotonic() + WHOLE_TIMEOUT
        kept = self.sock is not None
        try:
            return self._exchange(method, path, body, deadline)
        except ConnectionError:
            self.close()
            if not kept:
                raise
            # The service closes idle connections (idle_timeout_ms). All calls here can be repeated.
            return self._exchange(method, path, body, deadline)

    def _exchange(self, method, path, body, deadline):
        if self.sock is None:
            self.connect()
        self.sock.deadline = deadline
        self.sock.settimeout(max(0.001, deadline - time.monotonic()))
        self.request(method, path, body)
        answer = self.getresponse()
        return answer.status, answer.read()  # read all of it, otherwise the connection cannot be reused


class Cache:
    """Use one for the whole program: each thread gets its own connection, which stays open between calls."""

    def __init__(self, host, port, namespace, ttl):
        self.host, self.port, self.ttl = host, port, ttl
        self.path = f"/api/v1/cache/{quote(namespace, safe='')}/"
        self.resume = 0.0
        self.local = threading.local()

    def read(self, key, load):
        """Returns the value of the key and where it came from. An exception of `load` is passed on, not stored."""
        try:
            value = self._get(key)
        except Unavailable as problem:
            print(f"reading {key} from the source: {problem}", file=sys.stderr)
            return load(key), "source"  # do not store it: the cache would not answer either
        if value is not None:
            return value["value"], "cache"
        loaded = load(key)
        # Jitter: values that are stored at the same time should not expire at the same time.
        ttl = max(1, round(self.ttl * random.uniform(0.9, 1.1)))
        try:
            self._call("PUT", key, json.dumps({"value": loaded, "ttl": ttl}))
        except Unavailable as problem:
            print(f"{key} is not cached: {problem}", file=sys.stderr)
        return loaded, "source"

    def changed(self, key):
        """Call this after the source has changed. False: the cache may serve the old value until its TTL ends."""
        for attempt in range(3):
            try:
                self._call("DELETE", key)  # 200 or 404
                return True
            except Unavailable as problem:  # also `outcome_unknown`: deleting again is safe and makes it clear
                print(f"{key}, attempt {attempt + 1}: {problem}", file=sys.stderr)
            time.sleep(0.05 * 2**attempt)
        return False

    def _get(self, key):
        if time.monotonic() < self.resume:
            raise Unavailable("the cache did not answer a moment ago")
        status, body = self._call("GET", key)
        if status == 404:
            return None
        try:
            return {"value": json.loads(body)["value"]}
        except (ValueError, TypeError, KeyError) as problem:
            raise Unavailable(f"no entry: {body[:200]!r}") from problem

    def _call(self, method, key, body=None):
        connection = getattr(self.local, "connection", None)
        if connection is None:
            connection = self.local.connection = _Connection(self.host, self.port, CONNECT_TIMEOUT)
        try:
            status, answer = connection.exchange(method, self.path + quote(key, safe=""), body)
        except (OSError, http.client.HTTPException) as problem:
            connection.close()  # the next call opens a new one
            self.resume = time.monotonic() + REST
            raise Unavailable(repr(problem)) from problem
        if status not in (200, 201) and not (status == 404 and b'"key_not_found"' in answer):
            raise Unavailable(f"{status} {answer[:200]!r}")
        return status, answer


def main():
    """Reads lines from stdin: `read KEY`, or `change KEY VALUE` with a value in JSON."""
    if len(sys.argv) != 3 or sys.argv[1].count(":") != 1:
        sys.exit("usage: cache_aside.py HOST:PORT NAMESPACE")
    host, port = sys.argv[1].split(":")
    cache = Cache(host, int(port), sys.argv[2], ttl=300)
    source = {}  # in your program: the database
    for line in sys.stdin:
        word, key, *value = line.rstrip("\n").split(" ", 2)
        if word == "change":
            source[key] = json.loads(value[0])
            print("changed" if cache.changed(key) else "changed, and the cache does not know", flush=True)
            continue
        try:
            value, origin = cache.read(key, source.__getitem__)
            print(origin, json.dumps(value), flush=True)
        except KeyError:
            print("error: not in the source", flush=True)


if __name__ == "__main__":
    main()

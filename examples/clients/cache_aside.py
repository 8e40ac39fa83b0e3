"""A cache-aside client of sidecache; Python 3.9 or later, standard library only."""

import http.client
import json
import re
import socket
import sys
import threading
import time
from urllib.parse import quote

CONNECT_TIMEOUT = 0.1  # seconds; the sidecar is on this machine or next to it
WHOLE_TIMEOUT = 0.4  # more than the service's redis_timeout_ms, so that it can report a dead shard before our timeout
LEASE = 10  # seconds; longer than a load takes
WAIT = 2  # seconds to wait for a value that another program loads
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

    def exchange(self, timeout, *request):
        deadline = time.monotonic() + timeout
        kept = self.sock is not None
        try:
            return self._exchange(deadline, *request)
        except ConnectionError:
            self.close()
            if not kept:
                raise
            # The service closes idle connections (idle_timeout_ms). All calls here can be repeated.
            return self._exchange(deadline, *request)

    def _exchange(self, deadline, *request):
        if self.sock is None:
            self.connect()
        self.sock.deadline = deadline
        self.sock.settimeout(max(0.001, deadline - time.monotonic()))
        self.request(*request)
        answer = self.getresponse()
        # Read all of it, otherwise the connection cannot be reused.
        return answer.status, answer.headers.get("Cache-Lease", ""), answer.read()


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
            value, lease = self._get(key)
        except Unavailable as problem:
            print(f"reading {key} from the source: {problem}", file=sys.stderr)
            return load(key), "source"  # do not store it: the cache would not answer either
        if value is not None:
            return value["value"], "cache"
        won = re.match('won;token="([^"]*)"', lease)
        headers = {"Cache-Lease": won[1]} if won else {}
        try:
            loaded = load(key)
        except BaseException:
            if won:  # give the lease up: the next program need not wait until it ends
                self._succeeds("DELETE", key, "/lease", headers=headers)
            raise
        if not lease.startswith("held"):  # otherwise the program that has the lease stores the value
            # 412 `lease_lost` means that the key changed during the load. Then nothing is stored, which is right.
            self._succeeds("PUT", key, body=json.dumps({"value": loaded, "ttl": self.ttl}), headers=headers)
        return loaded, "source"

    def changed(self, key):
        """Call this after the source has changed. False: the cache may serve the old value until its TTL ends."""
        for attempt in range(3):
            if self._succeeds("DELETE", key):  # 200 or 404
                return True
            time.sleep(0.05 * 2**attempt)  # also after `outcome_unknown`: deleting again is safe and makes it clear
        return False

    def _get(self, key):
        """The value, or the answer's `Cache-Lease`, which names the state of the lease on the key."""
        if time.monotonic() < self.resume:
            raise Unavailable("the cache did not answer a moment ago")
        status, lease, body = self._call("GET", key, headers={"Prefer": f"lease={LEASE}"})
        if lease.startswith("held"):
            # Another program is loading the value. The service answers, so waiting may take longer than the timeout.
            prefer = {"Prefer": f"lease={LEASE}, wait={WAIT}"}
            status, lease, body = self._call("GET", key, headers=prefer, timeout=WAIT + WHOLE_TIMEOUT)
        if status == 404:
            return None, lease
        try:
            return {"value": json.loads(body)["value"]}, lease
        except (ValueError, TypeError, KeyError) as problem:
            raise Unavailable(f"no entry: {body[:200]!r}") from problem

    def _succeeds(self, method, key, *arguments, **more):
        try:
            self._call(method, key, *arguments, **more)
            return True
        except Unavailable as problem:
            print(f"{method} {key}: {problem}", file=sys.stderr)
            return False

    def _call(self, method, key, suffix="", body=None, headers={}, timeout=WHOLE_TIMEOUT):
        connection = getattr(self.local, "connection", None)
        if connection is None:
            connection = self.local.connection = _Connection(self.host, self.port, CONNECT_TIMEOUT)
        try:
            path = self.path + quote(key, safe="") + suffix
            status, lease, answer = connection.exchange(timeout, method, path, body, headers)
        except (OSError, http.client.HTTPException) as problem:
            connection.close()  # the next call opens a new one
            self.resume = time.monotonic() + REST
            raise Unavailable(repr(problem)) from problem
        if status not in (200, 201) and not (status == 404 and b'"key_not_found"' in answer):
            raise Unavailable(f"{status} {answer[:200]!r}")
        return status, lease, answer


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

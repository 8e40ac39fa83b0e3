"""redis-py against the service, in RESP2 and RESP3: python redis_py.py <port>."""

import os
import sys

import redis

port = int(sys.argv[1])
for protocol in (2, 3):
    client = redis.Redis(port=port, protocol=protocol, client_name="test", username="py", password="any")
    assert client.ping() and client.client_getname() in ("test", b"test")
    client.flushdb()
    for value in (b"", bytes(range(256)), os.urandom(70_000), os.urandom(4 << 20)):
        assert client.set("k", value) and client.get("k") == value
    assert client.set("n", 5) and client.incr("n", 10) == 15 and client.decr("n") == 14
    assert client.set("lock", "me", nx=True, px=30_000) and not client.set("lock", "you", nx=True)
    assert client.set("lock", "you", xx=True, get=True) == b"me"
    with client.pipeline(transaction=True) as pipeline:
        pipeline.set("a", 1, ex=100).get("a").mget("a", "none").ttl("a")
        assert pipeline.execute() == [True, b"1", [b"1", None], 100]
    with client.pipeline(transaction=False) as pipeline:
        for i in range(1000):
            pipeline.set(f"x:{i}", i)
        assert all(pipeline.execute())
    assert len(set(client.scan_iter("x:*", count=100))) == 1000
    assert client.expire("a", 200, gt=True) and client.ttl("a") > 190
    assert client.persist("a") and client.ttl("a") == -1
    assert client.getex("a", ex=5) == b"1" and client.getdel("a") == b"1" and client.get("a") is None
    assert client.delete(*(f"x:{i}" for i in range(1000))) == 1000
    assert client.info()["redis_version"] and client.dbsize() == 3
    try:
        client.lpush("list", 1)
    except redis.ResponseError as error:
        assert "unknown command 'LPUSH'" in str(error)
    else:
        raise AssertionError("there are no lists")
    assert client.ping()
print("done")

"""Tells schemathesis what the document cannot say: limits in bytes, and cursors, which only the service makes."""

import base64

import schemathesis
from hypothesis import strategies as st

CHARACTERS = st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"])


def text(most: int) -> st.SearchStrategy[str]:
    return st.text(CHARACTERS, min_size=1, max_size=most).filter(lambda text: len(text.encode()) <= most)


def cursor(plain: str) -> st.SearchStrategy[str]:
    return st.just(base64.urlsafe_b64encode(plain.encode()).decode().rstrip("="))


schemathesis.openapi.format("sidecache-key", text(512).filter(lambda key: key not in ("stats", ".", "..")))
schemathesis.openapi.format("sidecache-tag", text(128))
schemathesis.openapi.format("sidecache-etags", st.sampled_from(["*", '"17"', 'W/"17"', '"17", "other"']))
# No shard has this name, so the position is of another ring.
schemathesis.openapi.format("sidecache-positions", st.sampled_from(['nowhere="8f14e45fceea167a.1.4711"']))
schemathesis.openapi.format("sidecache-pattern", text(1024))
schemathesis.openapi.format("sidecache-list-cursor", cursor("3\n0\n"))
schemathesis.openapi.format("sidecache-audit-cursor", cursor("audit1\n7"))
schemathesis.openapi.format("sidecache-log-cursor", cursor("log1\n7\n7"))


@schemathesis.hook
def filter_case(context, case) -> bool:
    """OpenAPI cannot say that two parameters exclude each other; tests/suite has tests of requests with both."""
    query = case.query if isinstance(case.query, dict) else {}
    return not ({"pattern", "tag"} <= query.keys() or {"mode", "source_version"} <= query.keys())

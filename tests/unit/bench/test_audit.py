"""What counts as a write of the operator."""

from __future__ import annotations

import json
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.bench import audit


def line(verb: str = "create", resource: str = "pods", **changes: Any) -> bytes:
    entry = {
        "stage": "ResponseComplete",
        "verb": verb,
        "user": {"username": "trainmaster-operator"},
        "objectRef": {"resource": resource, "apiGroup": changes.pop("group", "")},
        "responseStatus": {"code": 201},
        "requestReceivedTimestamp": "2026-11-21T09:00:01.500000Z",
        **changes,
    }
    if "subresource" in entry:
        entry["objectRef"]["subresource"] = entry.pop("subresource")
    return json.dumps(entry).encode() + b"\n"


def counted(*lines: bytes) -> Counter[str]:
    return audit.count(audit.parse(lines, "trainmaster-operator"), 0, 4e9)


def test_writes_by_verb_and_kind() -> None:
    found = counted(line(), line(), line("patch", "trainingjobs", subresource="status"), line("create", "events"))
    assert found == {"create pods": 2, "patch trainingjobs/status": 1, "create events": 1}


def test_reads_are_no_writes() -> None:
    assert not counted(line("get"), line("list"), line("watch"))


def test_a_refused_write_was_work_too() -> None:
    assert counted(line(responseStatus={"code": 409})) == {"create pods": 1}


def test_who_only_mentions_the_operator_is_not_the_operator() -> None:
    other = line(user={"username": "admin"}, userAgent="trainmaster-operator")
    assert not counted(other)


def test_reviews_and_leader_election_are_left_out() -> None:
    review = line("create", "tokenreviews", group="authentication.k8s.io")
    assert not counted(review, line("update", "leases", group="coordination.k8s.io"))


def test_other_stages_would_count_a_request_twice() -> None:
    assert counted(line(stage="RequestReceived"), line()) == {"create pods": 1}


def test_a_line_that_is_still_being_written_is_left_out() -> None:
    assert counted(line(), line()[:-20]) == {"create pods": 1}


def test_only_the_stretch_of_time_counts() -> None:
    at = datetime(2026, 11, 21, 9, 0, 1, 500000, UTC).timestamp()
    writes = list(audit.parse([line()], "trainmaster-operator"))
    assert writes[0].time == at
    assert audit.count(writes, at, at + 1).total() == 1
    assert audit.count(writes, at - 1, at).total() == 0


def test_read_from_a_file(tmp_path: Path) -> None:
    log = tmp_path / "audit.log"
    log.write_bytes(line() + line("delete"))
    assert [w.verb for w in audit.read(log, "trainmaster-operator")] == ["create", "delete"]

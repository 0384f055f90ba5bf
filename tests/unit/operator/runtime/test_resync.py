from trainmaster_operator.kube.trainingjob_cache import JobKey, JobStore
from trainmaster_operator.runtime import resync

from tests.unit.operator.kube.fake_api import FakeApi, connect

JOBS = "/apis/trainmaster.dev/v1alpha1/namespaces/ns/trainingjobs"


async def test_resync_finds_what_kopf_missed() -> None:
    api, jobs = FakeApi(), JobStore()
    gone: list[JobKey] = []
    for name in ("same", "changed", "deleted", "again"):
        jobs.put(api.put(JOBS, name))
    api.drop(JOBS, "deleted")
    api.drop(JOBS, "again")
    new = api.put(JOBS, "again")
    changed = api.put(JOBS, "changed", spec={"run": {"suspend": True}})
    api.put(JOBS, "unseen")
    async with connect(api) as client:
        await resync.compare(client, jobs, "ns", gone.append)
    assert sorted(key.name for key in jobs) == ["again", "changed", "same", "unseen"]
    assert sorted(key.name for key in gone) == ["again", "deleted"]
    assert jobs.get(JobKey("ns", "changed")) == changed
    assert jobs.get(JobKey("ns", "again")) == new
    assert api.count("GET") == 4, "one list, and a body only for what differs"


def test_resync_older_bodies_and_late_deletes_are_ignored() -> None:
    jobs = JobStore()

    def body(uid: str, version: int) -> dict[str, object]:
        meta = {"namespace": "ns", "name": "a", "uid": uid, "resourceVersion": str(version), "managedFields": [1]}
        return {"metadata": meta}

    key = JobKey("ns", "a")
    assert jobs.put(body("1", 5))
    assert not jobs.put(body("1", 5))
    assert not jobs.put(body("1", 4))
    assert jobs.put(body("2", 9))
    assert not jobs.remove(key, "1")
    stored = jobs.get(key)
    assert stored is not None
    assert stored["metadata"]["uid"] == "2"
    assert "managedFields" not in stored["metadata"]

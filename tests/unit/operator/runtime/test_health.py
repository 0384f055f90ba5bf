from aiohttp.test_utils import TestClient, TestServer
from trainmaster_operator.runtime.health import Health, application
from trainmaster_operator.runtime.metrics import Metrics


async def test_probes_tell_what_is_wrong() -> None:
    health, metrics, lag = Health(), Metrics(), [0.0]
    health.live["loop"] = Health.limit(lambda: lag[0], 5, "lag of the event loop")
    health.ready["pods"] = lambda: "not listed yet"
    metrics.request("create", "Pod", 201, 0.01)
    metrics.gauges("trainmaster_jobs", "Jobs.", "phase", lambda: {"Running": 3})
    async with TestClient(TestServer(application(health, metrics))) as client:
        assert (await client.get("/healthz")).status == 200
        lag[0] = 7.0
        answer = await client.get("/healthz")
        assert (answer.status, await answer.text()) == (503, "loop: lag of the event loop is 7.0 s, more than 5 s\n")
        answer = await client.get("/readyz")
        assert (answer.status, await answer.text()) == (503, "pods: not listed yet\n")
        text = await (await client.get("/metrics")).text()
    assert 'trainmaster_api_requests_total{code="201",kind="Pod",verb="create"} 1.0' in text
    assert 'trainmaster_jobs{phase="Running"} 3.0' in text

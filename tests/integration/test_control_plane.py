"""The control plane that the other integration tests stand on."""

import json
from pathlib import Path

import pytest

from testbed.control_plane import ControlPlane
from testbed.errors import BedError
from testbed.procs import start_ticks, wait_until


def test_two_run_side_by_side_and_leave_nothing(tmp_path: Path) -> None:
    audit = tmp_path / "audit.log"
    with ControlPlane(audit_log=audit) as one, ControlPlane() as two:
        assert one.server != two.server
        one.kubectl("create", "namespace", "only-here")
        assert "only-here" in one.kubectl("get", "namespaces")
        assert "only-here" not in two.kubectl("get", "namespaces")
        processes = {proc.pid: proc.started for plane in (one, two) for proc in plane.processes.all()}
        assert len(processes) == 4
    assert [pid for pid, started in processes.items() if start_ticks(pid) == started] == []
    assert not one.state.exists()
    requests = [json.loads(line) for line in audit.read_text().splitlines()]
    assert any(r["verb"] == "create" and r["objectRef"].get("name") == "only-here" for r in requests)


def test_another_identity_has_only_its_rights(control_plane: ControlPlane) -> None:
    nobody = control_plane.client_kubeconfig("nobody", "nobody")
    with pytest.raises(BedError, match=r'User "nobody" cannot list'):
        control_plane.kubectl("get", "secrets", f"--kubeconfig={nobody}")


def test_pods_run_on_fake_nodes() -> None:
    with ControlPlane(with_controller_manager=True, kwok_nodes=2) as plane:
        plane.kubectl("create", "deployment", "web", "--image=any", "--replicas=5")
        assert wait_until(lambda: "5/5" in plane.kubectl("get", "deployment", "web"), 60)


def test_a_flag_that_the_api_server_refuses_is_shown() -> None:
    with (
        pytest.raises(BedError, match=r"kube-apiserver ended[\s\S]*no-such-flag"),
        ControlPlane(apiserver_flags=["--no-such-flag"]),
    ):
        pass

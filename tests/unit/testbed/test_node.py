"""What is taken away with a node."""

from pathlib import Path

from testbed.node import _remove_cni_results


def test_stop_removes_only_records_of_its_own_pods(tmp_path: Path) -> None:
    results = tmp_path / "results"
    results.mkdir()
    for node in ("n1", "n11"):
        (results / node).write_text(f'{{"netns": "/run/bed/{node}/netns"}}')
    (results / "gone").symlink_to(results / "no-such-file")  # listed, and not there when it is read
    _remove_cni_results(Path("/run/bed/n1"), results)
    assert sorted(path.name for path in results.iterdir()) == ["gone", "n11"]

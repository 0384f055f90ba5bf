import pytest
from trainmaster_operator.runtime.config import parse


def test_flags_before_environment_before_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRAINMASTER_QPS", "77")
    monkeypatch.setenv("TRAINMASTER_BURST", "78")
    monkeypatch.setenv("TRAINMASTER_NAMESPACES", "a, b,")
    config = parse(["--qps", "5", "--namespace", "ops"])
    assert (config.qps, config.burst, config.concurrency) == (5.0, 78, 16)
    assert config.namespaces == ("a", "b")
    assert config.defaults.progress_url == "https://trainmaster-operator.ops.svc:8443/v1/progress"
    assert config.progress_names == ("trainmaster-operator.ops.svc",)


def test_every_start_is_a_candidate_of_its_own() -> None:
    assert parse(["--pod-name", "p"]).identity != parse(["--pod-name", "p"]).identity


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--progress-url", "http://x/v1/progress"], "an https:// URL is required"),
        (["--tls-files", "a,b"], "three files are required"),
        (["--lease-seconds", "0"], "must be at least 1"),
        (["--storage-uri", "s3://runs//x"], "--storage-uri 's3://runs//x' contains `//`"),
        (["--default-tracking", "mlflow"], "Invalid JSON"),
        (["--default-tracking", '{"mlflow": {}}'], "a list like spec.tracking is required"),
        (["--default-tracking", '[{"wandb": {}}]'], "0.wandb: "),
        (["--default-tracking", "[{}]"], "needs exactly one of mlflow, class"),
        (["--default-tracking", '[{"class": "a:B"}]'], "a `class` has no defaults"),
        (["--qps", "fast"], "invalid float value"),
        (["--log-format", "xml"], "invalid choice"),
    ],
)
def test_a_bad_flag_gets_a_sentence(flags: list[str], sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        parse(flags)
    assert sentence in capsys.readouterr().err


def test_default_tracking_is_read_as_the_spec_s() -> None:
    found = parse(["--default-tracking", '[{"mlflow": {"uri": "http://mlflow:5000"}}]']).defaults.default_tracking
    assert [entry.wire() for entry in found] == [{"mlflow": {"uri": "http://mlflow:5000"}}]

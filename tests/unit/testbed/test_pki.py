import json
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from testbed.pki import Authority


def load(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


def test_a_certificate_carries_identity_and_names(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    pair = authority.issue("api", "kube-apiserver", "system:masters", ["kubernetes", "10.96.0.1", "kubernetes"])
    cert = load(pair.cert)
    assert cert.subject.rfc4514_string() == "O=system:masters,CN=kube-apiserver"
    names = cert.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["kubernetes"]
    assert [str(address) for address in names.get_values_for_type(x509.IPAddress)] == ["10.96.0.1"]
    cert.verify_directly_issued_by(load(authority.ca.cert))


def test_keys_are_for_their_owner_only(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "pki")
    authority.issue("a", "a")
    kubeconfig = authority.kubeconfig(tmp_path / "kubeconfig", "https://x", authority.issue("a", "a"))
    for path in [*(tmp_path / "pki").glob("*.key"), kubeconfig]:
        assert path.stat().st_mode & 0o077 == 0, path


def test_asking_again_gives_the_same(tmp_path: Path) -> None:
    first = Authority(tmp_path).issue("a", "a").cert.read_bytes()
    assert Authority(tmp_path).issue("a", "a").cert.read_bytes() == first


def test_a_kubeconfig_needs_no_other_file(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "pki")
    path = authority.kubeconfig(tmp_path / "config", "https://10.20.0.1:6443", authority.issue("a", "a"))
    assert str(tmp_path) not in path.read_text()
    assert json.loads(path.read_text())["clusters"][0]["cluster"]["server"] == "https://10.20.0.1:6443"


def test_the_accounts_key_is_a_pair(tmp_path: Path) -> None:
    pair = Authority(tmp_path).signing_key("sa")
    from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key

    private = load_pem_private_key(pair.key.read_bytes(), None)
    public = load_pem_public_key(pair.cert.read_bytes())
    assert isinstance(private, ec.EllipticCurvePrivateKey)
    assert private.public_key() == public

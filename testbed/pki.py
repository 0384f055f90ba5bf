"""Certificates and kubeconfigs: one throw-away CA per bed. EC keys, since RSA costs seconds."""

import base64
import datetime
import ipaddress
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_VALID = datetime.timedelta(days=365)


@dataclass(frozen=True)
class Pair:
    """A certificate and its key, as PEM files."""

    cert: Path
    key: Path


def subject_names(names: Sequence[str]) -> list[x509.GeneralName]:
    """Subject alternative names: what parses as an address becomes one, the rest are DNS names."""
    found: list[x509.GeneralName] = []
    for name in dict.fromkeys(names):
        try:
            found.append(x509.IPAddress(ipaddress.ip_address(name)))
        except ValueError:
            found.append(x509.DNSName(name))
    return found


class Authority:
    """A certificate authority in a folder; asking twice for the same name gives the same files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.ca = Pair(folder / "ca.crt", folder / "ca.key")
        if not self.ca.cert.exists():
            self._create_ca()

    def _create_ca(self) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "trainmaster-bed")])
        usage = x509.KeyUsage(True, False, False, False, False, True, True, False, False)
        cert = (
            _builder(name, name, key.public_key())
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(usage, critical=True)
            .sign(key, hashes.SHA256())
        )
        _write(self.ca, cert, key)

    def issue(self, file: str, user: str, group: str = "", names: Sequence[str] = ()) -> Pair:
        """A certificate for client and server use: `user` and `group` are the Kubernetes identity."""
        pair = Pair(self.folder / f"{file}.crt", self.folder / f"{file}.key")
        if pair.cert.exists():
            return pair
        ca_key = serialization.load_pem_private_key(self.ca.key.read_bytes(), password=None)
        assert isinstance(ca_key, ec.EllipticCurvePrivateKey)
        ca_cert = x509.load_pem_x509_certificate(self.ca.cert.read_bytes())
        key = ec.generate_private_key(ec.SECP256R1())
        attributes = [x509.NameAttribute(NameOID.COMMON_NAME, user)]
        if group:
            attributes.append(x509.NameAttribute(NameOID.ORGANIZATION_NAME, group))
        builder = _builder(x509.Name(attributes), ca_cert.subject, key.public_key()).add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]), critical=False
        )
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(subject_names(names)), critical=False)
        _write(pair, builder.sign(ca_key, hashes.SHA256()), key)
        return pair

    def signing_key(self, file: str) -> Pair:
        """A bare key pair, for service-account tokens."""
        pair = Pair(self.folder / f"{file}.pub", self.folder / f"{file}.key")
        if not pair.cert.exists():
            key = ec.generate_private_key(ec.SECP256R1())
            _write_key(pair.key, key)
            pem = serialization.PublicFormat.SubjectPublicKeyInfo
            pair.cert.write_bytes(key.public_key().public_bytes(serialization.Encoding.PEM, pem))
        return pair

    def kubeconfig(self, path: Path, server: str, pair: Pair) -> Path:
        """Write a kubeconfig that holds its certificates, so that it works from any folder."""

        def data(file: Path) -> str:
            return base64.b64encode(file.read_bytes()).decode()

        cluster = {"server": server, "certificate-authority-data": data(self.ca.cert)}
        user = {"client-certificate-data": data(pair.cert), "client-key-data": data(pair.key)}
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "bed", "cluster": cluster}],
            "users": [{"name": "user", "user": user}],
            "contexts": [{"name": "bed", "context": {"cluster": "bed", "user": "user"}}],
            "current-context": "bed",
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)
        path.write_text(json.dumps(config, indent=1))
        return path


def _builder(subject: x509.Name, issuer: x509.Name, public: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        # a machine whose clock was just set back must not see certificates from the future
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + _VALID)
    )


def _write(pair: Pair, cert: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
    _write_key(pair.key, key)
    pair.cert.write_bytes(cert.public_bytes(serialization.Encoding.PEM))


def _write_key(path: Path, key: ec.EllipticCurvePrivateKey) -> None:
    path.touch(mode=0o600)
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path.write_bytes(pem)

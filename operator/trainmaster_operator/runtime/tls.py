"""The certificate of the progress and admission endpoint.

Jobs carry the CA in their Secret, so it must outlive the operator's process: it is kept in one Secret of the operator's
namespace and made on the first start. A chart may give files instead (cert-manager), which someone else renews.
"""

from __future__ import annotations

import asyncio
import base64
import ipaddress
import logging
import ssl
import tempfile
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from trainmaster_operator.kube.client import SECRETS, WEBHOOKS, Client, Object
from trainmaster_operator.kube.errors import AlreadyExistsError, ApiError, NotFoundError

if TYPE_CHECKING:
    from cryptography import x509

logger = logging.getLogger(__name__)

YEARS = 10
NAMES_ANNOTATION = "trainmaster.dev/names"


@dataclass(frozen=True)
class Certificates:
    """PEM texts: the CA that clients trust, the server's certificate, its key."""

    ca: str
    cert: str
    key: str

    def server_context(self) -> ssl.SSLContext:
        """Return a context for a server."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self.serve_in(context)
        return context

    def serve_in(self, context: ssl.SSLContext) -> None:
        """Use these for every connection that the context accepts from now on."""
        # Python's ssl reads certificates from files only
        with tempfile.TemporaryDirectory() as folder:
            cert, key = Path(folder, "tls.crt"), Path(folder, "tls.key")
            cert.write_text(self.cert)
            key.touch(mode=0o600)
            key.write_text(self.key)
            context.load_cert_chain(cert, key)


def from_files(ca: Path, cert: Path, key: Path) -> Certificates:
    """Return certificates from files that are managed externally."""
    return Certificates(ca=ca.read_text(), cert=cert.read_text(), key=key.read_text())


async def ensure(
    client: Client, namespace: str, secret: str, names: tuple[str, ...], have: Certificates | None = None
) -> Certificates:
    """Return the certificates in the Secret; create them if missing, or if they don't cover the names.

    Replicas that start together agree: the second one takes what the first one created.

    Args:
        client: Where the Secret is.
        namespace: Of the Secret.
        secret: Its name.
        names: What the certificate has to cover.
        have: What is served already: stays if the Secret is for other names by now, and goes into one that was
            deleted, because running jobs trust this CA.
    """
    try:
        body = await client.get(SECRETS, namespace, secret)
    except NotFoundError:
        try:
            body = await client.create(SECRETS, namespace, _secret(namespace, secret, names, have or generate(names)))
            logger.info("stored the CA and the certificate for %s in Secret %s/%s", ", ".join(names), namespace, secret)
        except AlreadyExistsError:
            body = await client.get(SECRETS, namespace, secret)
    if body["metadata"].get("annotations", {}).get(NAMES_ANNOTATION) != ",".join(names):
        if have is not None:  # a replica with another name has come: two that correct each other would never end
            return have
        # The service was renamed. Jobs that run now trust the old CA: their progress is dropped until they end.
        logger.warning(
            "the certificate in %s/%s isn't valid for %s: creating a new one", namespace, secret, ", ".join(names)
        )
        fresh = _secret(namespace, secret, names, generate(names))
        fresh["metadata"]["resourceVersion"] = body["metadata"]["resourceVersion"]
        body = await client.replace(SECRETS, fresh)
    data = {name: base64.b64decode(value).decode() for name, value in body["data"].items()}
    return Certificates(ca=data["ca.crt"], cert=data["tls.crt"], key=data["tls.key"])


async def publish(client: Client, webhook: str, ca: str) -> None:
    """Write the CA into our ValidatingWebhookConfiguration, unless it is there."""
    body = await client.get(WEBHOOKS, None, webhook)
    bundle = base64.b64encode(ca.encode()).decode()
    configs = [hook["clientConfig"] for hook in body.get("webhooks") or []]
    if any(config.get("caBundle") != bundle for config in configs):
        for config in configs:
            config["caBundle"] = bundle
        await client.replace(WEBHOOKS, body)


async def follow(
    read: Callable[[Certificates], Awaitable[Certificates]], now: Certificates, context: ssl.SSLContext, period: float
) -> None:
    """Serve renewed certificates. Returns when the CA has changed: peers and new jobs get it at the start.

    Args:
        read: Gives the certificates as they are now, knowing those that are served.
        now: What the context serves.
        context: Of the running server.
        period: Seconds between two reads.
    """
    while True:
        await asyncio.sleep(period)
        try:
            found = await read(now)
            if found == now:
                continue
            found.server_context()  # files that are half written, or a key that isn't the certificate's, end here
            if found.ca != now.ca:
                logger.warning(
                    "the CA has changed: running jobs trust the old one, so their progress messages will be dropped"
                )
                return
            found.serve_in(context)
            now = found
            logger.info("serving the renewed certificate")
        except (OSError, ApiError, KeyError, ValueError) as error:  # ssl.SSLError is an OSError; no such key, no base64
            logger.warning("can't load the renewed certificate, retrying in %.0f s: %r", period, error)


def _secret(namespace: str, name: str, names: tuple[str, ...], made: Certificates) -> Object:
    texts = {"ca.crt": made.ca, "tls.crt": made.cert, "tls.key": made.key}
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "kubernetes.io/tls",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "labels": {"app.kubernetes.io/part-of": "trainmaster", "app.kubernetes.io/component": "operator"},
            "annotations": {NAMES_ANNOTATION: ",".join(names)},
        },
        "data": {name: base64.b64encode(text.encode()).decode() for name, text in texts.items()},
    }


def generate(names: tuple[str, ...]) -> Certificates:
    """Create a CA and a certificate signed by it for DNS names and IP addresses; the CA's key is discarded."""
    # Only the very first start needs it: every later one saves its 10 MB of memory.
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    now = datetime.now(UTC)

    def build(subject: str, issuer: str, public: ec.EllipticCurvePublicKey, ca: bool) -> x509.CertificateBuilder:
        def name(text: str) -> x509.Name:
            return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])

        return (
            x509.CertificateBuilder()
            .subject_name(name(subject))
            .issuer_name(name(issuer))
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(hours=1))  # clocks of nodes differ
            .not_valid_after(now + timedelta(days=365 * YEARS))
            .add_extension(x509.BasicConstraints(ca=ca, path_length=0 if ca else None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        )

    ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
    ca = (
        build("trainmaster-ca", "trainmaster-ca", ca_key.public_key(), ca=True)
        .add_extension(usage, critical=True)
        .sign(ca_key, hashes.SHA256())
    )
    alternatives = x509.SubjectAlternativeName([_general_name(name) for name in names])
    issued_by = x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key())
    cert = (
        build(names[0][:64], "trainmaster-ca", key.public_key(), ca=False)
        .add_extension(alternatives, critical=False)
        .add_extension(issued_by, critical=False)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return Certificates(ca.public_bytes(pem).decode(), cert.public_bytes(pem).decode(), private.decode())


def _general_name(name: str) -> x509.GeneralName:
    from cryptography import x509

    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)

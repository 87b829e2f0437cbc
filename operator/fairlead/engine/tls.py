"""The engine's own TLS: a CA in its volume, and a server certificate that the process makes at each start.

The CA's public part goes into the ConfigMap `fairlead-engine-ca`; its key never leaves the volume. Each certificate is
renewed when half of its time is over, the CA's with the same key, so that who trusts the old one trusts what it signs.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

CA_DAYS = 3650
SERVER_DAYS = 90
BACKDATED = timedelta(hours=3)
"""Clocks of nodes that differ by less do not keep anybody from taking a new certificate."""


@dataclass(frozen=True, slots=True)
class Identity:
    """The files that the server needs, the CA as PEM text for who verifies it, and when half of the time is over."""

    certificate: Path
    key: Path
    ca_pem: str
    renew_at: datetime

    def due(self, now: datetime | None = None) -> bool:
        """Tell whether it is time for a new one."""
        return (now or datetime.now(UTC)) >= self.renew_at


def identity(directory: Path, *, names: tuple[str, ...], now: datetime | None = None) -> Identity:
    """Return the engine's TLS identity: a fresh server certificate each time; the CA is made or renewed if need be.

    Args:
        directory: where the files live, on the engine's volume; made if absent, readable by us only.
        names: the DNS names of the server certificate.
        now: the time from which the certificates hold; the current time by default.
    """
    since = now or datetime.now(UTC)
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    ca_file, ca_key_file = directory / "ca.crt", directory / "ca.key"
    if not ca_file.exists() or not ca_key_file.exists():
        _write(ca_key_file, _private(ec.generate_private_key(ec.SECP256R1())))
        ca_file.unlink(missing_ok=True)
    ca_key = serialization.load_pem_private_key(ca_key_file.read_bytes(), password=None)
    assert isinstance(ca_key, ec.EllipticCurvePrivateKey)
    if not ca_file.exists() or since >= _half(x509.load_pem_x509_certificate(ca_file.read_bytes())):
        _make_ca(ca_file, ca_key, since)
    ca = x509.load_pem_x509_certificate(ca_file.read_bytes())
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = (
        _builder(names[0], ca.subject, key, since, SERVER_DAYS)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), critical=False)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    found = Identity(directory / "tls.crt", directory / "tls.key", ca_file.read_text("ascii"), _half(certificate))
    _write(found.key, _private(key))
    _write(found.certificate, certificate.public_bytes(serialization.Encoding.PEM))
    return found


def _make_ca(ca_file: Path, key: ec.EllipticCurvePrivateKey, since: datetime) -> None:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "fairlead-engine-ca")])
    certificate = (
        _builder("fairlead-engine-ca", subject, key, since, CA_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    _write(ca_file, certificate.public_bytes(serialization.Encoding.PEM))


def _half(certificate: x509.Certificate) -> datetime:
    """Return when half of a certificate's time is over."""
    begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    return begin + (end - begin) / 2


def _builder(
    common_name: str, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, since: datetime, days: int
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)]))
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(since - BACKDATED)
        .not_valid_after(since + timedelta(days=days))
    )


def _private(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _write(path: Path, data: bytes) -> None:
    """Write a file that only we can read, whole or not at all."""
    part = path.with_suffix(path.suffix + ".part")
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)

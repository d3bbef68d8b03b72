"""Certificates, stores and tokens for the tests, made by openssl and keytool."""
import base64
import json
import os
import pathlib
import subprocess
import time

from clients import STORE_PASSWORD


def _openssl(*arguments, **more):
    done = subprocess.run(["openssl", *map(str, arguments)], capture_output=True, check=False, **more)
    assert done.returncode == 0, f"openssl {arguments}: {done.stderr.decode()}"
    return done.stdout


class Authority:
    """An authority, and what it has issued: `NAME.pem` with chain and key, `NAME.p12` beside it."""

    def __init__(self, folder, name="authority"):
        self.folder, self.name = pathlib.Path(folder), name
        self.key, self.pem = self.folder / f"{name}.key", self.folder / f"{name}.pem"
        _openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", 30, "-subj", f"/CN={name}",
                 "-keyout", self.key, "-out", self.pem)
        # openssl cannot mark a certificate as trusted in the way that Java asks for
        subprocess.run(["keytool", "-importcert", "-noprompt", "-alias", "ca", "-file", self.pem, "-keystore", self.pem.with_suffix(".p12"),
                        "-storetype", "PKCS12", "-storepass", STORE_PASSWORD], check=True, capture_output=True)

    def issue(self, name, subject=None, address="IP:127.0.0.1", days=30):
        """A certificate, by default of this machine; with `days` below 0 one that has ended. Replaces one of the same name at once."""
        made = self.folder / f"{self.name}-{name}-{time.monotonic_ns()}"
        key, request, chain, names = (made.with_suffix(suffix) for suffix in (".key", ".csr", ".crt", ".ext"))
        names.write_text(f"subjectAltName={address}\n")
        _openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", subject or f"/CN={name}",
                 "-keyout", key, "-out", request)
        _openssl("x509", "-req", "-in", request, "-CA", self.pem, "-CAkey", self.key, "-set_serial", time.monotonic_ns(), "-days", days,
                 "-extfile", names, "-out", chain)
        beside, file = made.with_suffix(".pem"), self.folder / f"{name}.pem"
        beside.write_text(chain.read_text() + key.read_text())
        _openssl("pkcs12", "-export", "-in", beside, "-name", name, "-out", made.with_suffix(".p12"), "-passout", f"pass:{STORE_PASSWORD}")
        os.rename(made.with_suffix(".p12"), file.with_suffix(".p12"))
        os.rename(beside, file)
        return file


def serial(address, ca):
    """The number of the certificate that a listener shows."""
    shown = _openssl("s_client", "-connect", address, "-CAfile", ca, stdin=subprocess.DEVNULL)
    return _openssl("x509", "-noout", "-serial", input=shown).decode().strip()


def speaks(address, ca, *flags):
    """Whether openssl gets through to a listener, by its own account."""
    arguments = ["openssl", "s_client", "-connect", address, "-CAfile", str(ca), "-verify_return_error", "-brief", *flags]
    done = subprocess.run(arguments, stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=20)
    return done.returncode == 0, (done.stdout + done.stderr).decode()


class Issuer:
    """Signs tokens; `keys` is a file that says by which key."""

    def __init__(self, folder):
        folder = pathlib.Path(folder)
        self.key, self.keys = folder / "issuer.key", folder / "jwks.json"
        _openssl("genrsa", "-out", self.key, 2048)
        modulus = _openssl("rsa", "-in", self.key, "-noout", "-modulus").decode().strip().removeprefix("Modulus=")
        key = {"kty": "RSA", "kid": "interop", "alg": "RS256", "use": "sig", "n": _encoded(bytes.fromhex(modulus)), "e": "AQAB"}
        self.keys.write_text(json.dumps({"keys": [key]}))

    def token(self, user, seconds=3600):
        now = int(time.time())
        head = {"alg": "RS256", "kid": "interop", "typ": "JWT"}
        claims = {"sub": user, "iss": "interop", "aud": "kafka", "iat": now - 10, "exp": now + seconds, "scope": "kafka"}
        text = f"{_encoded(json.dumps(head).encode())}.{_encoded(json.dumps(claims).encode())}"
        return f"{text}.{_encoded(_openssl('dgst', '-sha256', '-sign', self.key, input=text.encode()))}"


def _encoded(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()

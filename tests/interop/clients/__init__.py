"""One adapter per foreign client. Every adapter module has the same interface:

NAME            what the client is called in test names
COMPRESSIONS    the compressions it can produce with
READS           the compressions it can read
produce(bootstrap, topic, records, compression, idempotent=False)    to partition 0, with acks=all
consume(bootstrap, topic, count) -> [Record]              partition 0 from its first record, without committing
consume_group(bootstrap, topic, group, count) -> [Record] as a member of `group`; commits what it returned, then leaves;
                those that have the newer group protocol (KIP-848) also take protocol="consumer"
All three take security=Security(…).

Topics have one partition, so that the order of records is part of what is compared.
"""
import os
import pathlib
import subprocess
import typing

ALL_COMPRESSIONS = ("none", "gzip", "snappy", "lz4", "zstd")

# Where `run` of these tests installs what it needs.
CACHE = pathlib.Path(os.environ.get("OTTLA_TESTS_CACHE", pathlib.Path.home() / ".cache" / "ottla-tests"))

# The most one call of a client may take.
CALL_SECONDS_MAX = 45


class Record(typing.NamedTuple):
    """A record as text; `None` is Kafka's null. Text holds no tab and no line end: the console clients are line based."""

    key: str | None
    value: str | None
    headers: tuple[tuple[str, str], ...] = ()


class Security(typing.NamedTuple):
    """How a client keeps its bytes from others and makes itself known: TLS, a certificate, a user."""

    ca: pathlib.Path
    """Certificates of authorities, PEM."""
    certificate: pathlib.Path | None = None
    """PEM with chain and key."""
    mechanism: str | None = None
    user: str | None = None
    password: str | None = None
    """Of OAUTHBEARER the token."""
    stores: str = "PEM"
    """What Java keeps its certificates in: PEM or PKCS12, which stand beside the PEM files with the ending p12."""


# What the stores of PKCS#12 are opened with.
STORE_PASSWORD = "the-stores-password"


def librdkafka_settings(security):
    """Its settings of all clients built on librdkafka. A token is no setting: the program gives it when it is asked."""
    if security is None:
        return {}
    settings = {"security.protocol": "sasl_ssl" if security.mechanism else "ssl", "ssl.ca.location": str(security.ca)}
    if security.certificate:
        settings |= {"ssl.certificate.location": str(security.certificate), "ssl.key.location": str(security.certificate)}
    if security.mechanism:
        settings["sasl.mechanism"] = security.mechanism
    if security.user:
        settings |= {"sasl.username": security.user, "sasl.password": security.password}
    return settings


class ClientError(Exception):
    """A client ended with an error, or too early."""


def text(data):
    """The text of bytes a client gave, null kept."""
    return None if data is None else bytes(data).decode()


def data(string):
    """The bytes a client is given for a text, null kept."""
    return None if string is None else string.encode()


def call(arguments, standard_input=None, environment=None, with_errors=False):
    """Runs a client's program and returns its output, `with_errors` also the other one; raises ClientError with both outputs when it fails."""
    name = " ".join(str(argument) for argument in arguments)
    try:
        done = subprocess.run(
            [str(argument) for argument in arguments],
            input=standard_input,
            stdin=subprocess.DEVNULL if standard_input is None else None,
            capture_output=True,
            encoding="utf-8",
            env=environment,
            timeout=CALL_SECONDS_MAX,
            check=False,
        )
    except subprocess.TimeoutExpired as expired:
        raise ClientError(
            f"{name}: no end within {CALL_SECONDS_MAX} s\n{_tail(expired.stdout)}\n{_tail(expired.stderr)}"
        ) from expired
    if done.returncode != 0:
        raise ClientError(f"{name}: exit {done.returncode}\n{_tail(done.stdout)}\n{_tail(done.stderr)}")
    return done.stdout + done.stderr if with_errors else done.stdout


def _tail(output):
    if isinstance(output, bytes):
        output = output.decode(errors="replace")
    return (output or "")[-3000:]

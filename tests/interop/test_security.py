"""Foreign clients over TLS, with certificates, and with every mechanism of SASL; and Kafka's tools behind an authorizer."""
import threading
import uuid

import confluent_kafka
import pytest
from confluent_kafka.admin import AclBinding, AclOperation, AclPermissionType, ResourcePatternType, ResourceType
from confluent_kafka.admin import ScramCredentialInfo, ScramMechanism, UserScramCredentialUpsertion

import servers
from certificates import Authority, Issuer, serial, speaks
from clients import STORE_PASSWORD, ClientError, Security, java, kcat, librdkafka
from conftest import CLIENTS, SETTLE_SECONDS_MAX, _await_cluster, _cluster
from programs import eventually
from records import assert_same, bulk

MECHANISMS = ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"]
# What a client has no way to be given on its command line.
CANNOT = {("kcat", "OAUTHBEARER"): "it takes a token from an issuer's URL alone"}
# Debian's librdkafka says a nonce twice, which Kafka 4 refuses: see test_an_older_librdkafka_gets_in_by_scram.
CANNOT |= {("kcat", mechanism): "its nonces are wrong" for mechanism in ("SCRAM-SHA-256", "SCRAM-SHA-512")}
PAIRS = [(client, mechanism) for client in CLIENTS for mechanism in MECHANISMS if (client.NAME, mechanism) not in CANNOT]
PASSWORD = "alice's secret"
# Longest time until a file that has changed counts.
RELOAD_SECONDS_MAX = 30
COUNT = 25


@pytest.fixture(scope="module")
def secure(pytestconfig, tmp_path_factory):
    """One node with an authorizer and a listener of each kind: `tls` for all, `mutual` for certificates, `users` for SASL over TLS.

    Who comes by PLAINTEXT or without a certificate is a super user, as is the user admin.
    """
    folder = tmp_path_factory.mktemp("certificates")
    authority, issuer = Authority(folder), Issuer(folder)
    cluster = _cluster(pytestconfig, 1)
    cluster.authority, cluster.issuer, cluster.foreign = authority, issuer, Authority(folder, "foreign")
    server = authority.issue("server")
    for name in ("alice", "expired", "renewed"):
        authority.issue(name, f"/CN={'alice' if name == 'expired' else name}", days=-1 if name == "expired" else 30)
    cluster.foreign.issue("stranger", "/CN=alice")
    ports = dict(zip(["TLS", "MUTUAL", "USERS"], servers.free_ports(3)))
    addresses = {name: f"127.0.0.1:{port}" for name, port in ports.items()}
    cluster.tls, cluster.mutual, cluster.users = addresses.values()
    told = ",".join([f"PLAINTEXT://127.0.0.1:{cluster.kafka[0]}", *(f"{name}://{address}" for name, address in addresses.items())])
    common = "org.apache.kafka.common.security"
    cluster.properties |= {
        "listeners": f"{told},CONTROLLER://127.0.0.1:{cluster.control[0]}",
        "advertised.listeners": told,
        "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,TLS:SSL,MUTUAL:SSL,USERS:SASL_SSL",
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": server,
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": authority.pem,
        # one listener out of binary stores
        "listener.name.mutual.ssl.keystore.type": "PKCS12",
        "listener.name.mutual.ssl.keystore.location": server.with_suffix(".p12"),
        "listener.name.mutual.ssl.keystore.password": STORE_PASSWORD,
        "listener.name.mutual.ssl.key.password": STORE_PASSWORD,
        "listener.name.mutual.ssl.truststore.type": "PKCS12",
        "listener.name.mutual.ssl.truststore.location": authority.pem.with_suffix(".p12"),
        "listener.name.mutual.ssl.truststore.password": STORE_PASSWORD,
        "listener.name.mutual.ssl.client.auth": "required",
        "listener.name.mutual.ssl.principal.mapping.rules": "RULE:^CN=([^,]*).*$/$1/,DEFAULT",
        "sasl.enabled.mechanisms": ",".join(MECHANISMS),
        "listener.name.users.plain.sasl.jaas.config": f'{common}.plain.PlainLoginModule required user_alice="{PASSWORD}" user_admin="admin" user_bob="bob";',
        "listener.name.users.scram-sha-256.sasl.jaas.config": f"{common}.scram.ScramLoginModule required;",
        "listener.name.users.scram-sha-512.sasl.jaas.config": f"{common}.scram.ScramLoginModule required;",
        "listener.name.users.oauthbearer.sasl.jaas.config": f"{common}.oauthbearer.OAuthBearerLoginModule required;",
        "listener.name.users.oauthbearer.sasl.server.callback.handler.class": f"{common}.oauthbearer.OAuthBearerValidatorCallbackHandler",
        "listener.name.users.sasl.oauthbearer.jwks.endpoint.url": f"file://{issuer.keys}",
        "listener.name.users.sasl.oauthbearer.expected.audience": "kafka",
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users": "User:ANONYMOUS;User:admin",
        "delegation.token.secret.key": "a secret of the tests",
    }
    # Kafka reads keys from a file that it was told of at its start, and from no other
    allowed = f"-Dorg.apache.kafka.sasl.oauthbearer.allowed.urls=file://{issuer.keys}"
    monkeypatch = pytest.MonkeyPatch()
    monkeypatch.setattr(servers, "KAFKA_JAVA_OPTIONS", f"{servers.KAFKA_JAVA_OPTIONS} {allowed}")
    with cluster:
        monkeypatch.undo()
        _await_cluster(cluster)
        admin = cluster.admin()
        kinds = [ScramMechanism.SCRAM_SHA_256, ScramMechanism.SCRAM_SHA_512]
        users = [UserScramCredentialUpsertion("alice", ScramCredentialInfo(kind, 4096), PASSWORD.encode()) for kind in kinds]
        for user in users:
            admin.alter_user_scram_credentials([user])["alice"].result(SETTLE_SECONDS_MAX)
        # librdkafka asks for the coordinator of a group also where it reads without one
        for resource, name, pattern in [(ResourceType.TOPIC, "open", ResourcePatternType.PREFIXED), (ResourceType.GROUP, "*", ResourcePatternType.LITERAL)]:
            rule = (resource, name, pattern, "User:alice", "*", AclOperation.ALL, AclPermissionType.ALLOW)
            (made,) = admin.create_acls([AclBinding(*rule)]).values()
            made.result(SETTLE_SECONDS_MAX)
        yield cluster


def security(cluster, mechanism=None, user="alice", password=PASSWORD, **more):
    """Of a user, or without a mechanism of nobody."""
    if mechanism == "OAUTHBEARER":
        user, password = None, cluster.issuer.token(user) if password == PASSWORD else password
    named = {"mechanism": mechanism, "user": user, "password": password} if mechanism else {}
    return Security(**{"ca": cluster.authority.pem, **named, **more})


def certificate(cluster, name, **more):
    return security(cluster, certificate=cluster.authority.folder / f"{name}.pem", **more)


def write_and_read(cluster, address, client, how):
    topic, written = cluster.topic("open"), bulk(client.NAME, COUNT)
    client.produce(address, topic, written, "gzip", security=how)
    assert_same(client.consume(address, topic, COUNT, security=how), written)


def refused(client, address, topic, how):
    with pytest.raises(ClientError):
        client.produce(address, topic, bulk("refused", 1), "none", security=how)


def test_two_versions_of_tls_and_no_other(secure):
    for address in (secure.tls, secure.users):
        for flag, version in [("-tls1_2", "TLSv1.2"), ("-tls1_3", "TLSv1.3")]:
            got_through, said = speaks(address, secure.authority.pem, flag)
            assert got_through and f"Protocol version: {version}" in said, said
        assert not speaks(address, secure.authority.pem, "-tls1_1", "-cipher", "DEFAULT@SECLEVEL=0")[0]


@pytest.mark.parametrize("client", CLIENTS, ids=lambda client: client.NAME)
def test_every_client_speaks_tls_and_turns_away_from_a_foreign_server(secure, client):
    write_and_read(secure, secure.tls, client, security(secure))
    refused(client, secure.tls, secure.topic("open"), security(secure, ca=secure.foreign.pem))


@pytest.mark.parametrize("client", CLIENTS, ids=lambda client: client.NAME)
def test_a_certificate_says_who_a_client_is(secure, client):
    write_and_read(secure, secure.mutual, client, certificate(secure, "alice"))
    # known, and without a right
    refused(client, secure.mutual, secure.topic("open"), certificate(secure, "renewed"))
    refused(client, secure.mutual, secure.topic("open"), security(secure))


@pytest.mark.parametrize("name", ["expired", "stranger"])
@pytest.mark.parametrize("client", [librdkafka, java], ids=lambda client: client.NAME)
def test_an_expired_or_foreign_certificate_is_refused(secure, client, name):
    refused(client, secure.mutual, secure.topic("open"), certificate(secure, name))


def test_java_reads_its_certificates_out_of_pkcs12(secure):
    write_and_read(secure, secure.mutual, java, certificate(secure, "alice", stores="PKCS12"))


@pytest.mark.parametrize("client, mechanism", PAIRS, ids=lambda value: getattr(value, "NAME", value))
def test_a_user_gets_in_by_every_mechanism(secure, client, mechanism):
    write_and_read(secure, secure.users, client, security(secure, mechanism))


@pytest.mark.parametrize("client, mechanism", PAIRS, ids=lambda value: getattr(value, "NAME", value))
def test_a_wrong_password_or_token_does_not(secure, client, mechanism):
    wrong = secure.issuer.token("alice")[:-8] + "AAAAAAAA" if mechanism == "OAUTHBEARER" else "wrong"
    refused(client, secure.users, secure.topic("open"), security(secure, mechanism, password=wrong))


@pytest.mark.parametrize("mechanism", ["SCRAM-SHA-256", "SCRAM-SHA-512"])
def test_an_older_librdkafka_gets_in_by_scram(secure, mechanism):
    """As with Kafka 3.9; Kafka 4 turns away what was built on librdkafka before 2.6.1."""
    if secure.product == "ottla":
        write_and_read(secure, secure.users, kcat, security(secure, mechanism))
    refused(kcat, secure.users, secure.topic("open"), security(secure, mechanism, password="wrong"))


def test_a_user_without_rights_is_refused_by_name(secure):
    topic = secure.topic("closed")
    for client in (librdkafka, java):
        with pytest.raises(ClientError, match="(?i)topic.?authorization|not authorized"):
            client.produce(secure.users, topic, bulk("refused", 1), "none", security=security(secure, "PLAIN"))


def test_certificates_are_replaced_while_records_flow(secure):
    """Three times, and once by one that has ended: nobody is cut off, and who comes sees the new one."""
    topic, stop, failures, sent = secure.topic("open"), threading.Event(), [], []
    settings = {"bootstrap.servers": secure.tls, "linger.ms": 5, **librdkafka.settings_of(security(secure), failures)}
    producer = confluent_kafka.Producer(settings)

    def delivered(error, message):
        (failures if error else sent).append(error or message.offset())

    def flow():
        while not stop.is_set():
            producer.produce(topic, b"to and fro " * 20, on_delivery=delivered)
            producer.poll(0.001)

    thread = threading.Thread(target=flow)
    thread.start()
    try:
        eventually(30, "records flow", lambda: len(sent) > 100)
        for _ in range(3):
            before, count = serial(secure.tls, secure.authority.pem), len(sent)
            secure.authority.issue("server")
            eventually(RELOAD_SECONDS_MAX, "a new certificate is shown", lambda: serial(secure.tls, secure.authority.pem) != before)
            eventually(10, "records go on", lambda: len(sent) > count + 100)
            librdkafka.produce(secure.tls, topic, bulk("newcomer", 5), "none", security=security(secure))
        secure.authority.issue("server", days=-1)
        eventually(RELOAD_SECONDS_MAX, "newcomers see that it has ended", lambda: not speaks(secure.tls, secure.authority.pem)[0])
        for client in (librdkafka, java):
            refused(client, secure.tls, topic, security(secure))
    finally:
        secure.authority.issue("server")
        eventually(RELOAD_SECONDS_MAX, "a good one is back", lambda: speaks(secure.tls, secure.authority.pem)[0])
        stop.set()
        thread.join()
    assert producer.flush(30) == 0
    assert failures == []
    assert sorted(sent) == sorted(set(sent))


@pytest.fixture
def as_admin(secure):
    """Runs a tool of Kafka as the user admin: `as_admin(name, argument…, version=…)`."""
    login = java.command_config(security(secure, "PLAIN", "admin", "admin"))

    def run(name, *arguments, login=login, version="4.3.0"):
        place = "kafka.admin.AclCommand" if (name, version) == ("AclCommand", "3.9.1") else f"org.apache.kafka.tools.{name}"
        place = "kafka.admin.ConfigCommand" if name == "ConfigCommand" else place
        return java.run(place, "--bootstrap-server", secure.users, *login, *arguments, version=version)

    return run


@pytest.mark.parametrize("version", ["3.9.1", "4.3.0"])
def test_kafkas_tools_manage_rules_quotas_and_users(secure, as_admin, version):
    name = f"tools-{uuid.uuid4().hex[:8]}"
    nobody = {"login": java.command_config(security(secure, "PLAIN", "bob", "bob")), "version": version}
    add = ["--add", "--allow-principal", f"User:{name}", "--operation", "Write", "--topic", name]
    with pytest.raises(ClientError, match="ClusterAuthorizationException"):
        as_admin("AclCommand", *add, **nobody)
    as_admin("AclCommand", *add, version=version)
    assert f"principal=User:{name}, host=*, operation=WRITE" in as_admin("AclCommand", "--list", "--topic", name, version=version)
    entity = ["--entity-type", "users", "--entity-name", name]
    for setting in ["producer_byte_rate=2048", "SCRAM-SHA-512=[iterations=4096,password=secret]"]:
        alter = ["ConfigCommand", "--alter", *entity, "--add-config", setting]
        with pytest.raises(ClientError, match="ClusterAuthorizationException"):
            as_admin(*alter, **nobody)
        as_admin(*alter, version=version)
    described = as_admin("ConfigCommand", "--describe", *entity, version=version)
    assert "producer_byte_rate=2048" in described and "SCRAM-SHA-512=iterations=4096" in described, described
    # the user is there at once, with no more than its right
    topic = secure.topic(name)
    as_admin("AclCommand", "--add", "--allow-principal", f"User:{name}", "--operation", "All", "--topic", topic, version=version)
    user = security(secure, "SCRAM-SHA-512", name, "secret")
    librdkafka.produce(secure.users, topic, bulk(name, 3), "none", security=user)
    with pytest.raises(ClientError):
        librdkafka.produce(secure.users, secure.topic("open"), bulk(name, 1), "none", security=user)


def test_a_delegation_token_is_made_and_used_over_tls(secure, as_admin):
    owner = java.command_config(security(secure, "SCRAM-SHA-256"))
    made = as_admin("DelegationTokenCommand", "--create", "--max-life-time-period", -1, "--renewer-principal", "User:admin", login=owner)
    row = next(line.split() for line in made.splitlines() if "User:alice" in line)
    file = secure.authority.folder / f"{uuid.uuid4().hex}.properties"
    module = "org.apache.kafka.common.security.scram.ScramLoginModule"
    file.write_text(
        f"security.protocol=SASL_SSL\nssl.truststore.type=PEM\nssl.truststore.location={secure.authority.pem}\nsasl.mechanism=SCRAM-SHA-512\n"
        f'sasl.jaas.config={module} required username="{row[0]}" password="{row[1]}" tokenauth="true";\n'
    )
    topic = secure.topic("open")
    listed = lambda: topic in as_admin("TopicCommand", "--list", login=["--command-config", file])
    eventually(20, "the token lets its owner's topics be seen", listed)


def test_a_web_interface_reads_all_that_it_may(secure, as_admin):
    """As such an interface is set up: a user of its own that may describe everything and change nothing."""
    user = f"interface-{uuid.uuid4().hex[:8]}"
    as_admin("ConfigCommand", "--alter", "--entity-type", "users", "--entity-name", user, "--add-config", "SCRAM-SHA-512=[password=secret]")
    how = java.properties(security(secure, "SCRAM-SHA-512", user, "secret"))
    with pytest.raises(ClientError, match="AuthorizationException"):
        java.run("Overview", secure.users, how)
    everything = ["--topic", "*", "--group", "*", "--transactional-id", "*", "--cluster"]
    for operation in ("Describe", "DescribeConfigs"):
        wanted = everything if operation == "Describe" else ["--topic", "*", "--cluster"]
        as_admin("AclCommand", "--add", "--allow-principal", f"User:{user}", "--operation", operation, *wanted)
    topic = secure.topic("open")

    def overview():
        try:
            return java.run("Overview", secure.users, how)
        except ClientError as error:
            raise AssertionError(error) from error

    told = eventually(30, "everything is told", overview)
    assert topic in told and "ssl.keystore.location" in told
    for secret in (PASSWORD, STORE_PASSWORD, "a secret of the tests"):
        assert secret not in told
    with pytest.raises(ClientError, match="ClusterAuthorizationException|TopicAuthorizationException"):
        as_admin("TopicCommand", "--delete", "--topic", topic, login=["--command-config", how])

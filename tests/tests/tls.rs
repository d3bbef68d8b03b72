//! TLS of a real `ottla server`, looked at by `openssl s_client`: versions, certificates that are expired, foreign or missing, and
//! certificates that change while records flow. And who guesses passwords.

#![allow(clippy::unwrap_used, reason = "a step that fails is a failed test")]

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use ottla_tests::{Cluster, eventually};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, SerialNumber};

/// Makes certificates.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new([]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "an authority of the test");
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn params(name: &str, serial: u64) -> CertificateParams {
        let mut params = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.serial_number = Some(SerialNumber::from(serial));
        params
    }

    /// Chain and key in one file.
    fn write(&self, path: &Path, params: &CertificateParams) {
        let key = KeyPair::generate().unwrap();
        let text = params.signed_by(&key, &self.0).unwrap().pem() + &key.serialize_pem();
        // As one step: a reader never finds half of it.
        let beside = path.with_extension("new");
        std::fs::write(&beside, text).unwrap();
        std::fs::rename(beside, path).unwrap();
    }
}

/// A directory with an authority, a server's certificate, and clients' certificates.
struct Files {
    authority: Authority,
    directory: tempfile::TempDir,
}

impl Files {
    fn new() -> Self {
        let (authority, directory) = (Authority::new(), tempfile::tempdir().unwrap());
        let files = Self { authority, directory };
        std::fs::write(files.path("ca.pem"), files.authority.0.pem()).unwrap();
        files.authority.write(&files.path("server.pem"), &Authority::params("server", 1));
        files.authority.write(&files.path("alice.pem"), &Authority::params("alice", 2));
        let mut expired = Authority::params("alice", 3);
        (expired.not_before, expired.not_after) =
            (rcgen::date_time_ymd(2001, 1, 1), rcgen::date_time_ymd(2002, 1, 1));
        files.authority.write(&files.path("expired.pem"), &expired);
        let foreign = Authority::new();
        foreign.write(&files.path("foreign.pem"), &Authority::params("alice", 4));
        std::fs::write(files.path("foreign-ca.pem"), foreign.0.pem()).unwrap();
        files
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    /// One node whose Kafka listener speaks TLS with `server.pem`.
    fn cluster(&self, client_auth: &str, extra: &[(&str, &str)]) -> Cluster {
        let (server, authority) = (self.text("server.pem"), self.text("ca.pem"));
        let mut all = vec![
            ("listener.security.protocol.map", "CONTROLLER:PLAINTEXT,PLAINTEXT:SSL"),
            ("ssl.keystore.type", "PEM"),
            ("ssl.keystore.location", server.as_str()),
            ("ssl.truststore.type", "PEM"),
            ("ssl.truststore.location", authority.as_str()),
            ("ssl.client.auth", client_auth),
        ];
        all.extend_from_slice(extra);
        Cluster::start(1, &all).unwrap()
    }

    /// Everything that `openssl s_client` says, and whether it was content.
    fn s_client(&self, address: &str, arguments: &[&str]) -> (bool, String) {
        let output = Command::new("openssl")
            .args(["s_client", "-connect", address, "-CAfile", &self.text("ca.pem"), "-verify_return_error"])
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .expect("openssl is installed");
        let text =
            String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        (output.status.success(), text)
    }

    /// The serial number of the certificate that a listener shows.
    fn serial(&self, address: &str) -> Option<String> {
        let (_, text) = self.s_client(address, &["-showcerts"]);
        let certificate = text.split_once("-----BEGIN CERTIFICATE-----")?.1.split_once("-----END")?.0;
        let pem = format!("-----BEGIN CERTIFICATE-----{certificate}-----END CERTIFICATE-----\n");
        let file = self.path("shown.pem");
        std::fs::write(&file, pem).unwrap();
        let output =
            Command::new("openssl").args(["x509", "-noout", "-serial", "-in"]).arg(file).output().ok()?;
        Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }
}

#[test]
fn two_versions_are_spoken_and_older_ones_are_not() {
    let files = Files::new();
    let cluster = files.cluster("none", &[]);
    let address = cluster.nodes[0].kafka();
    for (flag, version) in [("-tls1_2", "TLSv1.2"), ("-tls1_3", "TLSv1.3")] {
        let (content, text) = files.s_client(&address, &[flag]);
        assert!(
            content && text.contains(version) && text.contains("Verify return code: 0"),
            "{flag}: {text}"
        );
    }
    let (content, text) = files.s_client(&address, &["-tls1_1", "-cipher", "DEFAULT@SECLEVEL=0"]);
    assert!(!content || text.contains("Cipher is (NONE)"), "{text}");
    // A listener of one version alone.
    let only = files.cluster("none", &[("ssl.enabled.protocols", "TLSv1.3")]);
    let (content, text) = files.s_client(&only.nodes[0].kafka(), &["-tls1_2"]);
    assert!(!content || text.contains("Cipher is (NONE)"), "{text}");
    assert!(files.s_client(&only.nodes[0].kafka(), &["-tls1_3"]).0);
}

/// A key store is opened before it is taken: a wrong one is refused by name, and the listener goes on with its own.
#[test]
fn a_key_store_that_does_not_open_is_refused() {
    let files = Files::new();
    let cluster = files.cluster("none", &[]);
    let address = cluster.nodes[0].kafka();
    let own = files.serial(&address);
    std::fs::write(files.path("broken.pem"), "nonsense").unwrap();
    let set = |file: &str| {
        let setting = format!("listener.name.plaintext.ssl.keystore.location={}", files.text(file));
        cluster.ottla(&["config", "set", &setting, "--broker", "1"]).unwrap()
    };
    for file in ["no-such.pem", "broken.pem"] {
        let refused = set(file);
        let names_it = refused.stderr.contains("ssl.keystore.location of the listener PLAINTEXT");
        assert!(refused.code != Some(0) && names_it, "{file}: {}", refused.stderr);
    }
    assert_eq!(files.serial(&address), own);
    set("alice.pem").ok().unwrap();
    eventually(Duration::from_secs(30), "it shows the new certificate", || {
        Ok((files.serial(&address) != own).then_some(()))
    })
    .unwrap();
    let unset = ["config", "unset", "listener.name.plaintext.ssl.keystore.location", "--broker", "1"];
    cluster.ottla(&unset).unwrap().ok().unwrap();
    eventually(Duration::from_secs(30), "it shows the certificate of its file again", || {
        Ok((files.serial(&address) == own).then_some(()))
    })
    .unwrap();
}

#[test]
fn certificates_say_who_calls_and_wrong_ones_are_refused_on_both_sides() {
    let files = Files::new();
    let mut cluster = files.cluster(
        "required",
        &[
            ("authorizer.class.name", "org.apache.kafka.metadata.authorizer.StandardAuthorizer"),
            ("super.users", "User:ANONYMOUS"),
            ("ssl.principal.mapping.rules", "RULE:^CN=([^,]*).*$/$1/L,DEFAULT"),
        ],
    );
    cluster.create_topic("orders", 1, 1, &[]).unwrap();
    let (bootstrap, authority) = (cluster.bootstrap(), files.text("ca.pem"));
    let produce = |cluster: &Cluster, authority: &str, certificate: Option<&str>| {
        let mut words = vec!["--bootstrap", &bootstrap, "--timeout", "5s", "--tls-ca", authority];
        let path = certificate.map(|name| files.text(name));
        if let Some(path) = &path {
            words.extend(["--tls-cert", path, "--tls-key", path]);
        }
        words.extend(["--server-protocol", "PLAINTEXT", "produce", "orders"]);
        cluster.ottla_with_input(&words, b"one\n").unwrap()
    };
    assert!(produce(&cluster, &authority, Some("alice.pem")).stderr.contains("TOPIC_AUTHORIZATION_FAILED"));
    cluster
        .ottla(&["acl", "add", "--principal", "User:alice", "--topic", "orders", "--operation", "write"])
        .unwrap()
        .ok()
        .unwrap();
    produce(&cluster, &authority, Some("alice.pem")).ok().unwrap();
    for certificate in [None, Some("expired.pem"), Some("foreign.pem")] {
        let refused = produce(&cluster, &authority, certificate);
        assert_ne!(refused.code, Some(0), "{certificate:?}");
    }
    let distrusting = produce(&cluster, &files.text("foreign-ca.pem"), Some("alice.pem"));
    assert!(
        distrusting.code != Some(0) && distrusting.stderr.contains("certificate"),
        "{}",
        distrusting.stderr
    );
    // The server's own, expired: every client turns away.
    let mut expired = Authority::params("server", 9);
    (expired.not_before, expired.not_after) =
        (rcgen::date_time_ymd(2001, 1, 1), rcgen::date_time_ymd(2002, 1, 1));
    files.authority.write(&files.path("server.pem"), &expired);
    cluster.nodes[0].stop().unwrap();
    cluster.nodes[0].start().unwrap();
    cluster.await_brokers(1).unwrap();
    let turned_away = produce(&cluster, &authority, Some("alice.pem"));
    assert!(
        turned_away.code != Some(0) && turned_away.stderr.to_lowercase().contains("expired"),
        "{}",
        turned_away.stderr
    );
}

/// Certificates are read anew without a restart; whoever is connected stays so.
#[test]
fn certificates_change_while_records_flow() {
    const CHANGES: u64 = 3;
    let files = Files::new();
    let cluster = files.cluster("none", &[]);
    cluster.create_topic("orders", 1, 1, &[]).unwrap();
    let (bootstrap, authority) = (cluster.bootstrap(), files.text("ca.pem"));
    let address = cluster.nodes[0].kafka();
    assert_eq!(files.serial(&address).unwrap(), "serial=01");
    let report = files.text("verify.json");
    let words = [
        "--bootstrap",
        &bootstrap,
        "--tls-ca",
        &authority,
        "--server-protocol",
        "PLAINTEXT",
        "verify",
        "--topic",
        "orders",
        "--records",
        "20000",
        "--rate",
        "1000",
        "--report",
        &report,
        "--output",
        "json",
    ];
    std::thread::scope(|scope| {
        let verifying = scope.spawn(|| cluster.ottla(&words).unwrap());
        for serial in 0..CHANGES {
            files.authority.write(&files.path("server.pem"), &Authority::params("server", 16 + serial));
            let wanted = format!("serial={:02X}", 16 + serial);
            eventually(Duration::from_secs(30), "the new certificate is shown", || {
                Ok(files.serial(&address).filter(|shown| *shown == wanted))
            })
            .unwrap();
        }
        verifying.join().unwrap().ok().unwrap();
    });
    // Nonsense in the file leaves the last good one.
    std::fs::write(files.path("server.pem"), "nonsense").unwrap();
    std::thread::sleep(Duration::from_secs(7));
    assert_eq!(files.serial(&address).unwrap(), format!("serial={:02X}", 15 + CHANGES));
    assert!(cluster.nodes[0].log().contains("security stays as it was"));
}

/// The HTTP port: certificates by its own name, no certificates asked of probes, the commands that ask it, a change without a
/// restart; and a certificate as a login of the console where one is asked for.
#[test]
fn the_http_port_speaks_tls() {
    let files = Files::new();
    let (server, authority) = (files.text("server.pem"), files.text("ca.pem"));
    let mut cluster = Cluster::prepare(1, &[]).unwrap();
    let http = format!("https://127.0.0.1:{}", cluster.nodes[0].http_port);
    let listener = ("ottla.http.listener", http.as_str());
    let tls = [
        listener,
        ("listener.name.http.ssl.keystore.type", "PEM"),
        ("listener.name.http.ssl.keystore.location", server.as_str()),
        ("listener.name.http.ssl.truststore.type", "PEM"),
        ("listener.name.http.ssl.truststore.location", authority.as_str()),
        ("ssl.client.auth", "required"),
    ];
    cluster.rewrite(1, &tls).unwrap();
    cluster.nodes[0].start().unwrap();
    cluster.await_brokers(1).unwrap();
    let address = http.strip_prefix("https://").unwrap();
    for (flag, version) in [("-tls1_2", "TLSv1.2"), ("-tls1_3", "TLSv1.3")] {
        let (content, text) = files.s_client(address, &[flag]);
        assert!(content && text.contains(version), "{flag}: {text}");
    }
    let ask = |path: &str, more: &[&str]| {
        let url = format!("{http}{path}");
        let output = Command::new("curl")
            .args(["--silent", "--show-error", "--max-time", "10", "--cacert", &authority, &url])
            .args(more)
            .output()
            .expect("curl is installed");
        let text =
            String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        (output.status.success(), text)
    };
    assert_eq!(ask("/livez", &[]), (true, "ok\n".to_owned()));
    assert!(ask("/metrics", &[]).1.ends_with("# EOF\n"));
    assert!(ask("/api/v1/cluster", &[]).1.contains("brokers"));
    assert!(ask("/", &["--location"]).1.contains("<html"));
    // The health check of the image; the address is the property's variable there.
    let healthy =
        cluster.ottla(&["cluster", "await", "--local", "--http", &http, "--timeout", "5s"]).unwrap();
    assert_eq!(healthy.code, Some(0), "{}", healthy.stderr);
    let plain = ["cluster", "await", "--local", "--http", address, "--timeout", "1s"];
    assert_ne!(cluster.ottla(&plain).unwrap().code, Some(0));
    let bundle = files.text("bundle.tar.gz");
    cluster.ottla(&["debug", "bundle", &bundle]).unwrap().ok().unwrap();
    let listed = Command::new("tar").args(["tzf", &bundle]).output().unwrap();
    assert!(String::from_utf8_lossy(&listed.stdout).contains("metrics/node-1.txt"));
    // Another certificate, without a restart; then one that has ended, which clients turn away from.
    files.authority.write(&files.path("server.pem"), &Authority::params("server", 32));
    eventually(Duration::from_secs(30), "the new certificate is shown", || {
        Ok(files.serial(address).filter(|shown| shown == "serial=20"))
    })
    .unwrap();
    let mut expired = Authority::params("server", 33);
    (expired.not_before, expired.not_after) =
        (rcgen::date_time_ymd(2001, 1, 1), rcgen::date_time_ymd(2002, 1, 1));
    files.authority.write(&files.path("server.pem"), &expired);
    eventually(Duration::from_secs(30), "the expired certificate is refused", || {
        let (content, text) = ask("/livez", &[]);
        Ok((!content && text.contains("expired")).then_some(()))
    })
    .unwrap();
    cluster.nodes[0].stop().unwrap();
    // Asked for certificates, callers are known by them.
    files.authority.write(&files.path("server.pem"), &Authority::params("server", 34));
    let mut asking = tls.to_vec();
    asking.extend([
        ("listener.name.http.ssl.client.auth", "requested"),
        ("listener.name.http.ssl.principal.mapping.rules", "RULE:^CN=([^,]*).*$/$1/L,DEFAULT"),
    ]);
    cluster.rewrite(1, &asking).unwrap();
    cluster.nodes[0].start().unwrap();
    cluster.await_brokers(1).unwrap();
    assert!(ask("/livez", &[]).0);
    let session = ask("/api/v1/session", &["--cert", &files.text("alice.pem")]).1;
    assert!(session.contains("User:alice"), "{session}");
    assert!(ask("/api/v1/session", &[]).1.contains("ANONYMOUS"));
    for name in ["expired.pem", "foreign.pem"] {
        assert!(!ask("/livez", &["--cert", &files.text(name)]).0, "{name}");
    }
    cluster.nodes[0].stop().unwrap();
}

/// A wrong password is answered late, and the more of them the later; it is logged, without the password.
#[test]
fn guessing_passwords_takes_time_and_leaves_a_trace() {
    let mut cluster = Cluster::start(
        1,
        &[
            ("listener.security.protocol.map", "CONTROLLER:PLAINTEXT,PLAINTEXT:SASL_PLAINTEXT"),
            ("sasl.enabled.mechanisms", "PLAIN,SCRAM-SHA-256"),
            ("sasl.mechanism.inter.broker.protocol", "PLAIN"),
            (
                "listener.name.plaintext.plain.sasl.jaas.config",
                "org.apache.kafka.common.security.plain.PlainLoginModule required \
              username=\"node\" password=\"n\" user_node=\"n\" user_alice=\"wonderland\";",
            ),
            ("connection.failed.authentication.delay.ms", "150"),
        ],
    )
    .unwrap();
    cluster.ottla_with_input(&["user", "add", "bob"], b"builder\n").unwrap().ok().unwrap();
    let (directory, bootstrap) = (cluster.directory().to_owned(), cluster.bootstrap());
    let wrong = directory.join("wrong");
    std::fs::write(&wrong, "a-guess-of-mine\n").unwrap();
    let wrong = wrong.display().to_string();
    let guess = |cluster: &Cluster, mechanism: &str, user: &str| {
        let began = Instant::now();
        let words = [
            "--bootstrap",
            &bootstrap,
            "--server-protocol",
            "PLAINTEXT",
            "--sasl-mechanism",
            mechanism,
            "--sasl-user",
            user,
            "--sasl-password-file",
            &wrong,
            "produce",
            "t",
        ];
        let refused = cluster.ottla_with_input(&words, b"x\n").unwrap();
        assert_eq!(refused.code, Some(1), "{}", refused.stderr);
        began.elapsed()
    };
    for (mechanism, user) in
        [("PLAIN", "alice"), ("PLAIN", "nobody"), ("SCRAM-SHA-256", "bob"), ("SCRAM-SHA-256", "nobody")]
    {
        assert!(guess(&cluster, mechanism, user) >= Duration::from_millis(150), "{mechanism} {user}");
    }
    for _ in 0..8 {
        guess(&cluster, "PLAIN", "alice");
    }
    assert!(guess(&cluster, "PLAIN", "alice") >= Duration::from_secs(1));
    let log = cluster.nodes[0].log();
    assert!(
        log.lines().filter(|line| line.contains("authentication failed") && line.contains("audit")).count()
            >= 12
    );
    assert!(!log.contains("a-guess-of-mine") && !log.contains("wonderland"));
    cluster.nodes[0].stop().unwrap();
}

//! Connections over real sockets: TLS, SASL, certificates, answers out of files. The other side is [`Peer`], or bytes.

use std::io::Write;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use ottla_wire::decode::Decoder;
use ottla_wire::encode::{Encoder, Records, encode_response_frame};
use ottla_wire::header::RequestHeader;
use ottla_wire::messages::{ApiVersionsRequest, ApiVersionsResponse, api_versions_response};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::*;
use crate::api::{Answer, Client, Response};
use crate::quotas::rate::Windows;
use crate::quotas::{QuotaWindows, Quotas};
use crate::replication::peer::{Peer, PeerError};
use crate::security::properties::Properties;
use crate::security::sasl::scram::ScramMechanism;
use crate::security::{CredentialSnapshot, Credentials, ListenerSecurity, PeerSecurity, SecurityProtocol};

const PATIENCE: Duration = Duration::from_secs(10);

/// An authority and what it issues, as PEM.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::new([]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn pem(&self) -> String {
        self.0.pem()
    }

    /// Certificate and key.
    fn issue(&self, name: &str) -> (String, String) {
        let mut params = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, "tests");
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    /// The properties of a node that shows a certificate of this authority and trusts it.
    fn properties(&self, name: &str) -> Properties {
        let (certificate, key) = self.issue(name);
        properties(&[
            ("ssl.keystore.certificate.chain", &certificate),
            ("ssl.keystore.key", &key),
            ("ssl.truststore.certificates", &self.pem()),
        ])
    }
}

fn properties(pairs: &[(&str, &str)]) -> Properties {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

const USERS: &str = "a.PlainLoginModule required username=\"me\" password=\"mine\" user_me=\"mine\";";

fn with_sasl(mut all: Properties) -> Properties {
    all.extend(properties(&[
        ("sasl.enabled.mechanisms", "PLAIN"),
        ("sasl.mechanism.inter.broker.protocol", "PLAIN"),
        ("sasl.jaas.config", USERS),
    ]));
    all
}

struct Server {
    address: SocketAddr,
    security: Arc<ListenerSecurity>,
    stop: CancellationToken,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Server {
    async fn start(protocol: SecurityProtocol, all: &Properties, handler: Handler) -> Self {
        let options = ListenerOptions {
            name: "TEST".to_owned(),
            protocol,
            bind: "127.0.0.1:0".to_owned(),
            backlog: 8,
            send_buffer_bytes: None,
            receive_buffer_bytes: None,
        };
        let all = Arc::new(all.clone());
        let security =
            Arc::new(ListenerSecurity::open("TEST", protocol, &all, Credentials::default()).unwrap());
        let listener = Listener::bind(&options).await.unwrap();
        let address = listener.local_address().unwrap();
        let context = Arc::new(ConnectionContext {
            handler,
            times: None,
            listener: "TEST".into(),
            security: Arc::clone(&security),
            frame_bytes_max: 1 << 20,
            idle_max: None,
        });
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        let limits = ConnectionLimits::new(
            ConnectionMaxima { node: 100, address: 100, ..Default::default() },
            ConnectionRates::default(),
            Quotas::new(QuotaWindows::default()),
            Windows::default(),
        );
        tokio::spawn(listener.accept(context, limits, tasks, stop.clone()));
        Self { address, security, stop }
    }

    async fn peer(&self, protocol: SecurityProtocol, all: &Properties) -> Result<Peer, PeerError> {
        let security = PeerSecurity::default();
        security.configure("TEST", protocol, &Arc::new(all.clone())).unwrap();
        Peer::connect("127.0.0.1", self.address.port(), "me", PATIENCE, &security).await
    }
}

/// Answers ApiVersions with the count of bytes of the principal's name as its error code.
fn names_length() -> Handler {
    Arc::new(|client: &mut Client, frame: Bytes| {
        let header = RequestHeader::decode(&mut Decoder::new(frame)).unwrap();
        let error_code = i16::try_from(client.principal.name.len()).unwrap();
        let body = ApiVersionsResponse { error_code, ..Default::default() };
        let key = ottla_wire::api::ApiKey::ApiVersions;
        let segments = encode_response_frame(key, header.api_version, header.correlation_id, &body).unwrap();
        Answer::Ready(Response { segments, ..Default::default() })
    })
}

async fn name_length(peer: &mut Peer) -> i16 {
    peer.call(&ApiVersionsRequest::default(), 0).await.unwrap().error_code
}

#[tokio::test]
async fn every_protocol_serves_and_knows_its_client() {
    let authority = Authority::new("ca");
    let all = with_sasl(authority.properties("node"));
    for (protocol, expected) in [
        (SecurityProtocol::Plaintext, "ANONYMOUS"),
        (SecurityProtocol::Ssl, "ANONYMOUS"),
        (SecurityProtocol::SaslPlaintext, "me"),
        (SecurityProtocol::SaslSsl, "me"),
    ] {
        let server = Server::start(protocol, &all, names_length()).await;
        let mut peer = server.peer(protocol, &all).await.unwrap();
        for _ in 0..3 {
            assert_eq!(usize::try_from(name_length(&mut peer).await).unwrap(), expected.len(), "{protocol}");
        }
    }
}

#[tokio::test]
async fn brokers_authenticate_by_scram() {
    for (name, mechanism) in
        [("SCRAM-SHA-256", ScramMechanism::Sha256), ("SCRAM-SHA-512", ScramMechanism::Sha512)]
    {
        let all = properties(&[
            ("sasl.enabled.mechanisms", name),
            ("sasl.mechanism.inter.broker.protocol", name),
            ("sasl.jaas.config", "a.ScramLoginModule required username=\"b,=\" password=\"mine\";"),
        ]);
        let server = Server::start(SecurityProtocol::SaslPlaintext, &all, names_length()).await;
        assert!(server.peer(SecurityProtocol::SaslPlaintext, &all).await.is_err());
        let mut snapshot = CredentialSnapshot::default();
        let iterations = NonZeroU32::new(4096).unwrap();
        let credential = mechanism.credential(b"mine", Bytes::from_static(b"salt"), iterations);
        Arc::make_mut(&mut snapshot.scram).insert(("b,=".to_owned(), mechanism), credential);
        server.security.credentials.publish(snapshot);
        let mut peer = server.peer(SecurityProtocol::SaslPlaintext, &all).await.unwrap();
        assert_eq!(name_length(&mut peer).await, 3);
    }
}

#[tokio::test]
async fn a_certificate_names_its_client_and_a_foreign_one_is_refused() {
    let authority = Authority::new("ca");
    let mut all = authority.properties("node");
    all.insert("ssl.client.auth".to_owned(), "required".to_owned());
    let server = Server::start(SecurityProtocol::Ssl, &all, names_length()).await;
    let carol = authority.properties("carol");
    let mut peer = server.peer(SecurityProtocol::Ssl, &carol).await.unwrap();
    assert_eq!(usize::try_from(name_length(&mut peer).await).unwrap(), "CN=carol,O=tests".len());

    let mut nobody = carol.clone();
    nobody.retain(|name, _| name.starts_with("ssl.truststore"));
    let mut foreign = Authority::new("rogue").properties("carol");
    foreign.insert("ssl.truststore.certificates".to_owned(), authority.pem());
    for all in [nobody, foreign] {
        // TLS 1.3: the client learns of the refusal when it reads.
        if let Ok(mut peer) = server.peer(SecurityProtocol::Ssl, &all).await {
            assert!(peer.call(&ApiVersionsRequest::default(), 0).await.is_err());
        }
    }
}

#[tokio::test]
async fn a_client_does_not_talk_to_a_server_it_does_not_trust() {
    let server =
        Server::start(SecurityProtocol::Ssl, &Authority::new("ca").properties("node"), names_length()).await;
    let stranger = Authority::new("other").properties("node");
    assert!(server.peer(SecurityProtocol::Ssl, &stranger).await.is_err());
}

#[tokio::test]
async fn a_reload_counts_for_new_connections_and_leaves_the_old_ones() {
    let (first, second) = (Authority::new("first"), Authority::new("second"));
    let all = first.properties("node");
    let server = Server::start(SecurityProtocol::Ssl, &all, names_length()).await;
    let mut before = server.peer(SecurityProtocol::Ssl, &all).await.unwrap();
    let changed = second.properties("node");
    server.security.reload(&Arc::new(changed.clone())).unwrap();
    assert!(server.peer(SecurityProtocol::Ssl, &all).await.is_err());
    let mut after = server.peer(SecurityProtocol::Ssl, &changed).await.unwrap();
    assert_eq!(name_length(&mut before).await, name_length(&mut after).await);
    // What cannot be read changes nothing.
    assert!(server.security.reload(&Arc::default()).is_err());
    server.peer(SecurityProtocol::Ssl, &changed).await.unwrap();
}

#[tokio::test]
async fn a_wrong_password_is_told_after_a_pause() {
    let all = with_sasl(Properties::new());
    let server = Server::start(SecurityProtocol::SaslPlaintext, &all, names_length()).await;
    let wrong = properties(&[
        ("sasl.mechanism.inter.broker.protocol", "PLAIN"),
        ("sasl.jaas.config", "a.PlainLoginModule required username=\"me\" password=\"yours\";"),
    ]);
    let began = Instant::now();
    let error = server.peer(SecurityProtocol::SaslPlaintext, &wrong).await.unwrap_err();
    assert!(matches!(error, PeerError::Login { .. }), "{error}");
    assert!(began.elapsed() >= Duration::from_millis(100));
}

#[tokio::test]
async fn a_session_that_is_over_closes_unless_the_client_authenticates_anew() {
    let mut all = with_sasl(Properties::new());
    all.insert("connections.max.reauth.ms".to_owned(), "1500".to_owned());
    let server = Server::start(SecurityProtocol::SaslPlaintext, &all, names_length()).await;
    let mut peer = server.peer(SecurityProtocol::SaslPlaintext, &all).await.unwrap();
    for _ in 0..3 {
        assert_eq!(name_length(&mut peer).await, 2);
        // The peer authenticates anew when four fifths of the time are over.
        tokio::time::sleep(Duration::from_millis(1300)).await;
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    let mut late = TcpStream::connect(server.address).await.unwrap();
    late.write_all(&[0, 0, 0, 4, 0, 3, 0, 12]).await.unwrap();
    let mut answer = Vec::new();
    assert_eq!(late.read_to_end(&mut answer).await.unwrap(), 0);
}

#[tokio::test]
async fn more_than_an_unknown_client_may_send_closes() {
    let server =
        Server::start(SecurityProtocol::SaslPlaintext, &with_sasl(Properties::new()), names_length()).await;
    let mut socket = TcpStream::connect(server.address).await.unwrap();
    socket.write_all(&600_000i32.to_be_bytes()).await.unwrap();
    let mut answer = Vec::new();
    drop(socket.read_to_end(&mut answer).await);
    assert!(answer.is_empty());
}

#[tokio::test]
async fn answers_out_of_files_go_through_tls_whole() {
    const LENGTH: usize = 3_000_000;
    let content: Vec<u8> = (0..LENGTH).map(|at| u8::try_from(at % 251).unwrap()).collect();
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&content).unwrap();
    let file = Arc::new(file);
    let handler: Handler = Arc::new(move |_: &mut Client, frame: Bytes| {
        let header = RequestHeader::decode(&mut Decoder::new(frame)).unwrap();
        let mut encoder = Encoder::new();
        encoder.i32(i32::try_from(LENGTH + 8).unwrap());
        encoder.i32(header.correlation_id);
        encoder.nullable_records(Some(&Records::External { token: 0, length: LENGTH }), false).unwrap();
        let range = FileRange { file: Arc::clone(&file), position: 0, length: LENGTH as u64 };
        Answer::Ready(Response { segments: encoder.finish(), files: vec![range], ..Default::default() })
    });
    let all = Authority::new("ca").properties("node");
    let server = Server::start(SecurityProtocol::Ssl, &all, handler).await;
    let security = PeerSecurity::default();
    security.configure("TEST", SecurityProtocol::Ssl, &Arc::new(all)).unwrap();
    let socket = TcpStream::connect(server.address).await.unwrap();
    let mut stream = security.secure(socket, "127.0.0.1").await.unwrap();
    for round in 0..2i32 {
        // Metadata 0, correlation id, no client id, no topics.
        let mut request = vec![0, 0, 0, 14, 0, 3, 0, 0];
        request.extend(round.to_be_bytes());
        request.extend([0xff, 0xff, 0, 0, 0, 0]);
        stream.write_all(&request).await.unwrap();
        stream.flush().await.unwrap();
        let mut head = [0; 12];
        stream.read_exact(&mut head).await.unwrap();
        assert_eq!(head[4..8], round.to_be_bytes());
        let mut got = vec![0; LENGTH];
        stream.read_exact(&mut got).await.unwrap();
        assert!(got == content);
    }
}

#[tokio::test]
async fn a_throttled_client_is_answered_at_once_and_then_not_read() {
    let handler: Handler = Arc::new(|_: &mut Client, frame: Bytes| {
        let header = RequestHeader::decode(&mut Decoder::new(frame)).unwrap();
        let key = ottla_wire::api::ApiKey::ApiVersions;
        let entry = api_versions_response::ApiKey::default();
        let body = ApiVersionsResponse { api_keys: vec![entry], ..Default::default() };
        let segments = encode_response_frame(key, 0, header.correlation_id, &body).unwrap();
        Answer::Ready(Response { segments, ..Default::default() }.muted(500))
    });
    let server = Server::start(SecurityProtocol::Plaintext, &Properties::new(), handler).await;
    let mut peer = server.peer(SecurityProtocol::Plaintext, &Properties::new()).await.unwrap();
    let began = Instant::now();
    name_length(&mut peer).await;
    assert!(began.elapsed() < Duration::from_millis(400));
    name_length(&mut peer).await;
    assert!(began.elapsed() >= Duration::from_millis(500));
}

//! Whole authentications, frame by frame, and the orders that must end a connection.

use std::num::NonZeroU32;
use std::time::Duration;

use ottla_wire::encode::{Segment, encode_request_frame};
use ottla_wire::messages::{ApiVersionsRequest, MetadataRequest};

use super::*;
use crate::security::credentials::CredentialSnapshot;
use crate::security::properties::{ListenerProperties, Secret};
use crate::security::sasl::client::ClientAuthentication;
use crate::security::sasl::scram::ClientExchange;
use crate::security::sasl::settings::ClientLogin;

const NOW_MS: i64 = 1_000_000;

fn authenticator(reauth_ms: &str) -> Authenticator {
    let pairs = [
        ("sasl.enabled.mechanisms", "PLAIN,SCRAM-SHA-256,OAUTHBEARER"),
        ("sasl.jaas.config", "a.PlainLoginModule required user_alice=\"secret\" user_bob=\"b\";"),
        ("connections.max.reauth.ms", reauth_ms),
    ];
    let all = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let settings = SaslSettings::read(&ListenerProperties::new(Arc::new(all), "X"), None).unwrap();
    assert_eq!(settings.failure_delay, Duration::from_millis(100));
    let credentials = Credentials::default();
    let mut snapshot = CredentialSnapshot::default();
    let credential =
        ScramMechanism::Sha256.credential(b"pw", Bytes::from_static(b"salt"), NonZeroU32::new(4096).unwrap());
    Arc::make_mut(&mut snapshot.scram).insert(("root".to_owned(), ScramMechanism::Sha256), credential);
    credentials.publish(snapshot);
    Authenticator::new(Arc::new(settings), credentials)
}

fn request(key: ApiKey, version: i16, body: &impl Message) -> Bytes {
    encode_request_frame(key, version, 7, Some("me"), body).unwrap().into_bytes().slice(4..)
}

fn handshake(mechanism: &'static str, version: i16) -> Bytes {
    let body = SaslHandshakeRequest { mechanism: Text::from_static(mechanism) };
    request(ApiKey::SaslHandshake, version, &body)
}

fn token(bytes: &[u8], version: i16) -> Bytes {
    let body = SaslAuthenticateRequest { auth_bytes: Bytes::copy_from_slice(bytes) };
    request(ApiKey::SaslAuthenticate, version, &body)
}

fn bytes(response: Response) -> Bytes {
    let pieces = response.segments.into_iter().map(|segment| match segment {
        Segment::Bytes(bytes) => bytes,
        Segment::External { .. } => Bytes::new(),
    });
    pieces.collect::<Vec<_>>().concat().into()
}

fn body<M: Message>(key: ApiKey, version: i16, response: Response) -> M {
    let mut decoder = Decoder::new(bytes(response).slice(8..));
    if key.response_header_version(version) >= 1 {
        decoder.skip_tagged_fields().unwrap();
    }
    M::decode(&mut decoder, version).unwrap()
}

fn authenticated(step: Step) -> (SaslAuthenticateResponse, Session) {
    match step {
        Step::Done(response, session) => (body(ApiKey::SaslAuthenticate, 2, response), session),
        Step::Refused(_, reason) => panic!("{reason}"),
        _ => panic!("not done"),
    }
}

fn continued(step: Step) -> Response {
    match step {
        Step::Reply(response) => response,
        Step::Refused(_, reason) => panic!("{reason}"),
        _ => panic!("over"),
    }
}

fn refused(step: Step) -> Option<Response> {
    match step {
        Step::Refused(response, _) => response,
        _ => panic!("not refused"),
    }
}

#[test]
fn plain_by_requests() {
    let mut server = authenticator("0");
    let versions = request(ApiKey::ApiVersions, 3, &ApiVersionsRequest::default());
    assert!(matches!(server.step(versions, NOW_MS), Step::PassOn(_)));
    let answer = continued(server.step(handshake("PLAIN", 1), NOW_MS));
    let answer: SaslHandshakeResponse = body(ApiKey::SaslHandshake, 1, answer);
    assert_eq!((answer.error_code, answer.mechanisms.len()), (0, 3));
    let (answer, session) = authenticated(server.step(token(b"\0alice\0secret", 2), NOW_MS));
    assert_eq!((answer.error_code, answer.session_lifetime_ms), (0, 0));
    assert_eq!((session.principal, session.ends_at_ms), (Principal::user("alice"), None));
}

#[test]
fn scram_between_our_own_two_sides() {
    let login = ClientLogin {
        mechanism: Mechanism::ScramSha256,
        user: "root".to_owned(),
        password: Secret::new("pw"),
        by_token: false,
    };
    let mut server = authenticator("5000");
    continued(server.step(handshake("SCRAM-SHA-256", 1), NOW_MS));
    let mut client = ClientAuthentication::new(&login).unwrap();
    let first = client.next(None).unwrap().unwrap();
    let answer = continued(server.step(token(&first, 2), NOW_MS));
    let challenge: SaslAuthenticateResponse = body(ApiKey::SaslAuthenticate, 2, answer);
    let proof = client.next(Some(&challenge.auth_bytes)).unwrap().unwrap();
    let (last, session) = authenticated(server.step(token(&proof, 2), NOW_MS));
    assert_eq!(client.next(Some(&last.auth_bytes)).unwrap(), None);
    assert_eq!(session.principal, Principal::user("root"));
    assert_eq!((last.session_lifetime_ms, session.ends_at_ms), (5000, Some(NOW_MS + 5000)));
}

#[test]
fn a_delegation_token_signs_in_as_its_owner() {
    let secret = crate::security::TokenSecret::new("cluster-secret").unwrap();
    let credential = secret.credential("id-1", Principal::user("owner"), NOW_MS + 700);
    let mut server = authenticator("0");
    let mut snapshot = CredentialSnapshot::default();
    Arc::make_mut(&mut snapshot.tokens).insert("id-1".to_owned(), Arc::new(credential));
    server.credentials.publish(snapshot);
    continued(server.step(handshake("SCRAM-SHA-256", 1), NOW_MS));
    let mut client = ClientExchange::start(ScramMechanism::Sha256, "id-1", "nonce", true);
    let answer = continued(server.step(token(&client.first(), 2), NOW_MS));
    let challenge: SaslAuthenticateResponse = body(ApiKey::SaslAuthenticate, 2, answer);
    let password = BASE64.encode(secret.hmac("id-1"));
    let proof = client.prove(&challenge.auth_bytes, &password).unwrap();
    let (last, session) = authenticated(server.step(token(&proof, 2), NOW_MS));
    client.verify(&last.auth_bytes).unwrap();
    assert_eq!(session.principal, Principal { by_token: true, ..Principal::user("owner") });
    assert_eq!(session.ends_at_ms, Some(NOW_MS + 700));
}

#[test]
fn the_older_handshake_is_followed_by_bare_tokens() {
    let mut server = authenticator("0");
    continued(server.step(handshake("PLAIN", 0), NOW_MS));
    match server.step(Bytes::from_static(b"\0alice\0secret"), NOW_MS) {
        Step::Done(response, session) => {
            assert_eq!(&bytes(response)[..], [0, 0, 0, 0]);
            assert_eq!(session.principal, Principal::user("alice"));
        }
        _ => panic!("not done"),
    }
    let mut server = authenticator("0");
    continued(server.step(handshake("PLAIN", 0), NOW_MS));
    assert!(refused(server.step(Bytes::from_static(b"\0alice\0x"), NOW_MS)).is_none());
}

#[test]
fn a_wrong_password_is_answered_and_over() {
    let mut server = authenticator("0");
    continued(server.step(handshake("PLAIN", 1), NOW_MS));
    let answer = refused(server.step(token(b"\0alice\0wrong", 2), NOW_MS)).unwrap();
    let answer: SaslAuthenticateResponse = body(ApiKey::SaslAuthenticate, 2, answer);
    assert_eq!(answer.error_code, ErrorCode::SaslAuthenticationFailed.code());
    assert!(answer.error_message.is_some());
    assert!(refused(server.step(token(b"\0alice\0secret", 2), NOW_MS)).is_none());
}

#[test]
fn an_unknown_mechanism_is_answered_with_the_known_ones() {
    let answer = refused(authenticator("0").step(handshake("GSSAPI", 1), NOW_MS)).unwrap();
    let answer: SaslHandshakeResponse = body(ApiKey::SaslHandshake, 1, answer);
    assert_eq!(answer.error_code, ErrorCode::UnsupportedSaslMechanism.code());
    assert_eq!(answer.mechanisms.len(), 3);
}

#[test]
fn requests_out_of_order_learn_nothing() {
    let versions = || request(ApiKey::ApiVersions, 3, &ApiVersionsRequest::default());
    let metadata = || request(ApiKey::Metadata, 12, &MetadataRequest::default());
    assert!(refused(authenticator("0").step(metadata(), NOW_MS)).is_none());
    assert!(refused(authenticator("0").step(token(b"\0alice\0secret", 2), NOW_MS)).is_none());
    assert!(refused(authenticator("0").step(Bytes::from_static(b"\xff\xff\xff\xff"), NOW_MS)).is_none());
    let mut server = authenticator("0");
    assert!(matches!(server.step(versions(), NOW_MS), Step::PassOn(_)));
    assert!(refused(server.step(versions(), NOW_MS)).is_none());
    let mut server = authenticator("0");
    continued(server.step(handshake("PLAIN", 1), NOW_MS));
    let answer = refused(server.step(metadata(), NOW_MS)).unwrap();
    let answer: MetadataResponse = body(ApiKey::Metadata, 12, answer);
    assert!(answer.brokers.is_empty() && answer.topics.is_empty());
}

#[test]
fn a_client_that_authenticates_anew_stays_who_it_was() {
    let fresh = authenticator("1000");
    let before =
        Session { principal: Principal::user("alice"), mechanism: Mechanism::Plain, ends_at_ms: Some(0) };
    let again =
        || Authenticator::again(Arc::clone(&fresh.settings), fresh.credentials.clone(), before.clone());
    let mut server = again();
    continued(server.step(handshake("PLAIN", 1), NOW_MS));
    let (_, session) = authenticated(server.step(token(b"\0alice\0secret", 2), NOW_MS));
    assert_eq!(session.ends_at_ms, Some(NOW_MS + 1000));
    let mut server = again();
    continued(server.step(handshake("PLAIN", 1), NOW_MS));
    assert!(refused(server.step(token(b"\0bob\0b", 2), NOW_MS)).is_some());
    assert!(refused(again().step(handshake("SCRAM-SHA-256", 1), NOW_MS)).is_some());
}

#[test]
fn a_refused_token_is_told_in_two_steps() {
    let mut server = authenticator("0");
    continued(server.step(handshake("OAUTHBEARER", 1), NOW_MS));
    let answer = continued(server.step(token(b"n,,\x01auth=Bearer a.b.c\x01\x01", 2), NOW_MS));
    let answer: SaslAuthenticateResponse = body(ApiKey::SaslAuthenticate, 2, answer);
    assert_eq!(answer.auth_bytes, oauthbearer::error_message());
    assert!(refused(server.step(token(ABORT, 2), NOW_MS)).is_some());
}

#[test]
fn tokens_of_an_authority_between_our_own_two_sides() {
    let part = |text: &str| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(text);
    let good = format!("{}.{}.", part(r#"{"alg":"none"}"#), part(r#"{"sub":"carol","exp":1003}"#));
    let login = |token: &str| ClientLogin {
        mechanism: Mechanism::OauthBearer,
        user: String::new(),
        password: Secret::new(token),
        by_token: false,
    };
    let mut server = authenticator("0");
    continued(server.step(handshake("OAUTHBEARER", 1), NOW_MS));
    let login_of_carol = login(&good);
    let mut client = ClientAuthentication::new(&login_of_carol).unwrap();
    let first = client.next(None).unwrap().unwrap();
    let (answer, session) = authenticated(server.step(token(&first, 2), NOW_MS));
    assert_eq!(session.principal, Principal::user("carol"));
    assert_eq!(client.next(Some(&answer.auth_bytes)), Ok(None));

    // One that is no good is told of, acknowledged, and then refused.
    let mut server = authenticator("0");
    continued(server.step(handshake("OAUTHBEARER", 1), NOW_MS));
    let login_of_nobody = login("a.b.c");
    let mut client = ClientAuthentication::new(&login_of_nobody).unwrap();
    let first = client.next(None).unwrap().unwrap();
    let answer = continued(server.step(token(&first, 2), NOW_MS));
    let answer: SaslAuthenticateResponse = body(ApiKey::SaslAuthenticate, 2, answer);
    let second = client.next(Some(&answer.auth_bytes)).unwrap().unwrap();
    assert_eq!(&second[..], ABORT);
    assert!(refused(server.step(token(&second, 2), NOW_MS)).is_some());
}

#[test]
fn a_token_ends_the_session_with_it() {
    let part = |text: &str| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(text);
    let jwt = format!("{}.{}.", part(r#"{"alg":"none"}"#), part(r#"{"sub":"carol","exp":1003}"#));
    let mut server = authenticator("50000");
    continued(server.step(handshake("OAUTHBEARER", 1), NOW_MS));
    let message = format!("n,,\x01auth=Bearer {jwt}\x01\x01");
    let (answer, session) = authenticated(server.step(token(message.as_bytes(), 2), NOW_MS));
    assert_eq!((answer.session_lifetime_ms, session.ends_at_ms), (3000, Some(1_003_000)));
    assert_eq!(session.principal, Principal::user("carol"));
}

proptest::proptest! {
    #[test]
    fn no_bytes_bring_it_down(
        frames in proptest::collection::vec(proptest::collection::vec(proptest::num::u8::ANY, 0..80), 1..4),
        mechanism in 0usize..3,
        is_framed in proptest::bool::ANY,
    ) {
        let name = ["PLAIN", "SCRAM-SHA-256", "OAUTHBEARER"][mechanism];
        let mut raw = authenticator("0");
        let mut server = authenticator("0");
        continued(server.step(handshake(name, i16::from(is_framed)), NOW_MS));
        for bytes in frames {
            drop(raw.step(Bytes::from(bytes.clone()), NOW_MS));
            let frame = if is_framed { token(&bytes, 2) } else { Bytes::from(bytes) };
            proptest::prop_assert!(!matches!(server.step(frame, NOW_MS), Step::Done(..)));
        }
    }

    #[test]
    fn texts_of_the_syntax_bring_nothing_down(text in "[nyparc=,;.\\-\"'\\\\ a-z0-9\u{1}\u{0}é+/]{0,60}") {
        drop(ClientFirst::parse(text.as_bytes()));
        drop(oauthbearer::parse_message(text.as_bytes()));
        drop(crate::security::sasl::jaas::Jaas::parse(&text));
        drop(crate::security::sasl::jwt::Jwt::parse(&text));
        drop(crate::security::principal_mapping::PrincipalMapping::parse(&text));
    }
}

//! The examples of RFC 7677, both sides against each other, and messages that must be refused.

use super::*;

const SERVER_NONCE: &str = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";

fn iterations(count: u32) -> NonZeroU32 {
    NonZeroU32::new(count).unwrap()
}

fn rfc_exchange() -> ServerExchange {
    let salt = BASE64.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
    let credential = ScramMechanism::Sha256.credential(b"pencil", salt.into(), iterations(4096));
    let first = ClientFirst::parse(b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO").unwrap();
    ServerExchange::start(ScramMechanism::Sha256, first, credential, SERVER_NONCE)
}

#[test]
fn the_example_of_rfc_7677_holds_on_both_sides() {
    let server = rfc_exchange();
    assert_eq!(
        server.challenge(),
        "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
    );
    let mut client = ClientExchange::start(ScramMechanism::Sha256, "user", "rOprNGfwEbeRWgbNEkqO", false);
    let proof = client.prove(&server.challenge(), "pencil").unwrap();
    assert_eq!(
        proof,
        "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
         p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
    );
    let last = server.finish(&proof).unwrap();
    assert_eq!(last, "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=");
    client.verify(&last).unwrap();
}

#[test]
fn sha_512_works_with_names_that_need_escapes_and_tokens() {
    let mechanism = ScramMechanism::Sha512;
    let mut client = ClientExchange::start(mechanism, "a=b,c", "abc", true);
    let first = ClientFirst::parse(&client.first()).unwrap();
    assert_eq!((first.user.as_str(), first.token_auth), ("a=b,c", true));
    let credential = mechanism.credential(b"p", Bytes::from_static(b"salt"), iterations(4096));
    let server = ServerExchange::start(mechanism, first, credential, "xyz");
    let proof = client.prove(&server.challenge(), "p").unwrap();
    client.verify(&server.finish(&proof).unwrap()).unwrap();
    assert!(client.verify(b"v=AAAA").is_err());
}

#[test]
fn a_wrong_password_is_refused() {
    let server = rfc_exchange();
    let mut client = ClientExchange::start(ScramMechanism::Sha256, "user", "rOprNGfwEbeRWgbNEkqO", false);
    let proof = client.prove(&server.challenge(), "pencils").unwrap();
    assert!(server.finish(&proof).is_err());
}

#[test]
fn a_changed_nonce_binding_or_proof_is_refused() {
    let nonce = format!("rOprNGfwEbeRWgbNEkqO{SERVER_NONCE}");
    for text in [
        format!("c=biws,r={nonce}x,p=AAAA"),
        format!("c=eSws,r={nonce},p=AAAA"),
        format!("c=biws,r={nonce},p=AAAA"),
        format!("c=biws,r={nonce},p=!"),
        format!("c=biws,r={nonce}"),
        "p=".to_owned(),
        String::new(),
    ] {
        assert!(rfc_exchange().finish(text.as_bytes()).is_err(), "{text}");
    }
    assert!(rfc_exchange().finish(&[0xff, 0xfe]).is_err());
}

/// librdkafka before 2.6.1: its own part of the nonce comes twice.
#[test]
fn a_nonce_that_is_said_twice_is_taken_with_the_right_password_alone() {
    let mechanism = ScramMechanism::Sha256;
    let salt = BASE64.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
    let finish = |front: &str, password: &[u8]| {
        let server = rfc_exchange();
        let without_proof = format!("c=biws,r={front}rOprNGfwEbeRWgbNEkqO{SERVER_NONCE}");
        let salted = mechanism.salted_password(password, &salt, iterations(4096));
        let client_key = mechanism.sign(&salted, b"Client Key");
        let stored_key = mechanism.hash(client_key.as_ref());
        let said = format!("{},{},{without_proof}", server.first.bare, server.server_first);
        let signature = mechanism.sign(stored_key.as_ref(), said.as_bytes());
        let proof: Vec<u8> = client_key.as_ref().iter().zip(signature.as_ref()).map(|(a, b)| a ^ b).collect();
        server.finish(format!("{without_proof},p={}", BASE64.encode(proof)).as_bytes())
    };
    assert!(finish("", b"pencil").is_ok());
    assert!(finish("rOprNGfwEbeRWgbNEkqO", b"pencil").is_ok());
    assert!(finish("rOprNGfwEbeRWgbNEkqO", b"pencils").is_err());
    assert!(finish("another's", b"pencil").is_err());
}

#[test]
fn first_messages_that_make_no_sense_are_refused() {
    for text in
        ["", "n,,", "p=x,,n=a,r=b", "n,,r=b,n=a", "n,,n=,r=b", "n,,n=a,r=", "n,,n=a=2X,r=b", "n,b,n=a,r=b"]
    {
        assert!(ClientFirst::parse(text.as_bytes()).is_err(), "{text}");
    }
    assert!(ClientFirst::parse(b"n,a=other,n=user,r=abc").is_err());
    assert!(ClientFirst::parse(b"n,a=user,n=user,r=abc").is_ok());
}

#[test]
fn a_client_does_not_answer_a_challenge_that_weakens_the_password() {
    let mut client = ClientExchange::start(ScramMechanism::Sha256, "user", "abc", false);
    for challenge in
        ["r=abcd,s=AAAA,i=1", "r=xyz,s=AAAA,i=4096", "r=abcd,s=AAAA,i=4294967295", "e=x", "r=abcd,s=A"]
    {
        assert!(client.prove(challenge.as_bytes(), "p").is_err(), "{challenge}");
    }
}

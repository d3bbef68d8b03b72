//! Tokens signed with keys made here, and tokens that must not be believed.

use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use serde_json::json;

use super::*;

struct Authority {
    key: EcdsaKeyPair,
    random: SystemRandom,
}

impl Authority {
    fn new() -> Self {
        let random = SystemRandom::new();
        let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
        let key =
            EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, document.as_ref(), &random).unwrap();
        Self { key, random }
    }

    fn keys(&self, id: &str) -> KeySet {
        let point = self.key.public_key().as_ref();
        let (x, y) = (BASE64.encode(&point[1..33]), BASE64.encode(&point[33..]));
        let document = json!({"keys": [
            {"kty": "oct", "k": "AAAA"},
            {"kty": "EC", "crv": "P-256", "kid": id, "use": "sig", "x": x, "y": y},
        ]});
        KeySet::parse(document.to_string().as_bytes()).unwrap()
    }

    fn sign(&self, header: &Value, claims: &Value) -> String {
        let signed = format!("{}.{}", BASE64.encode(header.to_string()), BASE64.encode(claims.to_string()));
        let signature = self.key.sign(&self.random, signed.as_bytes()).unwrap();
        format!("{signed}.{}", BASE64.encode(signature.as_ref()))
    }
}

#[test]
fn a_token_is_believed_only_with_the_signature_of_the_key_it_names() {
    let (authority, other) = (Authority::new(), Authority::new());
    let token = authority.sign(&json!({"alg": "ES256", "kid": "k1"}), &json!({"sub": "alice", "exp": 10.5}));
    let jwt = Jwt::parse(&token).unwrap();
    assert_eq!((jwt.text("sub"), jwt.time_ms("exp")), (Some("alice"), Ok(Some(10_500))));
    assert!(authority.keys("k1").verify(&jwt));
    assert!(!other.keys("k1").verify(&jwt));
    assert!(!authority.keys("k2").verify(&jwt) && !authority.keys("k2").knows(&jwt));
    assert_eq!(authority.keys("k1").len(), 1);
}

#[test]
fn changed_claims_or_algorithms_are_not_believed() {
    let authority = Authority::new();
    let token = authority.sign(&json!({"alg": "ES256"}), &json!({"sub": "alice"}));
    let (_, signature) = token.rsplit_once('.').unwrap();
    for (header, claims) in [
        (json!({"alg": "ES256"}), json!({"sub": "admin"})),
        (json!({"alg": "none"}), json!({"sub": "alice"})),
        (json!({"alg": "HS256"}), json!({"sub": "alice"})),
        (json!({"alg": "RS256"}), json!({"sub": "alice"})),
    ] {
        let forged = format!(
            "{}.{}.{signature}",
            BASE64.encode(header.to_string()),
            BASE64.encode(claims.to_string())
        );
        assert!(!authority.keys("k").verify(&Jwt::parse(&forged).unwrap()), "{header} {claims}");
    }
}

#[test]
fn what_is_no_token_is_an_error() {
    for text in ["", ".", "..", "a.b.c", "e30.e30", "e30.W10.", "!.e30.e30", "é.e30.e30"] {
        assert!(Jwt::parse(text).is_err(), "{text}");
    }
    assert!(Jwt::parse(&"a".repeat(TOKEN_BYTES_MAX + 1)).is_err());
    assert!(KeySet::parse(b"{}").is_err() && KeySet::parse(b"x").is_err());
}

#[test]
fn an_audience_is_a_text_or_a_list() {
    let claims =
        |aud: Value| format!("{}.{}.", BASE64.encode("{}"), BASE64.encode(json!({"aud": aud}).to_string()));
    let wanted = ["kafka".to_owned()];
    for (aud, expected) in
        [(json!("kafka"), true), (json!(["x", "kafka"]), true), (json!("x"), false), (json!(1), false)]
    {
        let token = claims(aud);
        assert_eq!(Jwt::parse(&token).unwrap().has_one_of("aud", &wanted), expected);
    }
}

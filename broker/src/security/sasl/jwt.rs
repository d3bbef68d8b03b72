//! Tokens of an authority: three parts in base64url, a header, claims, a signature (RFC 7515, RFC 7519), and the keys that
//! the authority publishes (RFC 7517).

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use ring::signature::{self, RsaPublicKeyComponents, UnparsedPublicKey};
use serde_json::Value;

/// Longest token that is read, in bytes.
const TOKEN_BYTES_MAX: usize = 64 * 1024;
/// Keys that are taken from one document.
const KEYS_MAX: usize = 256;

/// A token, taken apart but not yet trusted.
#[derive(Debug, Clone)]
pub struct Jwt<'a> {
    /// Its header.
    pub header: Value,
    /// What it claims.
    pub claims: Value,
    signed: &'a str,
    signature: Vec<u8>,
}

impl<'a> Jwt<'a> {
    /// Takes a token apart.
    pub fn parse(token: &'a str) -> Result<Self, String> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err("the token is too long".to_owned());
        }
        let (signed, signature) = token.rsplit_once('.').ok_or("the token has not three parts")?;
        let (header, claims) = signed.split_once('.').ok_or("the token has not three parts")?;
        let document = |part: &str| -> Result<Value, String> {
            let bytes = BASE64.decode(part).map_err(|_| "the token is not base64".to_owned())?;
            serde_json::from_slice::<Value>(&bytes)
                .ok()
                .filter(Value::is_object)
                .ok_or_else(|| "the token holds no JSON object".to_owned())
        };
        let signature = BASE64.decode(signature).map_err(|_| "the token is not base64".to_owned())?;
        Ok(Self { header: document(header)?, claims: document(claims)?, signed, signature })
    }

    /// How it says that it is signed.
    pub fn algorithm(&self) -> &str {
        self.header["alg"].as_str().unwrap_or_default()
    }

    /// Whether it has a signature at all.
    pub fn is_signed(&self) -> bool {
        !self.signature.is_empty()
    }

    /// The name of the key that signed it.
    pub fn key_id(&self) -> Option<&str> {
        self.header["kid"].as_str()
    }

    /// A time among the claims, seconds to milliseconds since 1970.
    pub fn time_ms(&self, claim: &str) -> Result<Option<i64>, String> {
        match &self.claims[claim] {
            Value::Null => Ok(None),
            Value::Number(seconds) => {
                let ms = seconds.as_i64().and_then(|seconds| seconds.checked_mul(1000)).or_else(|| {
                    // Some authorities write fractions.
                    let ms = seconds.as_f64()? * 1000.0;
                    #[expect(clippy::cast_possible_truncation, reason = "the range is checked")]
                    (ms.abs() < 9e15).then_some(ms as i64)
                });
                ms.map(Some).ok_or_else(|| format!("the claim {claim} is no time"))
            }
            _ => Err(format!("the claim {claim} is no time")),
        }
    }

    /// A text among the claims.
    pub fn text(&self, claim: &str) -> Option<&str> {
        self.claims[claim].as_str().filter(|text| !text.is_empty())
    }

    /// Whether a claim that is a text or a list of texts holds one of `wanted`.
    pub fn has_one_of(&self, claim: &str, wanted: &[String]) -> bool {
        let is_wanted =
            |value: &Value| value.as_str().is_some_and(|text| wanted.iter().any(|one| one == text));
        match &self.claims[claim] {
            Value::Array(all) => all.iter().any(is_wanted),
            one => is_wanted(one),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Material {
    Rsa {
        modulus: Vec<u8>,
        exponent: Vec<u8>,
    },
    /// An uncompressed point on P-256 or P-384.
    Ec {
        curve: Curve,
        point: Vec<u8>,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Curve {
    P256,
    P384,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Key {
    id: Option<String>,
    algorithm: Option<String>,
    material: Material,
}

/// The public keys of an authority.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeySet(Vec<Key>);

impl KeySet {
    /// Reads a JWK Set. Keys of other kinds or uses are left out.
    pub fn parse(document: &[u8]) -> Result<Self, String> {
        let document: Value =
            serde_json::from_slice(document).map_err(|error| format!("the keys are no JSON: {error}"))?;
        let keys = document["keys"].as_array().ok_or("the document has no 'keys'")?;
        Ok(Self(keys.iter().take(KEYS_MAX).filter_map(key).collect()))
    }

    /// How many keys there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a token's key is among them.
    pub fn knows(&self, token: &Jwt<'_>) -> bool {
        self.candidates(token).next().is_some()
    }

    fn candidates<'a>(&'a self, token: &'a Jwt<'_>) -> impl Iterator<Item = &'a Key> {
        let id = token.key_id();
        self.0.iter().filter(move |key| id.is_none() || key.id.as_deref() == id)
    }

    /// Whether one of the keys has signed a token.
    pub fn verify(&self, token: &Jwt<'_>) -> bool {
        let algorithm = token.algorithm();
        self.candidates(token)
            .filter(|key| key.algorithm.as_deref().is_none_or(|own| own == algorithm))
            .any(|key| key.verify(algorithm, token.signed.as_bytes(), &token.signature))
    }
}

fn key(value: &Value) -> Option<Key> {
    if value["use"].as_str().is_some_and(|used| used != "sig") {
        return None;
    }
    let bytes = |name: &str| BASE64.decode(value[name].as_str()?.trim_end_matches('=')).ok();
    let material = match value["kty"].as_str()? {
        "RSA" => Material::Rsa { modulus: bytes("n")?, exponent: bytes("e")? },
        "EC" => {
            let curve = match value["crv"].as_str()? {
                "P-256" => Curve::P256,
                "P-384" => Curve::P384,
                _ => return None,
            };
            let mut point = vec![4];
            point.extend(bytes("x")?);
            point.extend(bytes("y")?);
            Material::Ec { curve, point }
        }
        _ => return None,
    };
    let text = |name: &str| value[name].as_str().map(str::to_owned);
    Some(Key { id: text("kid"), algorithm: text("alg"), material })
}

impl Key {
    fn verify(&self, algorithm: &str, signed: &[u8], signature: &[u8]) -> bool {
        match &self.material {
            Material::Rsa { modulus, exponent } => {
                let parameters = match algorithm {
                    "RS256" => &signature::RSA_PKCS1_2048_8192_SHA256,
                    "RS384" => &signature::RSA_PKCS1_2048_8192_SHA384,
                    "RS512" => &signature::RSA_PKCS1_2048_8192_SHA512,
                    "PS256" => &signature::RSA_PSS_2048_8192_SHA256,
                    "PS384" => &signature::RSA_PSS_2048_8192_SHA384,
                    "PS512" => &signature::RSA_PSS_2048_8192_SHA512,
                    _ => return false,
                };
                RsaPublicKeyComponents { n: modulus, e: exponent }
                    .verify(parameters, signed, signature)
                    .is_ok()
            }
            Material::Ec { curve, point } => {
                let parameters = match (algorithm, curve) {
                    ("ES256", Curve::P256) => &signature::ECDSA_P256_SHA256_FIXED,
                    ("ES384", Curve::P384) => &signature::ECDSA_P384_SHA384_FIXED,
                    _ => return false,
                };
                UnparsedPublicKey::new(parameters, point).verify(signed, signature).is_ok()
            }
        }
    }
}

#[cfg(test)]
#[path = "jwt_tests.rs"]
mod tests;

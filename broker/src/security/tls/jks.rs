//! Java's own key store format: entries, each key hidden by a stream made of the password, a digest at the end.

use ring::digest::{Context, SHA1_FOR_LEGACY_USE_ONLY};
use subtle::ConstantTimeEq;

use super::store::KeyStore;
use crate::security::der::{OCTETS, Reader, SEQUENCE};

const MAGIC: [u8; 4] = [0xfe, 0xed, 0xfe, 0xed];
const DIGEST_BYTES: usize = 20;
const KEY_ENTRY: u32 = 1;
const CERTIFICATE_ENTRY: u32 = 2;
/// Stands between the password and the content in the digest of a file.
const WHITENER: &[u8] = b"Mighty Aphrodite";

/// Whether bytes are a store of this format.
pub(super) fn is_jks(bytes: &[u8]) -> bool {
    bytes.starts_with(&MAGIC)
}

/// Reads a store. Without a password the digest is not checked and keys stay closed; `key_password` opens keys.
pub(super) fn parse(
    bytes: &[u8],
    password: Option<&str>,
    key_password: Option<&str>,
) -> Result<KeyStore, String> {
    let cut = || "the key store ends too early".to_owned();
    let content_bytes = bytes.len().checked_sub(DIGEST_BYTES).ok_or_else(cut)?;
    let (content, digest) = bytes.split_at(content_bytes);
    if let Some(password) = password {
        let expected = sha1(&[&utf16(password), WHITENER, content]);
        if !bool::from(expected.ct_eq(digest)) {
            return Err("the key store was changed, or its password is wrong".to_owned());
        }
    }
    let mut input = Input(content.get(4..).ok_or_else(cut)?);
    let version = input.u32().ok_or_else(cut)?;
    let count = input.u32().ok_or_else(cut)?;
    let mut store = KeyStore::default();
    for _ in 0..count {
        let tag = input.u32().ok_or_else(cut)?;
        input.text().ok_or_else(cut)?;
        // When the entry was made.
        input.take(8).ok_or_else(cut)?;
        match tag {
            KEY_ENTRY => {
                let sealed = input.bytes().ok_or_else(cut)?;
                let chain_length = input.u32().ok_or_else(cut)?;
                let mut chain = Vec::new();
                for _ in 0..chain_length {
                    chain.push(certificate(&mut input, version).ok_or_else(cut)?.to_vec());
                }
                // As in Java the first key counts.
                if store.key.is_none()
                    && let Some(key_password) = key_password
                {
                    store.key = Some(open(sealed, key_password)?);
                    store.chain = chain;
                }
            }
            CERTIFICATE_ENTRY => {
                store.trusted.push(certificate(&mut input, version).ok_or_else(cut)?.to_vec());
            }
            _ => return Err(format!("the key store has an entry of an unknown kind, {tag}")),
        }
    }
    Ok(store)
}

fn certificate<'a>(input: &mut Input<'a>, version: u32) -> Option<&'a [u8]> {
    if version >= 2 {
        input.text()?;
    }
    input.bytes()
}

/// Opens a key: 20 bytes of salt, the hidden key, 20 bytes of digest.
fn open(sealed: &[u8], password: &str) -> Result<Vec<u8>, String> {
    let wrong = || "a private key in the key store cannot be read".to_owned();
    let mut info = Reader::new(sealed).expect(SEQUENCE).ok_or_else(wrong)?.inner();
    info.expect(SEQUENCE).ok_or_else(wrong)?;
    let hidden = info.expect(OCTETS).ok_or_else(wrong)?.content;
    let length = hidden.len().checked_sub(2 * DIGEST_BYTES).ok_or_else(wrong)?;
    let (salt, rest) = hidden.split_at(DIGEST_BYTES);
    let (body, digest) = rest.split_at(length);
    let password = utf16(password);
    let mut block = sha1(&[&password, salt]);
    let mut key = Vec::with_capacity(length);
    for chunk in body.chunks(DIGEST_BYTES) {
        key.extend(chunk.iter().zip(&block).map(|(byte, mask)| byte ^ mask));
        block = sha1(&[&password, &block]);
    }
    if !bool::from(sha1(&[&password, &key]).ct_eq(digest)) {
        return Err("the password of a private key in the key store is wrong (ssl.key.password)".to_owned());
    }
    Ok(key)
}

fn sha1(parts: &[&[u8]]) -> Vec<u8> {
    let mut context = Context::new(&SHA1_FOR_LEGACY_USE_ONLY);
    for part in parts {
        context.update(part);
    }
    context.finish().as_ref().to_vec()
}

fn utf16(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_be_bytes).collect()
}

struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take(4)?.try_into().ok().map(u32::from_be_bytes)
    }

    fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = self.u32()?;
        self.take(usize::try_from(length).ok()?)
    }

    fn text(&mut self) -> Option<&'a [u8]> {
        let length = u16::from_be_bytes(self.take(2)?.try_into().ok()?);
        self.take(usize::from(length))
    }
}

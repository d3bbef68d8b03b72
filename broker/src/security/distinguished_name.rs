//! The subject of a certificate as Java's `X500Principal.getName()` writes it (RFC 2253): the last part first, names of nine
//! attribute types, everything else as numbers and hexadecimal bytes.

use std::fmt::Write;

use super::der::{INTEGER, OID, Reader, SEQUENCE, SET, Value};

/// Attribute types with a keyword, by the content of their object identifier.
const KEYWORDS: [(&[u8], &str); 9] = [
    (&[0x55, 0x04, 0x03], "CN"),
    (&[0x55, 0x04, 0x06], "C"),
    (&[0x55, 0x04, 0x07], "L"),
    (&[0x55, 0x04, 0x08], "ST"),
    (&[0x55, 0x04, 0x09], "STREET"),
    (&[0x55, 0x04, 0x0a], "O"),
    (&[0x55, 0x04, 0x0b], "OU"),
    (&[0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 0x01, 0x19], "DC"),
    (&[0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 0x01, 0x01], "UID"),
];

/// Signs that stand behind a backslash.
const ESCAPED: &str = ",+\"\\<>;";

/// The subject of a certificate; `None` where it cannot be read.
pub(super) fn subject(certificate: &[u8]) -> Option<String> {
    let mut to_be_signed = Reader::new(certificate).expect(SEQUENCE)?.inner().expect(SEQUENCE)?.inner();
    // [0] version
    if to_be_signed.peek()? == 0xa0 {
        to_be_signed.next()?;
    }
    to_be_signed.expect(INTEGER)?;
    // signature algorithm, issuer, validity
    for _ in 0..3 {
        to_be_signed.expect(SEQUENCE)?;
    }
    name(&to_be_signed.expect(SEQUENCE)?)
}

fn name(value: &Value<'_>) -> Option<String> {
    let mut parts = Vec::new();
    let mut sets = value.inner();
    while sets.peek().is_some() {
        let mut attributes = sets.expect(SET)?.inner();
        let mut together = Vec::new();
        while attributes.peek().is_some() {
            together.push(attribute(&attributes.expect(SEQUENCE)?)?);
        }
        parts.push(together.join("+"));
    }
    parts.reverse();
    Some(parts.join(","))
}

fn attribute(value: &Value<'_>) -> Option<String> {
    let mut inner = value.inner();
    let (kind, content) = (inner.expect(OID)?.content, inner.next()?);
    let keyword = KEYWORDS.iter().find(|(id, _)| *id == kind).map(|(_, keyword)| *keyword);
    Some(match (keyword, text(&content)) {
        (Some(keyword), Some(text)) => format!("{keyword}={}", escape(&text)),
        (keyword, _) => {
            let kind = keyword.map_or_else(|| dotted(kind), str::to_owned);
            let mut out = format!("{kind}=#");
            for byte in content.whole {
                write!(out, "{byte:02x}").ok()?;
            }
            out
        }
    })
}

/// A string of any of ASN.1's kinds.
fn text(value: &Value<'_>) -> Option<String> {
    match value.tag {
        // UTF8String, PrintableString, IA5String, NumericString
        0x0c | 0x13 | 0x16 | 0x12 => String::from_utf8(value.content.to_vec()).ok(),
        // T61String, taken as Latin-1
        0x14 => Some(value.content.iter().copied().map(char::from).collect()),
        // BMPString
        0x1e => {
            let units = value.content.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]]));
            String::from_utf16(&units.collect::<Vec<_>>()).ok()
        }
        _ => None,
    }
}

fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let last = text.chars().count().saturating_sub(1);
    for (at, c) in text.chars().enumerate() {
        let is_edge_space = c == ' ' && (at == 0 || at == last);
        if ESCAPED.contains(c) || is_edge_space || c == '#' && at == 0 {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

/// An object identifier in numbers.
fn dotted(content: &[u8]) -> String {
    let mut numbers = Vec::new();
    let mut number = 0u64;
    for byte in content {
        number = number << 7 | u64::from(byte & 0x7f);
        if byte & 0x80 == 0 {
            numbers.push(number);
            number = 0;
        }
    }
    if let Some(first) = numbers.first().copied() {
        let root = (first / 40).min(2);
        numbers.splice(..1, [root, first - root * 40]);
    }
    numbers.iter().map(u64::to_string).collect::<Vec<_>>().join(".")
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};

    use super::*;

    fn subject_of(parts: &[(DnType, &str)]) -> String {
        let mut params = CertificateParams::new([]).unwrap();
        params.distinguished_name = DistinguishedName::new();
        for (kind, text) in parts {
            params.distinguished_name.push(kind.clone(), *text);
        }
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        subject(certificate.der()).unwrap()
    }

    #[test]
    fn the_last_part_stands_first() {
        let parts = [
            (DnType::CountryName, "CH"),
            (DnType::OrganizationName, "clients"),
            (DnType::CommonName, "carol"),
        ];
        assert_eq!(subject_of(&parts), "CN=carol,O=clients,C=CH");
    }

    #[test]
    fn signs_of_the_syntax_are_escaped() {
        let parts = [(DnType::OrganizationName, "a, b+c"), (DnType::CommonName, "#x\\ ")];
        assert_eq!(subject_of(&parts), r"CN=\#x\\\ ,O=a\, b\+c");
    }

    #[test]
    fn types_without_a_keyword_are_numbers() {
        let email = DnType::CustomDnType(vec![1, 2, 840, 113_549, 1, 9, 1]);
        assert_eq!(subject_of(&[(email, "a")]), "1.2.840.113549.1.9.1=#0c0161");
    }

    #[test]
    fn what_is_no_certificate_has_no_subject() {
        assert_eq!(subject(b""), None);
        assert_eq!(subject(&[0x30, 0x02, 0x30, 0x00]), None);
    }

    proptest::proptest! {
        #[test]
        fn a_changed_certificate_brings_nothing_down(at in 0usize..400, byte in proptest::num::u8::ANY, cut in 0usize..400) {
            let mut certificate =
                CertificateParams::new([]).unwrap().self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec();
            let at = at % certificate.len();
            certificate[at] = byte;
            drop(subject(&certificate));
            certificate.truncate(cut);
            drop(subject(&certificate));
        }
    }
}

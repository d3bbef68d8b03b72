//! Certificates that end soon; and as much of X.509 (RFC 5280, 4.1) as it takes to find out: the walk to `validity`.

use super::{Finding, Level, Readings};
use crate::calendar::days_since_1970;

/// Days before its end from which on a certificate is urgent.
const DAYS_URGENT: i64 = 7;
/// Days before its end from which on a certificate is to be replaced.
const DAYS_SOON: i64 = 30;
const DAY_S: i64 = 86_400;

const SEQUENCE: u8 = 0x30;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
/// The version stands in front only of certificates of version 2 on.
const VERSION: u8 = 0xa0;

/// Judges all certificates.
pub(super) fn check(readings: &Readings) -> Vec<Finding> {
    let judge = |certificate: &super::readings::Certificate| {
        let check = format!("certificate of {}", certificate.property);
        let mend =
            "replace it: a running node reads a file anew within seconds, and an inline chain when it is set";
        match &certificate.ends_s {
            Err(reason) => Finding::bad(
                Level::Problem,
                check,
                reason.clone(),
                "a listener with TLS does not start without it",
                "name a file that the node's user can read",
            ),
            Ok(ends_s) => {
                let days = (ends_s - readings.now_s).div_euclid(DAY_S);
                let why = "from then on no client and no broker accepts it";
                if *ends_s <= readings.now_s {
                    Finding::bad(Level::Problem, check, format!("ended {} days ago", -days), why, mend)
                } else if days < DAYS_SOON {
                    let level = if days < DAYS_URGENT { Level::Problem } else { Level::Warning };
                    Finding::bad(level, check, format!("ends in {days} days"), why, mend)
                } else {
                    Finding::ok(check, format!("ends in {days} days"))
                }
            }
        }
    };
    readings.certificates.iter().map(judge).collect()
}

/// When the first certificate of a chain to end does so; each is DER,, in seconds since 1970.
pub(super) fn chain_ends_s(chain: &[Vec<u8>]) -> Result<i64, String> {
    let ends = |der: &Vec<u8>| not_after(der).ok_or("holds a certificate that cannot be read");
    let all = chain.iter().map(ends).collect::<Result<Vec<_>, _>>()?;
    all.into_iter().min().ok_or_else(|| "holds no certificate".to_owned())
}

/// Certificate, its signed part, then past version, serial number, algorithm and issuer to the validity's second time.
fn not_after(der: &[u8]) -> Option<i64> {
    let (certificate, _) = expect(der, SEQUENCE)?;
    let (signed, _) = expect(certificate, SEQUENCE)?;
    let mut rest = match element(signed)? {
        (VERSION, _, rest) => rest,
        _ => signed,
    };
    for _ in 0..3 {
        (_, _, rest) = element(rest)?;
    }
    let (validity, _) = expect(rest, SEQUENCE)?;
    let (_, _, second) = element(validity)?;
    let (tag, text, _) = element(second)?;
    time(tag, text)
}

fn expect(der: &[u8], wanted: u8) -> Option<(&[u8], &[u8])> {
    element(der).filter(|(tag, ..)| *tag == wanted).map(|(_, content, rest)| (content, rest))
}

/// Tag, content, and what follows.
fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = der.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = if first < 0x80 {
        (usize::from(first), rest)
    } else {
        // Lengths of certificates fit four bytes by far.
        let count = usize::from(first & 0x7f);
        if count == 0 || count > 4 {
            return None;
        }
        let (bytes, rest) = rest.split_at_checked(count)?;
        (bytes.iter().fold(0, |sum, byte| (sum << 8) | usize::from(*byte)), rest)
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}

/// `YYMMDDHHMMSSZ` with years up to 2049, or `YYYYMMDDHHMMSSZ`.
fn time(tag: u8, text: &[u8]) -> Option<i64> {
    let digits = std::str::from_utf8(text).ok()?.strip_suffix('Z')?;
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let number = |from: usize, length: usize| digits.get(from..from + length)?.parse::<i64>().ok();
    let (year, at) = match tag {
        UTC_TIME => {
            let year = number(0, 2)?;
            (if year < 50 { 2000 + year } else { 1900 + year }, 2)
        }
        GENERALIZED_TIME => (number(0, 4)?, 4),
        _ => return None,
    };
    let (month, day) = (number(at, 2)?, number(at + 2, 2)?);
    let (hour, minute, second) = (number(at + 4, 2)?, number(at + 6, 2)?, number(at + 8, 2)?);
    Some(days_since_1970(year, month, day)? * DAY_S + hour * 3_600 + minute * 60 + second)
}

#[cfg(test)]
mod tests {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;

    use super::*;
    use crate::doctor::readings::Certificate;

    /// Made with openssl, an elliptic key; it ends on 2030-01-02 03:04:05 UTC.
    const PEM: &str = include_str!("testdata/ends-2030-01-02.pem");

    fn der() -> Vec<u8> {
        let body: String = PEM.lines().filter(|line| !line.starts_with('-')).collect();
        STANDARD.decode(body).unwrap()
    }

    #[test]
    fn the_end_of_a_real_certificate_is_found() {
        assert_eq!(chain_ends_s(&[der(), der()]), Ok(1_893_553_445));
        assert!(chain_ends_s(&[]).is_err() && chain_ends_s(&[vec![0x30]]).is_err());
    }

    #[test]
    fn times_have_two_forms() {
        assert_eq!(time(UTC_TIME, b"491231235959Z"), time(GENERALIZED_TIME, b"20491231235959Z"));
        assert_eq!(time(UTC_TIME, b"700101000000Z"), Some(0));
        for wrong in [&b""[..], b"Z", b"7001010000Z", b"70010100000xZ", b"700101000000"] {
            assert_eq!(time(UTC_TIME, wrong), None);
        }
    }

    #[test]
    fn whatever_is_cut_off_or_changed_is_an_error_and_no_panic() {
        let der = der();
        assert!(not_after(&der).is_some());
        for end in 0..der.len() {
            assert_eq!(not_after(&der[..end]), None);
        }
        for at in 0..der.len() {
            for value in [0x00, 0x30, 0x7f, 0x80, 0x84, 0xff] {
                let mut changed = der.clone();
                changed[at] = value;
                not_after(&changed);
            }
        }
    }

    #[test]
    fn the_nearer_the_end_the_worse() {
        let of = |ends_s: Result<i64, String>| {
            let certificates = vec![Certificate { property: "ssl.keystore.location".into(), ends_s }];
            check(&Readings { certificates, now_s: 1_000 * DAY_S, ..Readings::default() }).remove(0)
        };
        assert_eq!(of(Ok(1_030 * DAY_S)).level, Level::Ok);
        assert_eq!(of(Ok(1_029 * DAY_S)).level, Level::Warning);
        assert_eq!(of(Ok(1_006 * DAY_S)).level, Level::Problem);
        let ended = of(Ok(990 * DAY_S));
        assert_eq!((ended.level, ended.finding.as_str()), (Level::Problem, "ended 10 days ago"));
        assert_eq!(of(Err("cannot be read".into())).level, Level::Problem);
    }
}

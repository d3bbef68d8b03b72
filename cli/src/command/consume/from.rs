//! `--from`: where reading begins.

use std::collections::BTreeMap;

use crate::client::ClientError;
use crate::client::cluster::Cluster;
use crate::client::offsets::{self, EARLIEST, LATEST, TopicPartition};
use crate::client::producer::now_ms;
use crate::parse;

/// Where reading begins, of each partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum From {
    /// With the first record.
    Beginning,
    /// With what comes from now on.
    End,
    /// With this offset.
    Offset(i64),
    /// So many offsets before the end.
    Last(i64),
    /// With the first record of this time (ms since 1970) or later.
    Time(i64),
}

impl From {
    /// `beginning`, `end`, `42`, `-10`, `-15m`, `2026-01-31T12:00:00Z`, `@1700000000000`.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "'{text}' is no place to begin; write beginning, end, an offset (42), the last records (-10), a time ago \
                 (-15m), a time (2026-01-31T12:00:00Z) or milliseconds since 1970 (@1700000000000)"
            )
        };
        let number =
            |digits: &str| digits.parse::<i64>().ok().filter(|_| digits.bytes().all(|b| b.is_ascii_digit()));
        match text {
            "beginning" | "earliest" => return Ok(Self::Beginning),
            "end" | "latest" => return Ok(Self::End),
            _ => {}
        }
        if let Some(ms) = text.strip_prefix('@') {
            return number(ms).map(Self::Time).ok_or_else(wrong);
        }
        if let Some(back) = text.strip_prefix('-') {
            if let Some(count) = number(back) {
                return Ok(Self::Last(count));
            }
            let ago = parse::duration(back).map_err(|_| wrong())?;
            let ago_ms = i64::try_from(ago.as_millis()).map_err(|_| wrong())?;
            return Ok(Self::Time(now_ms().saturating_sub(ago_ms)));
        }
        number(text).map(Self::Offset).or_else(|| time(text).map(Self::Time)).ok_or_else(wrong)
    }

    /// The offsets that it means.
    pub(crate) async fn resolve(
        self,
        cluster: &mut Cluster,
        partitions: &[TopicPartition],
        read_committed: bool,
    ) -> Result<BTreeMap<TopicPartition, i64>, ClientError> {
        let all = |timestamp: i64| {
            partitions.iter().map(|one| (one.clone(), timestamp)).collect::<BTreeMap<_, _>>()
        };
        match self {
            Self::Beginning => offsets::list(cluster, &all(EARLIEST), read_committed).await,
            Self::End => offsets::list(cluster, &all(LATEST), read_committed).await,
            Self::Offset(offset) => Ok(all(offset)),
            Self::Last(count) => {
                let first = offsets::list(cluster, &all(EARLIEST), read_committed).await?;
                let mut last = offsets::list(cluster, &all(LATEST), read_committed).await?;
                for (partition, end) in &mut last {
                    *end = end.saturating_sub(count).max(first.get(partition).copied().unwrap_or(0));
                }
                Ok(last)
            }
            Self::Time(ms) => {
                let mut found = offsets::list(cluster, &all(ms), read_committed).await?;
                // Nothing is that late: what comes from now on.
                let late: BTreeMap<_, _> = found
                    .iter()
                    .filter(|(_, offset)| **offset < 0)
                    .map(|(one, _)| (one.clone(), LATEST))
                    .collect();
                if !late.is_empty() {
                    found.extend(offsets::list(cluster, &late, read_committed).await?);
                }
                Ok(found)
            }
        }
    }
}

/// RFC 3339, or its date alone: milliseconds since 1970. Without a zone it is UTC.
fn time(text: &str) -> Option<i64> {
    let (date, clock) = match text.split_once(['T', ' ']) {
        Some((date, clock)) => (date, clock),
        None => (text, "00:00:00Z"),
    };
    let [year, month, day] = numbers::<3>(date, '-')?;
    let (clock, zone_minutes) = match clock.strip_suffix('Z') {
        Some(clock) => (clock, 0),
        None => match clock.rfind(['+', '-']) {
            Some(at) => {
                let [hours, minutes] = numbers::<2>(&clock[at + 1..], ':')?;
                let sign = if clock[at..].starts_with('-') { -1 } else { 1 };
                (&clock[..at], sign * (hours * 60 + minutes))
            }
            None => (clock, 0),
        },
    };
    let (whole, fraction) = clock.split_once('.').unwrap_or((clock, ""));
    let [hour, minute, second] =
        numbers::<3>(whole, ':').or_else(|| numbers::<2>(whole, ':').map(|[h, m]| [h, m, 0]))?;
    if !(1970..=9999).contains(&year) || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    if hour > 23 || minute > 59 || second > 60 || zone_minutes.abs() > 18 * 60 {
        return None;
    }
    let ms: i64 = if fraction.is_empty() { 0 } else { format!("{fraction:0<3}").get(..3)?.parse().ok()? };
    let seconds = days(year, month, day) * 86_400 + hour * 3_600 + minute * 60 + second - zone_minutes * 60;
    Some(seconds * 1_000 + ms)
}

/// Exactly `N` unsigned numbers.
fn numbers<const N: usize>(text: &str, separator: char) -> Option<[i64; N]> {
    let parts: Vec<i64> = text
        .split(separator)
        .map(|part| {
            part.parse::<u16>().ok().filter(|_| part.bytes().all(|b| b.is_ascii_digit())).map(i64::from)
        })
        .collect::<Option<_>>()?;
    parts.try_into().ok()
}

/// Days since 1970 of the Gregorian calendar: years begin in March, so that the leap day is the last of a year.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    year * 365 + year / 4 - year / 100 + year / 400 + of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_to_begin() {
        assert_eq!(From::parse("beginning"), Ok(From::Beginning));
        assert_eq!(From::parse("end"), Ok(From::End));
        assert_eq!(From::parse("42"), Ok(From::Offset(42)));
        assert_eq!(From::parse("-10"), Ok(From::Last(10)));
        assert_eq!(From::parse("@1700000000000"), Ok(From::Time(1_700_000_000_000)));
        let Ok(From::Time(ms)) = From::parse("-15m") else { panic!("not a time") };
        assert!((now_ms() - 900_000 - ms).abs() < 60_000);
        for wrong in ["", "x", "--1", "@x", "-15x", "2026-13-01", "2026-01-01T25:00:00Z", "+3"] {
            assert!(From::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn times_are_read_with_their_zones() {
        assert_eq!(time("1970-01-01T00:00:00Z"), Some(0));
        assert_eq!(time("2023-11-14T22:13:20Z"), Some(1_700_000_000_000));
        assert_eq!(time("2023-11-14T22:13:20.25Z"), Some(1_700_000_000_250));
        assert_eq!(time("2023-11-15T00:13:20+02:00"), Some(1_700_000_000_000));
        assert_eq!(time("2023-11-14 22:13"), Some(1_699_999_980_000));
        assert_eq!(time("2024-02-29"), Some(1_709_164_800_000));
        assert_eq!(time("2000-03-01"), Some(951_868_800_000));
    }
}

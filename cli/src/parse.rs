//! Values that users type: durations, `name=value`, replica assignments, patterns.

use std::time::Duration;

/// `30s`, `500ms`, `2m`, `1h`, `1d`; a bare number is seconds.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let wrong = || format!("'{text}' is not a duration; write 500ms, 30s, 2m or 1h");
    let count: u64 = number.parse().map_err(|_| wrong())?;
    let unit_ms: u64 = match unit {
        "ms" => 1,
        "" | "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(wrong()),
    };
    count.checked_mul(unit_ms).map(Duration::from_millis).ok_or_else(wrong)
}

/// A duration as it is typed.
pub(crate) fn show_duration(duration: Duration) -> String {
    let ms = duration.as_millis();
    if ms.is_multiple_of(1_000) { format!("{}s", ms / 1_000) } else { format!("{ms}ms") }
}

/// `500`, `64KB`, `50MB`, `1GB`, and `KiB` to `GiB` in steps of 1024.
pub(crate) fn bytes(text: &str) -> Result<u64, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let wrong = || format!("'{text}' is not a number of bytes; write 500, 64KB, 50MB or 1GiB");
    let count: u64 = number.parse().map_err(|_| wrong())?;
    let unit_bytes: u64 = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kb" => 1_000,
        "m" | "mb" => 1_000_000,
        "g" | "gb" => 1_000_000_000,
        "kib" => 1 << 10,
        "mib" => 1 << 20,
        "gib" => 1 << 30,
        _ => return Err(wrong()),
    };
    count.checked_mul(unit_bytes).ok_or_else(wrong)
}

/// `name=value`; the value may be empty and may hold further `=`.
pub(crate) fn name_value(text: &str) -> Result<(String, String), String> {
    let (name, value) =
        text.split_once('=').ok_or_else(|| format!("'{text}' has no '='; write name=value"))?;
    if name.trim().is_empty() {
        return Err(format!("'{text}' has no name in front of '='"));
    }
    Ok((name.trim().to_owned(), value.to_owned()))
}

/// `1:2:3,2:3:1`: the replicas of each partition, the preferred leader first.
pub(crate) fn assignment(text: &str) -> Result<Vec<Vec<i32>>, String> {
    text.split(',')
        .map(|partition| {
            partition
                .split(':')
                .map(|broker| {
                    broker.trim().parse::<i32>().ok().filter(|id| *id >= 0).ok_or_else(|| {
                        format!(
                            "'{broker}' in '{text}' is no broker id; write 1:2:3,2:3:1, one group a partition"
                        )
                    })
                })
                .collect()
        })
        .collect()
}

/// Whether a name fits a pattern of `*` and `?`; a pattern with neither fits every name that holds it.
pub(crate) fn matches(pattern: &str, name: &str) -> bool {
    if !pattern.contains(['*', '?']) {
        return name.contains(pattern);
    }
    // The usual walk with one point to come back to: linear in space, no recursion on what a user typed.
    let (pattern, name): (Vec<char>, Vec<char>) = (pattern.chars().collect(), name.chars().collect());
    let (mut p, mut n) = (0, 0);
    let mut back: Option<(usize, usize)> = None;
    while n < name.len() {
        match pattern.get(p) {
            Some('*') => {
                back = Some((p, n));
                p += 1;
            }
            Some(c) if *c == '?' || *c == name[n] => {
                p += 1;
                n += 1;
            }
            _ => match back {
                Some((star, from)) => {
                    back = Some((star, from + 1));
                    p = star + 1;
                    n = from + 1;
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}

/// `\n`, `\t`, `\r`, `\0`, `\\` in what a shell cannot type easily.
pub(crate) fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        match chars.next() {
            Some('n') => out.push('\n'),
            Some('t') => out.push('\t'),
            Some('r') => out.push('\r'),
            Some('0') => out.push('\0'),
            Some('\\') | None => out.push('\\'),
            Some(other) => {
                out.push('\\');
                out.push(other);
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_units_and_seconds_are_the_default() {
        assert_eq!(duration("30s"), Ok(Duration::from_secs(30)));
        assert_eq!(duration("30"), Ok(Duration::from_secs(30)));
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        assert_eq!(duration("1d"), Ok(Duration::from_secs(86_400)));
        for wrong in ["", "s", "-1s", "1.5s", "10 s", "99999999999999999999s", "18446744073709551615h", "3w"]
        {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
        assert_eq!(show_duration(Duration::from_millis(1_500)), "1500ms");
        assert_eq!(show_duration(Duration::from_secs(60)), "60s");
    }

    #[test]
    fn names_and_values_are_split_at_the_first_sign() {
        assert_eq!(name_value("a=b=c"), Ok(("a".into(), "b=c".into())));
        assert_eq!(name_value("a="), Ok(("a".into(), String::new())));
        assert!(name_value("a").is_err());
        assert!(name_value("=b").is_err());
    }

    #[test]
    fn assignments_have_a_group_for_each_partition() {
        assert_eq!(assignment("1:2,2:1"), Ok(vec![vec![1, 2], vec![2, 1]]));
        for wrong in ["", "1:", "a", "1,,2", "-1"] {
            assert!(assignment(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn patterns_know_stars_and_question_marks() {
        assert!(matches("ord*", "orders"));
        assert!(matches("*rs", "orders"));
        assert!(matches("o*d*s", "orders"));
        assert!(matches("order?", "orders"));
        assert!(matches("*", ""));
        assert!(!matches("order?", "order"));
        assert!(!matches("x*", "orders"));
        assert!(matches("rder", "orders"));
        assert!(!matches("o*x", "orders"));
    }

    #[test]
    fn escapes_become_what_they_stand_for() {
        assert_eq!(unescape(r"%v\n\t\\\q\"), "%v\n\t\\\\q\\");
    }
}

//! What a share group has set of its own, or the node for it.

use std::collections::BTreeMap;

use ottla_coordinator::share_partition::ShareLimits;
use ottla_metadata::image::MetadataImage;
use ottla_proto::metadata::ResourceType;

use crate::replica::Isolation;

/// Where a group begins to read a partition (`share.auto.offset.reset`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OffsetReset {
    Latest,
    Earliest,
    /// The first record of the last so many milliseconds.
    By(i64),
}

/// See the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct GroupSettings {
    pub(super) limits: ShareLimits,
    pub(super) reset: OffsetReset,
    /// `share.isolation.level`
    pub(super) isolation: Isolation,
    /// `share.renew.acknowledge.enable`
    pub(super) may_renew: bool,
}

/// A group's settings as the cluster has them now.
pub(super) fn of(image: &MetadataImage, group_id: &str, limits: ShareLimits) -> GroupSettings {
    let nothing = BTreeMap::new();
    let configs = image.config(ResourceType::Group, group_id).unwrap_or(&nothing);
    let text = |name: &str| configs.get(name).map(|value| value.trim());
    GroupSettings {
        limits: ShareLimits {
            delivery_count: number(text("share.delivery.count.limit")).unwrap_or(limits.delivery_count),
            record_locks: number(text("share.partition.max.record.locks")).unwrap_or(limits.record_locks),
            lock_duration_ms: number(text("share.record.lock.duration.ms"))
                .unwrap_or(limits.lock_duration_ms),
        },
        reset: text("share.auto.offset.reset").map_or(OffsetReset::Latest, reset),
        isolation: match text("share.isolation.level") {
            Some("read_committed") => Isolation::ReadCommitted,
            _ => Isolation::ReadUncommitted,
        },
        may_renew: text("share.renew.acknowledge.enable") != Some("false"),
    }
}

fn number<N: std::str::FromStr>(text: Option<&str>) -> Option<N> {
    text?.parse().ok()
}

fn reset(text: &str) -> OffsetReset {
    match text.strip_prefix("by_duration:") {
        Some(duration) => duration_ms(duration).map_or(OffsetReset::Latest, OffsetReset::By),
        None if text == "earliest" => OffsetReset::Earliest,
        None => OffsetReset::Latest,
    }
}

/// `PnDTnHnMn.nS` in milliseconds; the metadata plane has checked it.
fn duration_ms(text: &str) -> Option<i64> {
    let upper = text.to_ascii_uppercase();
    let mut total_ms = 0_i64;
    let mut number = String::new();
    for letter in upper.strip_prefix('P')?.chars() {
        let unit_ms = match letter {
            '0'..='9' | '.' => {
                number.push(letter);
                continue;
            }
            'T' => continue,
            'D' => 86_400_000,
            'H' => 3_600_000,
            'M' => 60_000,
            'S' => 1_000,
            _ => return None,
        };
        let (whole, part) = number.split_once('.').unwrap_or((&number, ""));
        let whole: i64 = whole.parse().ok()?;
        // Milliseconds are as fine as time stamps are.
        let thousandths: i64 = format!("{part:0<3}").get(..3)?.parse().ok()?;
        let part_ms = if unit_ms == 1_000 { thousandths } else { 0 };
        total_ms = total_ms.saturating_add(whole.saturating_mul(unit_ms)).saturating_add(part_ms);
        number.clear();
    }
    number.is_empty().then_some(total_ms)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_those_of_iso_8601() {
        assert_eq!(reset("latest"), OffsetReset::Latest);
        assert_eq!(reset("earliest"), OffsetReset::Earliest);
        assert_eq!(reset("by_duration:PT1H"), OffsetReset::By(3_600_000));
        assert_eq!(reset("by_duration:P1DT2H3M4.5S"), OffsetReset::By(93_784_500));
        assert_eq!(reset("by_duration:pt0.0015s"), OffsetReset::By(1));
        assert_eq!(reset("by_duration:P99999999999999999D"), OffsetReset::By(i64::MAX));
    }

    #[test]
    fn what_a_group_has_not_set_is_the_nodes() {
        let settings = of(&MetadataImage::default(), "g", ShareLimits::default());
        assert_eq!(settings.limits, ShareLimits::default());
        assert!(settings.may_renew && settings.reset == OffsetReset::Latest);
    }
}

//! Share groups for Prometheus.

use std::fmt::Write;

use super::ShareService;

/// Types of acknowledgement by their numbers.
const ACKNOWLEDGED: [&str; 5] = ["gap", "accept", "release", "reject", "renew"];

impl ShareService {
    /// The metrics of this broker's share-partitions and sessions.
    pub(crate) fn page(&self) -> String {
        let mut page = String::new();
        let (sessions, session_partitions, partitions, acquired) = self.counts();
        let size = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        let gauges = [
            ("share_sessions", "Share sessions of this broker", size(sessions)),
            ("share_session_partitions", "Partitions of all share sessions", size(session_partitions)),
            ("share_partitions", "Share-partitions in memory at this leader", size(partitions)),
            ("share_acquired_offsets", "Offsets that members of share groups have now", acquired),
        ];
        // Writing to a string cannot fail.
        for (name, help, value) in gauges {
            let _ = write!(
                page,
                "# HELP ottla_{name} {help}.\n# TYPE ottla_{name} gauge\nottla_{name} {value}\n"
            );
        }
        let counters = &self.counters;
        let counted = [
            ("share_fetches", "ShareFetch requests", &counters.fetches),
            ("share_failed_fetches", "ShareFetch requests that were refused", &counters.failed_fetches),
            ("share_acknowledges", "Partitions that members said something of", &counters.acknowledges),
            ("share_failed_acknowledges", "Of these the refused ones", &counters.failed_acknowledges),
            ("share_acquired_records", "Offsets given to members", &counters.acquired_records),
            ("share_expired_locks", "Offsets taken back after the lock duration", &counters.expired_locks),
        ];
        for (name, help, counter) in counted {
            let value = counter.get();
            let _ = write!(
                page,
                "# HELP ottla_{name} {help}.\n# TYPE ottla_{name} counter\nottla_{name}_total {value}\n"
            );
        }
        page.push_str(
            "# HELP ottla_share_acknowledged_records Offsets that members said something of, by what they said.\n\
             # TYPE ottla_share_acknowledged_records counter\n",
        );
        for (kind, counter) in ACKNOWLEDGED.iter().zip(&counters.acknowledged) {
            let value = counter.get();
            let _ = writeln!(page, "ottla_share_acknowledged_records_total{{type=\"{kind}\"}} {value}");
        }
        page.push_str("# EOF\n");
        page
    }
}

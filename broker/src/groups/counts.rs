//! How many groups this broker coordinates, by type and state, for Prometheus.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::GroupService;

impl GroupService {
    /// The page, counted now.
    pub fn counts_page(&self) -> String {
        let shards: Vec<_> = self.shards.read().values().cloned().collect();
        let mut counts: BTreeMap<(&'static str, &'static str), usize> = BTreeMap::new();
        for shard in shards {
            // One that is loading has nothing to say yet.
            let _ = shard.query(|machine| {
                for (kind, count) in machine.counts() {
                    *counts.entry(kind).or_default() += count;
                }
                Ok(())
            });
        }
        page(&counts)
    }
}

fn page(counts: &BTreeMap<(&'static str, &'static str), usize>) -> String {
    let mut page = String::from(
        "# HELP ottla_groups Groups that this broker coordinates.\n\
         # TYPE ottla_groups gauge\n",
    );
    for ((group_type, state), count) in counts {
        // Writing to a string cannot fail.
        let _ = writeln!(page, "ottla_groups{{type=\"{group_type}\",state=\"{state}\"}} {count}");
    }
    page.push_str("# EOF\n");
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_counted_by_type_and_state() {
        let counts = BTreeMap::from([(("streams", "Stable"), 2), (("classic", "Empty"), 1)]);
        let page = page(&counts);
        let lines: Vec<&str> = page.lines().filter(|line| !line.starts_with('#')).collect();
        assert_eq!(
            lines,
            [
                r#"ottla_groups{type="classic",state="Empty"} 1"#,
                r#"ottla_groups{type="streams",state="Stable"} 2"#,
            ]
        );
    }
}

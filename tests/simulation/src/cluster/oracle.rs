//! What transactions must never do, by who sees all: I57, I58, I61, I65, I66. Told of every batch once, when it is committed
//! (in the sense of replication) for the first time.

use std::collections::{BTreeMap, BTreeSet};

use super::batch::{Batch, Kind};

/// What is known of transactions.
#[derive(Debug, Default)]
pub struct Oracle {
    /// Which transaction of a producer is open in a partition.
    open: BTreeMap<(i32, i64), u64>,
    /// Transactions whose marker lies in a partition.
    ended: BTreeSet<(i32, u64)>,
    /// How transactions ended: true is committed.
    decided: BTreeMap<u64, bool>,
}

impl Oracle {
    /// A batch is committed in a partition. Gives what is wrong with that.
    pub fn committed(&mut self, partition: i32, batch: &Batch) -> Result<(), String> {
        let producer_id = batch.producer_id;
        match batch.kind {
            Kind::Transactional(number) => {
                if self.ended.contains(&(partition, number)) {
                    return Err(format!(
                        "I61: a record of transaction {number} lies behind its marker in partition {partition}"
                    ));
                }
                if let Some(other) = self.open.insert((partition, producer_id), number)
                    && other != number
                {
                    return Err(format!(
                        "I66: transactions {other} and {number} are one in partition {partition}"
                    ));
                }
            }
            Kind::Marker { commit, .. } => {
                let Some(number) = self.open.remove(&(partition, producer_id)) else { return Ok(()) };
                self.ended.insert((partition, number));
                if *self.decided.entry(number).or_insert(commit) != commit {
                    return Err(format!(
                        "I58: transaction {number} is committed in one partition and aborted in another ({partition})"
                    ));
                }
            }
            Kind::Plain | Kind::Coordinator(_) => {}
        }
        Ok(())
    }

    /// A transaction that never ended in a partition (I65).
    pub fn hanging(&self) -> Option<String> {
        let ((partition, producer_id), number) = self.open.iter().next()?;
        Some(format!("transaction {number} of producer {producer_id} hangs in partition {partition}"))
    }

    /// How many transactions were committed, and aborted, with records in them.
    pub fn counts(&self) -> (usize, usize) {
        let committed = self.decided.values().filter(|commit| **commit).count();
        (committed, self.decided.len() - committed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(number: u64) -> Batch {
        let kind = Kind::Transactional(number);
        Batch { producer_id: 7, producer_epoch: 0, sequence: 0, writer: 0, number: 0, kind }
    }

    #[test]
    fn what_must_not_be_is_told() {
        let mut oracle = Oracle::default();
        assert_eq!(oracle.committed(0, &record(1)), Ok(()));
        assert_eq!(oracle.committed(1, &record(1)), Ok(()));
        assert!(oracle.committed(1, &record(2)).unwrap_err().starts_with("I66"));
        let mut oracle = Oracle::default();
        oracle.committed(0, &record(1)).unwrap();
        oracle.committed(1, &record(1)).unwrap();
        assert_eq!(oracle.committed(0, &Batch::marker(7, 1, true, 0)), Ok(()));
        assert!(oracle.hanging().is_some());
        assert!(oracle.committed(0, &record(1)).unwrap_err().starts_with("I61"));
        assert!(oracle.committed(1, &Batch::marker(7, 1, false, 0)).unwrap_err().starts_with("I58"));
        assert_eq!((oracle.counts(), oracle.hanging()), ((1, 0), None));
    }
}

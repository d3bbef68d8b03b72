//! Reads a partition of `__transaction_state` into the machine.

use ottla_coordinator::transaction::{Applied, TransactionCoordinator};
use ottla_wire::error_code::ErrorCode;
use ottla_wire::records::{BatchHeader, Record};

use crate::coordinator_log::{self, Found, Loaded};
use crate::replica::Partition;

/// Applies everything that the log has; blocking reads of files.
pub(super) fn load(partition: &Partition, machine: &mut TransactionCoordinator) -> Result<Loaded, ErrorCode> {
    coordinator_log::load(partition, |header, record| apply(machine, header, record))
}

fn apply(machine: &mut TransactionCoordinator, header: &BatchHeader, record: &Record) -> Found {
    let Some(key) = record.key.as_ref().filter(|_| !header.is_control()) else { return Found::Nothing };
    match machine.apply(key, record.value.as_ref()) {
        Ok(Applied::Changed) => Found::State,
        Ok(Applied::Skipped) | Err(_) => Found::Unknown,
    }
}

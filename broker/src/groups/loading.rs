//! Reads a partition of `__consumer_offsets` into the machine.

use ottla_coordinator::group::{Applied, GroupCoordinator};
use ottla_wire::error_code::ErrorCode;
use ottla_wire::records::{BatchHeader, ControlRecord, EndTransaction, Record};

use crate::coordinator_log::{self, Found, Loaded};
use crate::replica::Partition;

/// Applies everything that the log has; blocking reads of files.
pub(super) fn load(partition: &Partition, machine: &mut GroupCoordinator) -> Result<Loaded, ErrorCode> {
    coordinator_log::load(partition, |header, record| apply(machine, header, record))
}

fn apply(machine: &mut GroupCoordinator, header: &BatchHeader, record: &Record) -> Found {
    if header.is_control() {
        if let Ok(ControlRecord::EndTransaction { end, .. }) = ControlRecord::parse(record) {
            machine.apply_marker(header.producer_id, end == EndTransaction::Commit);
        }
        return Found::Nothing;
    }
    let producer_id = header.is_transactional().then_some(header.producer_id);
    let Some(key) = &record.key else { return Found::Nothing };
    match machine.apply(record.offset, producer_id, key, record.value.as_ref()) {
        Ok(Applied::Skipped) | Err(_) => Found::Unknown,
        Ok(_) => Found::State,
    }
}

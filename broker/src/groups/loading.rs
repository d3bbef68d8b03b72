//! Reads a partition of `__consumer_offsets` into the machine.

use ottla_coordinator::group::{Applied, GroupCoordinator};
use ottla_wire::records::{BatchHeader, ControlRecord, EndTransaction, Record};

use crate::coordinator_log::{Found, Machine};

impl Machine for GroupCoordinator {
    const COORDINATOR: &'static str = "group";

    fn take(&mut self, header: &BatchHeader, record: &Record) -> Found {
        if header.is_control() {
            if let Ok(ControlRecord::EndTransaction { end, .. }) = ControlRecord::parse(record) {
                self.apply_marker(record.offset, header.producer_id, end == EndTransaction::Commit);
            }
            return Found::Nothing;
        }
        let producer_id = header.is_transactional().then_some(header.producer_id);
        let Some(key) = &record.key else { return Found::Nothing };
        match self.apply(record.offset, producer_id, key, record.value.as_ref()) {
            Ok(Applied::Skipped) | Err(_) => Found::Unknown,
            Ok(_) => Found::State,
        }
    }
}

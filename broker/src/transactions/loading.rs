//! Reads a partition of `__transaction_state` into the machine.

use ottla_coordinator::transaction::{Applied, TransactionCoordinator};
use ottla_wire::records::{BatchHeader, Record};

use crate::coordinator_log::{Found, Machine};

impl Machine for TransactionCoordinator {
    const COORDINATOR: &'static str = "transaction";

    fn take(&mut self, header: &BatchHeader, record: &Record) -> Found {
        let Some(key) = record.key.as_ref().filter(|_| !header.is_control()) else { return Found::Nothing };
        match self.apply(key, record.value.as_ref()) {
            Ok(Applied::Changed) => Found::State,
            Ok(Applied::Skipped) | Err(_) => Found::Unknown,
        }
    }
}

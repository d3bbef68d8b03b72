//! What a cluster promises, checked on a history of what was asked of it and what it answered.
//!
//! A workload writes numbered records and reads them back; every invocation and every outcome is an [`Event`] of a history,
//! one line of JSON each, in the order in which the workload learnt of them. The [`Checker`] takes the events one by one and
//! says of each [`Invariant`] whether it held, was refuted (with examples), or could not be proven.
//!
//! The rules follow the `kafka` checker of Jepsen: an outcome that is not known (a timeout, a broken connection) is neither
//! success nor failure, and a record of it may be in the log or not.
//!
//! Pure: no clock, no file, no socket.

mod checker;
mod history;
mod report;

pub use checker::Checker;
pub use history::{Event, Header, HistoryError, LINE_BYTES_MAX, Outcome, Topic, VERSION, parse_line};
pub use report::{Counts, Invariant, Report, State, Verdict, Wait};

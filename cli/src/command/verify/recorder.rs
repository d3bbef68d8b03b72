//! Takes down what happens: to the checker, and to a file when one is wanted.

use std::cell::{Cell, RefCell};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context;
use ottla_verify::{Checker, Event, Report};

/// How often the file is flushed: what a killed run leaves lacks no more.
const FLUSH_PAUSE: Duration = Duration::from_secs(1);

/// The history in the making. All tasks of a run share it: they run on one thread, and the order of the calls is the order
/// of the history.
#[derive(Debug)]
pub(super) struct Recorder {
    began: Instant,
    next_op: Cell<u64>,
    acknowledged: Cell<u64>,
    inner: RefCell<Inner>,
}

#[derive(Debug)]
struct Inner {
    checker: Checker,
    file: Option<BufWriter<File>>,
    flushed: Instant,
    failure: Option<anyhow::Error>,
}

impl Recorder {
    /// Begins a history with its header.
    pub(super) fn new(header: &Event, file: Option<&Path>) -> anyhow::Result<Self> {
        let open = |path: &Path| {
            let file =
                File::create(path).with_context(|| format!("cannot write the history {}", path.display()));
            file.map(BufWriter::new)
        };
        let mut inner = Inner {
            checker: Checker::new(header)?,
            file: file.map(open).transpose()?,
            flushed: Instant::now(),
            failure: None,
        };
        inner.write(header)?;
        Ok(Self {
            began: Instant::now(),
            next_op: Cell::new(0),
            acknowledged: Cell::new(0),
            inner: RefCell::new(inner),
        })
    }

    /// Microseconds since the beginning.
    pub(super) fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// A new name of a sending or a transaction.
    pub(super) fn next_id(&self) -> u64 {
        let id = self.next_op.get();
        self.next_op.set(id + 1);
        id
    }

    /// Takes an event down. A failure is kept for [`Self::finish`]; [`Self::is_broken`] tells of it.
    pub(super) fn record(&self, event: &Event) {
        let mut inner = self.inner.borrow_mut();
        if inner.failure.is_some() {
            return;
        }
        let taken = inner.checker.take(event).map_err(anyhow::Error::from);
        let written = inner.write(event);
        inner.failure = taken.and(written).err();
    }

    /// Counts records that were acknowledged, for the progress line.
    pub(super) fn count(&self, records: u32) {
        self.acknowledged.set(self.acknowledged.get() + u64::from(records));
    }

    /// Records that were acknowledged so far.
    pub(super) fn acknowledged(&self) -> u64 {
        self.acknowledged.get()
    }

    /// Says something in the history.
    pub(super) fn note(&self, text: impl Into<String>) {
        self.record(&Event::Note { t: self.now(), text: text.into() });
    }

    /// Whether the history cannot be gone on with.
    pub(super) fn is_broken(&self) -> bool {
        self.inner.borrow().failure.is_some()
    }

    /// The verdicts.
    pub(super) fn finish(self) -> anyhow::Result<Report> {
        let mut inner = self.inner.into_inner();
        if let Some(failure) = inner.failure {
            return Err(failure.context("the history is broken"));
        }
        if let Some(file) = &mut inner.file {
            file.flush()?;
        }
        Ok(inner.checker.finish())
    }
}

impl Inner {
    fn write(&mut self, event: &Event) -> anyhow::Result<()> {
        let Some(file) = &mut self.file else { return Ok(()) };
        serde_json::to_writer(&mut *file, event)?;
        file.write_all(b"\n")?;
        if self.flushed.elapsed() >= FLUSH_PAUSE {
            file.flush()?;
            self.flushed = Instant::now();
        }
        Ok(())
    }
}

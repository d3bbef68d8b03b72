//! One thread that makes writes durable. Whatever queued while it synced shares the next sync.

use std::fs::File;
use std::io;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Instant;

use openraft::storage::IOFlushed;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::metrics::SyncTimes;
use crate::types::TypeConfig;

enum Waiter {
    /// openraft's callback of an append.
    Append(IOFlushed<TypeConfig>),
    /// Somebody who waits.
    Caller(oneshot::Sender<io::Result<()>>),
}

impl Waiter {
    fn complete(self, result: io::Result<()>) {
        match self {
            Self::Append(callback) => callback.io_completed(result),
            // A caller that is gone does not mind.
            Self::Caller(sender) => drop(sender.send(result)),
        }
    }
}

/// Handle of the thread.
pub(super) struct GroupCommit {
    times: SyncTimes,
    queue: Mutex<Option<mpsc::Sender<Waiter>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

fn stopped() -> io::Error {
    io::Error::other("the metadata store is closed")
}

impl GroupCommit {
    /// Starts the thread. It owns the database's handle and sled's file.
    pub(super) fn start(db: sled::Db, file: File) -> io::Result<Self> {
        let (queue, waiters) = mpsc::channel();
        let times = SyncTimes::default();
        let observed = times.clone();
        let thread = std::thread::Builder::new()
            .name("metadata-sync".to_owned())
            .spawn(move || run(&db, &file, &waiters, &observed))?;
        Ok(Self { times, queue: Mutex::new(Some(queue)), thread: Mutex::new(Some(thread)) })
    }

    /// How long its syncs take.
    pub(super) fn times(&self) -> SyncTimes {
        self.times.clone()
    }

    fn enqueue(&self, waiter: Waiter) {
        let unsent = match &*self.queue.lock() {
            Some(queue) => queue.send(waiter).err().map(|error| error.0),
            None => Some(waiter),
        };
        if let Some(waiter) = unsent {
            waiter.complete(Err(stopped()));
        }
    }

    /// Calls back once everything written before this call is durable.
    pub(super) fn sync_then(&self, callback: IOFlushed<TypeConfig>) {
        self.enqueue(Waiter::Append(callback));
    }

    /// Returns once everything written before this call is durable.
    pub(super) async fn sync(&self) -> io::Result<()> {
        let (sender, receiver) = oneshot::channel();
        self.enqueue(Waiter::Caller(sender));
        receiver.await.map_err(|_| stopped())?
    }

    /// As `sync`, outside of a runtime's worker.
    pub(super) fn sync_blocking(&self) -> io::Result<()> {
        let (sender, receiver) = oneshot::channel();
        self.enqueue(Waiter::Caller(sender));
        receiver.blocking_recv().map_err(|_| stopped())?
    }

    /// Ends the thread after what is queued.
    pub(super) fn stop(&self) {
        drop(self.queue.lock().take());
        if let Some(thread) = self.thread.lock().take() {
            drop(thread.join());
        }
    }
}

impl Drop for GroupCommit {
    fn drop(&mut self) {
        self.stop();
    }
}

fn run(db: &sled::Db, file: &File, waiters: &mpsc::Receiver<Waiter>, times: &SyncTimes) {
    let mut failed: Option<String> = None;
    while let Ok(first) = waiters.recv() {
        let mut group = vec![first];
        group.extend(waiters.try_iter());
        // A failed fsync is never tried again: the kernel may have dropped the pages, and a second one would lie.
        if failed.is_none() {
            // sled hands its pages to the kernel; only the second call makes the disk keep them.
            let started = Instant::now();
            let synced = db.flush().map_err(super::other).and_then(|_| file.sync_data());
            times.observe(started.elapsed());
            failed = synced.err().map(|error| error.to_string());
        }
        for waiter in group {
            waiter.complete(match &failed {
                None => Ok(()),
                Some(reason) => Err(io::Error::other(format!("the metadata store failed: {reason}"))),
            });
        }
    }
}

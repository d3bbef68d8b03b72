//! How many data files are held open for writing, in this whole process.
//!
//! A log that is written to keeps its last segment's file open, for an open file a write is one call. With ten thousand
//! partitions that would be ten thousand files; beyond a share of what the system allows, a file is opened for each write
//! instead, which costs some microseconds, and no append fails for want of a handle.

use std::fs::File;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::process::{Resource, getrlimit};

/// Of the files that the system allows, this part at most is held by logs; connections need the rest.
const SHARE_OF_LIMIT: u64 = 4;
/// Held however small the system's limit is, and when it does not tell.
const HELD_FILES_MIN: usize = 64;
/// Held however large the system's limit is: more are not written to at a time.
const HELD_FILES_MAX: usize = 20_000;

static HELD: AtomicUsize = AtomicUsize::new(0);

fn held_max() -> usize {
    static MAX: OnceLock<usize> = OnceLock::new();
    *MAX.get_or_init(|| {
        let allowed = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        usize::try_from(allowed / SHARE_OF_LIMIT).unwrap_or(usize::MAX).clamp(HELD_FILES_MIN, HELD_FILES_MAX)
    })
}

/// A file that counts as held until this is dropped.
#[derive(Debug)]
pub(crate) struct HeldFile(Arc<File>);

impl HeldFile {
    /// Holds a file; none: enough are held.
    pub(crate) fn hold(file: &Arc<File>) -> Option<Self> {
        Self::hold_below(&HELD, held_max(), file)
    }

    fn hold_below(held: &AtomicUsize, max: usize, file: &Arc<File>) -> Option<Self> {
        let more = |count| (count < max).then_some(count + 1);
        held.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
        Some(Self(Arc::clone(file)))
    }

    pub(crate) fn file(&self) -> Arc<File> {
        Arc::clone(&self.0)
    }
}

impl Drop for HeldFile {
    fn drop(&mut self) {
        HELD.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_are_held_than_allowed() {
        let file = Arc::new(tempfile::tempfile().unwrap());
        let held = AtomicUsize::new(0);
        let first = HeldFile::hold_below(&held, 2, &file).unwrap();
        let second = HeldFile::hold_below(&held, 2, &file).unwrap();
        assert!(HeldFile::hold_below(&held, 2, &file).is_none());
        // They would count down the process's own number, not this test's.
        std::mem::forget((first, second));
        assert!(held_max() >= HELD_FILES_MIN);
    }
}

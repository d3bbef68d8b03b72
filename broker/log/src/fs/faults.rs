//! The tests' file system: the real one, with a watcher in front that sees every change before it is made, and may refuse
//! it. From what it saw, [`super::super::crash_tests`] builds every state of the disk that a crash could have left.

use std::cell::RefCell;
use std::io;
use std::path::{Path, PathBuf};

use crate::error::LogError;

/// A change that is about to be made.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Change<'a> {
    Create(&'a Path),
    Write(&'a Path, u64, &'a [u8]),
    Length(&'a Path, u64),
    Sync(&'a Path),
    Rename(&'a Path, &'a Path),
    Remove(&'a Path),
    SyncDirectory(&'a Path),
}

/// A change that was made, owned.
#[derive(Debug, Clone)]
pub(crate) enum Made {
    Create(PathBuf),
    Write(PathBuf, u64, Vec<u8>),
    Length(PathBuf, u64),
    Sync(PathBuf),
    Rename(PathBuf, PathBuf),
    Remove(PathBuf),
    SyncDirectory(PathBuf),
    /// The test's own note: what must be true from here on.
    Note(usize),
}

/// What the watcher does.
#[derive(Debug, Default)]
pub(crate) struct Watcher {
    /// Everything so far.
    pub(crate) made: Vec<Made>,
    /// How many changes were asked for.
    pub(crate) count: usize,
    /// The change with this number (from 0) fails with this system error.
    pub(crate) fail_at: Option<(usize, i32)>,
    /// And every one behind it.
    pub(crate) fails_for_good: bool,
}

thread_local! {
    static WATCHER: RefCell<Option<Watcher>> = const { RefCell::new(None) };
}

/// Watches this thread's changes from here on.
pub(crate) fn watch(watcher: Watcher) {
    WATCHER.with_borrow_mut(|place| *place = Some(watcher));
}

/// Stops watching; gives what was seen.
pub(crate) fn unwatch() -> Watcher {
    WATCHER.with_borrow_mut(Option::take).unwrap_or_default()
}

/// A note of the test among the changes.
pub(crate) fn note(number: usize) {
    WATCHER.with_borrow_mut(|place| {
        if let Some(watcher) = place {
            watcher.made.push(Made::Note(number));
        }
    });
}

/// Called before each change; an error is what the system would have said.
pub(super) fn before(change: &Change<'_>) -> Result<(), LogError> {
    WATCHER.with_borrow_mut(|place| {
        let Some(watcher) = place else { return Ok(()) };
        let number = watcher.count;
        watcher.count += 1;
        if let Some((at, code)) = watcher.fail_at
            && (number == at || watcher.fails_for_good && number > at)
        {
            return Err(LogError::io("injected fault at", path_of(change))(io::Error::from_raw_os_error(
                code,
            )));
        }
        watcher.made.push(match *change {
            Change::Create(path) => Made::Create(path.to_owned()),
            Change::Write(path, position, bytes) => Made::Write(path.to_owned(), position, bytes.to_vec()),
            Change::Length(path, length) => Made::Length(path.to_owned(), length),
            Change::Sync(path) => Made::Sync(path.to_owned()),
            Change::Rename(from, to) => Made::Rename(from.to_owned(), to.to_owned()),
            Change::Remove(path) => Made::Remove(path.to_owned()),
            Change::SyncDirectory(path) => Made::SyncDirectory(path.to_owned()),
        });
        Ok(())
    })
}

fn path_of<'a>(change: &Change<'a>) -> &'a Path {
    match *change {
        Change::Create(path)
        | Change::Write(path, ..)
        | Change::Length(path, _)
        | Change::Sync(path)
        | Change::Rename(path, _)
        | Change::Remove(path)
        | Change::SyncDirectory(path) => path,
    }
}

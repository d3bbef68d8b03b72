//! The names of a segment's files, made when they are needed. A log that nobody uses would otherwise keep five paths in memory
//! that differ in a few letters, which with ten thousand logs is more than all the rest of them.

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::segment::{CLEANED, file_name};

/// Something that stands for a path.
pub(crate) trait ToPath {
    /// The path.
    fn to_path(&self) -> Cow<'_, Path>;
}

impl ToPath for Path {
    fn to_path(&self) -> Cow<'_, Path> {
        Cow::Borrowed(self)
    }
}

impl ToPath for PathBuf {
    fn to_path(&self) -> Cow<'_, Path> {
        Cow::Borrowed(self)
    }
}

/// Which file of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Data,
    Offsets,
    Times,
    Transactions,
}

impl Kind {
    fn extension(self) -> &'static str {
        match self {
            Self::Data => "log",
            Self::Offsets => "index",
            Self::Times => "timeindex",
            Self::Transactions => "txnindex",
        }
    }
}

/// A file of a segment. All files of a log share its directory's name.
#[derive(Debug, Clone)]
pub(crate) struct SegmentFile {
    directory: Arc<Path>,
    base_offset: i64,
    kind: Kind,
    /// It has the name that nobody opens, see [`CLEANED`].
    is_cleaned: bool,
}

impl SegmentFile {
    pub(crate) fn new(directory: &Arc<Path>, base_offset: i64, kind: Kind, is_cleaned: bool) -> Self {
        Self { directory: Arc::clone(directory), base_offset, kind, is_cleaned }
    }

    /// The same in another directory.
    pub(crate) fn in_directory(&self, directory: &Arc<Path>) -> Self {
        Self { directory: Arc::clone(directory), ..self.clone() }
    }

    pub(crate) fn path(&self) -> PathBuf {
        let path = file_name(&self.directory, self.base_offset, self.kind.extension());
        if self.is_cleaned { crate::fs::with_suffix(&path, CLEANED) } else { path }
    }
}

impl ToPath for SegmentFile {
    fn to_path(&self) -> Cow<'_, Path> {
        Cow::Owned(self.path())
    }
}

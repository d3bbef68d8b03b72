//! File operations whose order matters to a crash, in one place.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;

use crate::error::LogError;

/// Opens for reading and writing, creating it when it is not there.
pub(crate) fn open(path: &Path) -> Result<File, LogError> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
        .map_err(LogError::io("cannot open", path))
}

/// Makes created, renamed and removed names durable.
pub(crate) fn sync_directory(path: &Path) -> Result<(), LogError> {
    File::open(path).and_then(|directory| directory.sync_all()).map_err(LogError::io("cannot sync", path))
}

/// Replaces a file whole: afterwards it has the old content or the new, whatever happens in between.
pub(crate) fn write_atomically(path: &Path, content: &[u8], durable: bool) -> Result<(), LogError> {
    let temporary = path.with_extension(match path.extension().and_then(|extension| extension.to_str()) {
        Some(extension) => format!("{extension}.tmp"),
        None => "tmp".to_owned(),
    });
    let mut file = File::create(&temporary).map_err(LogError::io("cannot create", &temporary))?;
    file.write_all(content).map_err(LogError::io("cannot write", &temporary))?;
    if durable {
        // The content before the name: a crash between the two leaves the old file.
        file.sync_all().map_err(LogError::io("cannot sync", &temporary))?;
    }
    rename(&temporary, path)?;
    match path.parent() {
        Some(parent) if durable => sync_directory(parent),
        _ => Ok(()),
    }
}

/// Renames.
pub(crate) fn rename(from: &Path, to: &Path) -> Result<(), LogError> {
    std::fs::rename(from, to).map_err(LogError::io("cannot rename", from))
}

/// Removes a file; one that is not there is no error.
pub(crate) fn remove(path: &Path) -> Result<(), LogError> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(LogError::io("cannot remove", path)(error))
        }
        _ => Ok(()),
    }
}

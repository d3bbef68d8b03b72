//! Every operation that changes a file or a name, in one place: their order is what a crash sees, and the tests of crashes
//! watch, cut and fail them here.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::error::LogError;
use crate::segment_file::ToPath;

#[cfg(test)]
pub(crate) mod faults;

/// A change, as the tests of crashes see it before it is made.
#[cfg(test)]
use faults::{Change, before};

/// Tells the tests of a change; outside of tests it is nothing.
macro_rules! watched {
    ($change:expr) => {
        #[cfg(test)]
        before(&$change)?;
    };
}

/// Opens for reading and writing, creating it when it is not there.
pub(crate) fn open<P: ToPath + ?Sized>(file: &P) -> Result<File, LogError> {
    let path = file.to_path();
    #[cfg(test)]
    if !path.exists() {
        before(&Change::Create(&path))?;
    }
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(LogError::io("cannot open", &path))
}

/// Opens for reading; never creates.
pub(crate) fn open_existing(path: &Path) -> Result<File, LogError> {
    File::open(path).map_err(LogError::io("cannot open", path))
}

/// Writes all bytes at a position.
pub(crate) fn write_at<P: ToPath + ?Sized>(
    file: &File,
    name: &P,
    bytes: &[u8],
    position: u64,
) -> Result<(), LogError> {
    watched!(Change::Write(&name.to_path(), position, bytes));
    file.write_all_at(bytes, position).map_err(LogError::io_at("cannot write", name))
}

/// Cuts or lengthens a file.
pub(crate) fn set_length<P: ToPath + ?Sized>(file: &File, name: &P, length: u64) -> Result<(), LogError> {
    watched!(Change::Length(&name.to_path(), length));
    file.set_len(length).map_err(LogError::io_at("cannot truncate", name))
}

/// Makes a file's bytes durable. A failure is final: what the disk holds is not known any more, and trying again may
/// succeed without writing anything.
pub(crate) fn sync<P: ToPath + ?Sized>(file: &File, name: &P) -> Result<(), LogError> {
    watched!(Change::Sync(&name.to_path()));
    file.sync_data().map_err(LogError::io_at("cannot sync", name))
}

/// Makes a file's bytes durable by its name; one that is not there has none.
pub(crate) fn sync_path(path: &Path) -> Result<(), LogError> {
    match File::open(path) {
        Ok(file) => sync(&file, path),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(LogError::io("cannot open", path)(error)),
    }
}

/// Makes created, renamed and removed names durable.
pub(crate) fn sync_directory(path: &Path) -> Result<(), LogError> {
    watched!(Change::SyncDirectory(path));
    File::open(path).and_then(|directory| directory.sync_all()).map_err(LogError::io("cannot sync", path))
}

/// Replaces a file whole: afterwards it has the old content or the new, whatever happens in between.
pub(crate) fn write_atomically(path: &Path, content: &[u8], durable: bool) -> Result<(), LogError> {
    let temporary = path.with_extension(match path.extension().and_then(|extension| extension.to_str()) {
        Some(extension) => format!("{extension}.tmp"),
        None => "tmp".to_owned(),
    });
    let file = open(&temporary)?;
    set_length(&file, &temporary, 0)?;
    write_at(&file, &temporary, content, 0)?;
    if durable {
        // The content before the name: a crash between the two leaves the old file.
        sync(&file, &temporary)?;
    }
    rename(&temporary, path)?;
    match path.parent() {
        Some(parent) if durable => sync_directory(parent),
        _ => Ok(()),
    }
}

/// Renames.
pub(crate) fn rename(from: &Path, to: &Path) -> Result<(), LogError> {
    watched!(Change::Rename(from, to));
    std::fs::rename(from, to).map_err(LogError::io("cannot rename", from))
}

/// Renames if it is there.
pub(crate) fn rename_existing(from: &Path, to: &Path) -> Result<(), LogError> {
    if from.exists() { rename(from, to) } else { Ok(()) }
}

/// Removes a file; one that is not there is no error.
pub(crate) fn remove<P: ToPath + ?Sized>(file: &P) -> Result<(), LogError> {
    let path = file.to_path();
    #[cfg(test)]
    if path.exists() {
        before(&Change::Remove(&path))?;
    }
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(LogError::io("cannot remove", &path)(error))
        }
        _ => Ok(()),
    }
}

/// A path with something behind its whole name.
pub(crate) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

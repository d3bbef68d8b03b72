//! A disk as a crash could leave it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::script::Random;
use crate::fs::faults::Made;

/// What a crash takes of what was not synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Loss {
    /// The process died, the machine did not.
    Nothing,
    /// Bytes and names.
    All,
    /// Bytes; the names are there.
    Bytes,
    /// Some of the bytes, some writes in part, and the last names.
    Random,
}

#[derive(Debug, Clone)]
enum Pending {
    Write(u64, Vec<u8>),
    Length(u64),
}

#[derive(Debug, Default, Clone)]
struct File {
    synced: Vec<u8>,
    pending: Vec<Pending>,
}

#[derive(Debug, Clone)]
enum NameChange {
    Link(PathBuf, usize),
    Rename(PathBuf, PathBuf),
    Unlink(PathBuf),
}

/// Everything that was changed so far, and what of it is durable.
#[derive(Debug, Default)]
pub(super) struct Disk {
    files: Vec<File>,
    names: BTreeMap<PathBuf, usize>,
    durable_names: BTreeMap<PathBuf, usize>,
    pending_names: Vec<NameChange>,
}

fn put(content: &mut Vec<u8>, pending: &Pending) {
    let index = |at: u64| usize::try_from(at).unwrap();
    match pending {
        Pending::Write(at, bytes) => {
            let end = index(*at) + bytes.len();
            if content.len() < end {
                content.resize(end, 0);
            }
            content[index(*at)..end].copy_from_slice(bytes);
        }
        Pending::Length(length) => content.resize(index(*length), 0),
    }
}

fn rename(names: &mut BTreeMap<PathBuf, usize>, change: &NameChange) {
    match change {
        NameChange::Link(path, file) => drop(names.insert(path.clone(), *file)),
        NameChange::Rename(from, to) => {
            if let Some(file) = names.remove(from) {
                names.insert(to.clone(), file);
            }
        }
        NameChange::Unlink(path) => drop(names.remove(path)),
    }
}

impl Disk {
    fn file(&mut self, path: &Path) -> &mut File {
        let file = self.names.get(path).unwrap_or_else(|| panic!("{} was never created", path.display()));
        &mut self.files[*file]
    }

    pub(super) fn apply(&mut self, made: &Made) {
        match made {
            Made::Create(path) => {
                self.files.push(File::default());
                self.change_name(NameChange::Link(path.clone(), self.files.len() - 1));
            }
            Made::Rename(from, to) => self.change_name(NameChange::Rename(from.clone(), to.clone())),
            Made::Remove(path) => self.change_name(NameChange::Unlink(path.clone())),
            Made::Write(path, at, bytes) => {
                self.file(path).pending.push(Pending::Write(*at, bytes.clone()));
            }
            Made::Length(path, length) => self.file(path).pending.push(Pending::Length(*length)),
            // A flush may sync what has lost its name meanwhile.
            Made::Sync(path) if !self.names.contains_key(path) => {}
            Made::Sync(path) => {
                let file = self.file(path);
                for pending in std::mem::take(&mut file.pending) {
                    put(&mut file.synced, &pending);
                }
            }
            // One directory, and the one that it is in: its own name is taken to be durable.
            Made::SyncDirectory(path) => {
                for change in self.pending_names.extract_if(.., |change| match change {
                    NameChange::Link(name, _) | NameChange::Rename(name, _) | NameChange::Unlink(name) => {
                        name.parent() == Some(path)
                    }
                }) {
                    rename(&mut self.durable_names, &change);
                }
            }
            Made::Note(_) => {}
        }
    }

    fn change_name(&mut self, change: NameChange) {
        rename(&mut self.names, &change);
        self.pending_names.push(change);
    }

    /// Makes the disk in a directory.
    pub(super) fn write_to(&self, directory: &Path, loss: Loss, random: &mut Random) {
        let kept = match loss {
            Loss::Nothing | Loss::Bytes => self.pending_names.len(),
            Loss::All => 0,
            Loss::Random => random.below(self.pending_names.len() + 1),
        };
        let mut names = self.durable_names.clone();
        for change in &self.pending_names[..kept] {
            rename(&mut names, change);
        }
        for (path, file) in names {
            let file = &self.files[file];
            let mut content = file.synced.clone();
            for pending in &file.pending {
                match (loss, pending) {
                    (Loss::Nothing, pending) => put(&mut content, pending),
                    (Loss::Random, Pending::Write(at, bytes)) => match random.below(4) {
                        0 => {}
                        1 => {
                            let from = random.below(bytes.len() + 1);
                            let to = from + random.below(bytes.len() - from + 1);
                            put(&mut content, &Pending::Write(at + from as u64, bytes[from..to].to_vec()));
                        }
                        _ => put(&mut content, pending),
                    },
                    (Loss::Random, pending) if random.below(2) == 0 => put(&mut content, pending),
                    _ => {}
                }
            }
            std::fs::write(directory.join(path.file_name().unwrap()), content).unwrap();
        }
    }
}

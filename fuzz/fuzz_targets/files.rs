//! The small files of a log directory, with any bytes in them: each is read, or refused with an error that names it. The first
//! byte chooses the file.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use ottla_log::{directory, snapshot};

/// In memory, if the system has such a directory.
fn scratch() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("a directory to write to")
}

fn write(directory: &Path, name: &str, bytes: &[u8]) -> std::path::PathBuf {
    let path = directory.join(name);
    std::fs::write(&path, bytes).expect("the directory can be written");
    path
}

thread_local! {
    static SCRATCH: tempfile::TempDir = scratch();
}

fuzz_target!(|data: &[u8]| {
    let [choice, bytes @ ..] = data else { return };
    SCRATCH.with(|scratch| {
        let root = scratch.path();
        match choice % 6 {
            0 => {
                // The checksum would stop nearly all inputs.
                let mut snapshot = vec![0, 1, 0, 0, 0, 0];
                snapshot.extend_from_slice(bytes);
                let crc = ottla_wire::records::checksum(bytes);
                snapshot[2..6].copy_from_slice(&crc.to_be_bytes());
                let path = write(root, "00000000000000000007.snapshot", &snapshot);
                if let Ok(state) = snapshot::read(&path) {
                    assert!(state.producers().count() <= bytes.len());
                }
            }
            1 => drop(snapshot::read(&write(root, "00000000000000000007.snapshot", bytes))),
            2 => {
                let path = write(root, directory::HIGH_WATERMARKS, bytes);
                if let Ok(read) = directory::read_checkpoint(&path) {
                    let entries: Vec<_> = read
                        .iter()
                        .map(|((topic, partition), offset)| (topic.clone(), *partition, *offset))
                        .collect();
                    directory::write_checkpoint(&path, &entries).expect("the directory can be written");
                    assert_eq!(directory::read_checkpoint(&path).expect("it was just written"), read);
                }
            }
            3 => {
                write(root, "meta.properties", bytes);
                if let Ok(Some(owner)) = directory::read_owner(root) {
                    directory::write_owner(root, &owner).expect("the directory can be written");
                    assert_eq!(directory::read_owner(root).expect("it was just written"), Some(owner));
                }
            }
            4 => {
                write(root, "partition.metadata", bytes);
                drop(directory::read_topic_id(root));
                write(root, ".kafka_cleanshutdown", bytes);
                drop(directory::take_clean_shutdown(root));
            }
            _ => {
                write(root, "leader-epoch-checkpoint", bytes);
                let _ = directory::latest_epoch(root);
            }
        }
    });
});

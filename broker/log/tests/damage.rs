//! Bytes that are wrong: in the files of a log, in what a leader sends, in every kind of file that is read at the start.

#![allow(clippy::unwrap_used, reason = "a step that fails is a failed test")]

mod common;

use bytes::{Bytes, BytesMut};
use common::{abort, create, pairs, path, plain, transactional};
use ottla_log::{Log, LogConfig, LogError, OpenOptions, directory, snapshot};
use ottla_wire::records::set_base_offset;
use proptest::prelude::*;

fn config() -> LogConfig {
    LogConfig { segment_bytes: 1_000, index_interval_bytes: 100, ..LogConfig::default() }
}

/// A log with every kind of file, and its records.
fn filled(root: &std::path::Path) -> Vec<(i64, Vec<u8>, Option<Vec<u8>>)> {
    let mut log = create(root, config());
    for n in 0..12 {
        log.append_as_leader(&mut transactional(9, n, b"k", b"v"), n / 4, 5).unwrap();
    }
    log.append_as_leader(&mut abort(9), 3, 5).unwrap();
    log.append_as_leader(&mut plain(2, 9), 3, 9).unwrap();
    let all = pairs(&log);
    log.close().unwrap();
    all
}

/// I29: what was on disk once is not cut off in silence.
#[test]
fn damage_before_the_recovery_point_is_said_and_nothing_is_changed() {
    let root = tempfile::tempdir().unwrap();
    let mut log = create(root.path(), LogConfig::default());
    for n in 0..10 {
        log.append_as_leader(&mut plain(1, n), 0, n).unwrap();
    }
    drop(log);
    let data = path(root.path()).join("00000000000000000000.log");
    let good = std::fs::read(&data).unwrap();
    let options = |recovery_point| OpenOptions { recovery_point, keeps_damage: true, ..Default::default() };
    let open = |recovery_point| Log::open(&path(root.path()), LogConfig::default(), options(recovery_point));
    // The sixth batch.
    let mut bad = good.clone();
    bad[good.len() / 10 * 5 + 80] ^= 1;
    for (bytes, at) in [(bad.clone(), 5), (good[..good.len() / 2].to_vec(), 5), (Vec::new(), 0)] {
        std::fs::write(&data, &bytes).unwrap();
        let Err(LogError::Damaged { offset, recovery_point, .. }) = open(8) else { panic!("cut at {at}") };
        assert_eq!((offset, recovery_point), (at, 8));
        assert_eq!(std::fs::read(&data).unwrap(), bytes);
    }
    std::fs::write(&data, &bad).unwrap();
    assert_eq!(open(5).unwrap().0.end_offset(), 5, "a torn tail");
}

/// I49: a follower takes only sound batches, and a leader's damage does not take it offline.
#[test]
fn a_follower_refuses_a_batch_with_a_flipped_byte() {
    let root = tempfile::tempdir().unwrap();
    let mut log = create(root.path(), config());
    let good = plain(2, 5);
    for at in 0..good.len() {
        // Offset and leader epoch lie outside of the checksum: they are checked by what they say.
        if at < 8 || (12..16).contains(&at) {
            continue;
        }
        let mut bad = good.clone();
        bad[at] ^= 0x10;
        match log.append_as_follower(&bad.freeze(), 0) {
            Err(LogError::Malformed { .. } | LogError::NotContiguous { .. }) => {}
            // A length beyond the end is a batch that has not come whole.
            Ok(info) => assert!(info.last_offset < info.first_offset && (8..12).contains(&at), "byte {at}"),
            other => panic!("byte {at}: {other:?}"),
        }
    }
    assert_eq!(log.append_as_follower(&good.freeze(), 0).unwrap().last_offset, 1);
}

/// The names of all files of the log.
fn files(root: &std::path::Path) -> Vec<std::path::PathBuf> {
    let mut found: Vec<_> =
        std::fs::read_dir(path(root)).unwrap().map(|entry| entry.unwrap().path()).collect();
    found.sort();
    found
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    /// I26, I28: whatever a file of a log holds, opening it does not panic and gives a prefix of what was there, or says what
    /// is wrong; and the log goes on from there.
    #[test]
    fn whatever_a_file_holds_a_prefix_is_kept(
        which in any::<prop::sample::Index>(),
        noise in prop::collection::vec(any::<u8>(), 0..400),
        at in any::<prop::sample::Index>(),
        clean_shutdown in any::<bool>(),
        replaces in any::<bool>(),
    ) {
        let root = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let expected = filled(root.path());
        let all = files(root.path());
        let file = which.get(&all);
        let is_data = file.extension().is_some_and(|extension| extension == "log");
        let mut content = std::fs::read(file).unwrap();
        let from = if replaces || content.is_empty() { 0 } else { at.index(content.len()) };
        content.truncate(from);
        content.extend(&noise);
        std::fs::write(file, content).unwrap();
        let options = OpenOptions { clean_shutdown, recovery_point: 0, ..Default::default() };
        let Ok((mut log, _)) = Log::open(&path(root.path()), config(), options) else { return Ok(()) };
        // A clean stop vouches for the closed segments: their damage is met by who reads them.
        if !(clean_shutdown && is_data) {
            let found = pairs(&log);
            prop_assert!(expected.starts_with(&found), "{}: {found:?}", file.display());
            prop_assert!(is_data || found.len() == expected.len(), "{}: {found:?}", file.display());
        }
        let end = log.end_offset();
        let mut next = BytesMut::from(&plain(1, 50)[..]);
        set_base_offset(&mut next, end);
        prop_assert_eq!(log.append_as_leader(&mut next, 9, 50).unwrap().first_offset, end);
        let _ = log.offset_for_timestamp(3);
        let _ = log.max_timestamp();
        let _ = log.aborted_transactions(0, end);
        let _ = log.read(log.log_start_offset(), 10_000, end, true);
        let _ = log.truncate_to(end / 2);
    }

    /// The files of a whole log directory, and snapshots, read from noise.
    #[test]
    fn noise_is_no_checkpoint(noise in prop::collection::vec(any::<u8>(), 0..300), is_text in any::<bool>()) {
        let root = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let noise: Vec<u8> = if is_text { noise.iter().map(|byte| b"0123 -\nabc="[usize::from(*byte) % 11]).collect() } else { noise };
        let file = root.path().join("meta.properties");
        std::fs::write(&file, &noise).unwrap();
        let _ = directory::read_owner(root.path());
        let _ = directory::read_checkpoint(&file);
        let _ = snapshot::read(&file);
        std::fs::write(root.path().join("partition.metadata"), &noise).unwrap();
        let _ = directory::read_topic_id(root.path());
        std::fs::write(root.path().join(".kafka_cleanshutdown"), &noise).unwrap();
        let _ = directory::take_clean_shutdown(root.path());
    }

    /// What a leader sends may be anything.
    #[test]
    fn noise_is_no_batch(noise in prop::collection::vec(any::<u8>(), 0..300), at in any::<prop::sample::Index>()) {
        let root = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let mut log = create(root.path(), config());
        let mut sent = plain(3, 5).to_vec();
        let from = at.index(sent.len());
        sent.truncate(from);
        sent.extend(noise);
        if let Ok(info) = log.append_as_follower(&Bytes::from(sent), 0) {
            prop_assert!(info.last_offset < info.first_offset);
        }
        prop_assert_eq!(log.end_offset(), 0);
    }
}

//! Disks that are full, that fail and that are slow, under `ottla verify`. The faults are those of a library that is loaded into one
//! node's process (`Shim`); they need no rights. A small disk that really fills up is a tmpfs, which root mounts. The long ones:
//!
//!     cargo build --bin ottla
//!     cargo test -p ottla-tests --test fault_disks -- --ignored --nocapture --test-threads 1

#![allow(clippy::unwrap_used, reason = "a step that fails is a failed test")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, bail};
use ottla_tests::{
    Cluster, Connection, DISK_FAULT, Knob, NO_SPACE, Shim, Verify, eventually, from_environment,
};
use ottla_wire::error_code::ErrorCode;

const PATIENCE: Duration = Duration::from_secs(60);
/// Where a fault takes a leader away, writes go on within this time: a heartbeat tells of it, and another is elected.
const WRITES_LIMIT: Duration = Duration::from_secs(12);
const PARTITIONS: u64 = 6;

/// Verify's topic, so that every append waits for the disks.
const SYNCED: [&str; 2] = ["flush.messages=1", "min.insync.replicas=2"];

fn seed() -> u64 {
    let seed = from_environment("OTTLA_FAULT_SEED").unwrap_or_else(rand::random);
    println!("OTTLA_FAULT_SEED={seed}");
    seed
}

/// Two log directories, and the metadata in a third: one may fail.
fn two_directories(cluster: &Cluster) {
    for node in &cluster.nodes {
        let (first, second) = (node.directory().join("one"), node.directory().join("two"));
        let both = format!("{},{}", first.display(), second.display());
        let metadata = node.directory().join("metadata").display().to_string();
        cluster.rewrite(node.id, &[("log.dirs", &both), ("metadata.log.dir", &metadata), FAST_LAG]).unwrap();
    }
}

const FAST_LAG: (&str, &str) = ("replica.lag.time.max.ms", "4000");

fn start(cluster: &mut Cluster) {
    for node in &mut cluster.nodes {
        node.start().unwrap();
    }
    let count = cluster.nodes.len();
    cluster.await_brokers(count).unwrap();
}

/// Every partition must be written to again.
fn assert_writes(cluster: &Cluster, verify: &mut Verify, limit: Duration, what: &str) {
    match verify.await_writes(PARTITIONS, limit) {
        Ok(took) => println!("every partition was written to {took:?} after {what}"),
        Err(error) => panic!("{error:#}\nkept in {}", verify.keep(cluster)),
    }
}

/// S-L09: while the disk is full writes are refused with an error that clients try again after, reads are served and the process
/// stays; writing goes on by itself when there is room.
#[test]
fn s_l09_a_full_disk_refuses_writes_until_there_is_room() {
    let mut cluster = Cluster::prepare(1, &[]).unwrap();
    let metadata = cluster.nodes[0].directory().join("metadata").display().to_string();
    cluster.rewrite(1, &[("metadata.log.dir", &metadata)]).unwrap();
    let data = cluster.nodes[0].data_directory();
    let shim = Shim::install(&mut cluster.nodes[0], &data).unwrap();
    start(&mut cluster);
    shim.assert_loaded().unwrap();
    cluster.create_topic("t", 1, 1, &[]).unwrap();
    let mut verify = Verify::start(&cluster, seed(), &["--rate", "300"]).unwrap();
    let mut connection = Connection::open(&cluster.nodes[0].kafka(), PATIENCE).unwrap();
    let first = connection.produce("t", 0, -1, "before").unwrap();
    assert_eq!(first.error, ErrorCode::None);
    shim.fill_disk().unwrap();
    shim.await_failure(PATIENCE).unwrap();
    for acks in [-1, 1] {
        let refused = connection.produce("t", 0, acks, "no room").unwrap();
        assert_eq!(refused.error, ErrorCode::KafkaStorageError, "acks={acks}");
    }
    std::thread::sleep(Duration::from_millis(1_500));
    let full = verify.acknowledged().unwrap();
    let read = cluster.ottla(&["consume", "t", "--from", "beginning", "--exit-at-end", "--format", "%v\n"]);
    assert_eq!(read.unwrap().ok().unwrap().stdout, "before\n", "a full disk can be read");
    std::thread::sleep(Duration::from_millis(1_500));
    assert_eq!(verify.acknowledged().unwrap(), full, "something was acknowledged on a full disk");
    assert!(cluster.nodes[0].is_running(), "{}", cluster.logs());
    shim.clear().unwrap();
    let went_on = verify.await_writes(PARTITIONS, WRITES_LIMIT).unwrap();
    println!("there is room; every partition was written to after {went_on:?}");
    let next = connection.produce("t", 0, -1, "after").unwrap();
    assert_eq!((next.error, next.base_offset), (ErrorCode::None, first.base_offset + 1));
    verify.finish_held(&cluster, 50).unwrap_or_else(|error| panic!("{error:#}"));
    let log = cluster.logs();
    assert!(log.contains("no space left") && !log.contains("goes offline"), "{log}");
}

/// S-L09: a replica that there was no room for is offline, and is made by itself when there is room.
#[test]
fn s_l09_a_replica_without_room_is_made_when_there_is() {
    let mut cluster = Cluster::prepare(1, &[]).unwrap();
    let metadata = cluster.nodes[0].directory().join("metadata").display().to_string();
    cluster.rewrite(1, &[("metadata.log.dir", &metadata)]).unwrap();
    let data = cluster.nodes[0].data_directory();
    let shim = Shim::install(&mut cluster.nodes[0], &data).unwrap();
    start(&mut cluster);
    shim.assert_loaded().unwrap();
    shim.fill_disk().unwrap();
    cluster.create_topic("t", 2, 1, &[]).unwrap();
    let mut connection = Connection::open(&cluster.nodes[0].kafka(), PATIENCE).unwrap();
    assert_eq!(connection.produce("t", 0, -1, "no room").unwrap().error, ErrorCode::KafkaStorageError);
    assert!(cluster.nodes[0].is_running(), "{}", cluster.logs());
    shim.clear().unwrap();
    for partition in [0, 1] {
        let written = eventually(PATIENCE, "the replica is made", || {
            let produced = connection.produce("t", partition, -1, "room")?;
            Ok((produced.error == ErrorCode::None).then_some(produced.base_offset))
        });
        assert_eq!(written.unwrap(), 0);
    }
    let strays = std::fs::read_dir(&data).unwrap();
    let strays =
        strays.filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().contains("stray"));
    assert_eq!(strays.count(), 0);
}

/// S-L09 with three brokers: the disk of one is full. The others go on, and it is in sync again when there is room.
#[test]
#[ignore = "long"]
fn s_l09_the_disk_of_one_broker_of_three_is_full() {
    let mut cluster = Cluster::prepare(3, &[FAST_LAG]).unwrap();
    let metadata = cluster.nodes[0].directory().join("metadata").display().to_string();
    cluster.rewrite(1, &[("metadata.log.dir", &metadata), FAST_LAG]).unwrap();
    let data = cluster.nodes[0].data_directory();
    let shim = Shim::install(&mut cluster.nodes[0], &data).unwrap();
    start(&mut cluster);
    shim.assert_loaded().unwrap();
    let mut verify = Verify::start(&cluster, seed(), &["--rate", "300"]).unwrap();
    for _ in 0..3 {
        cluster.await_in_sync(&verify.topic, 3, PATIENCE).unwrap();
        shim.fill_disk().unwrap();
        std::thread::sleep(Duration::from_secs(10));
        assert!(cluster.nodes[0].is_running(), "{}", cluster.logs());
        shim.clear().unwrap();
        assert_writes(&cluster, &mut verify, WRITES_LIMIT, "there was room");
    }
    let in_sync = cluster.await_in_sync(&verify.topic, 3, PATIENCE).unwrap();
    println!("in sync after {in_sync:?}");
    verify.finish_held(&cluster, 500).unwrap_or_else(|error| panic!("{error:#}"));
}

/// A tmpfs; unmounted when dropped.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(path: &Path, megabytes: u32) -> Result<Self> {
        std::fs::create_dir_all(path)?;
        let size = format!("size={megabytes}m");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(path).output()?;
        if !mounted.status.success() {
            bail!("a small disk needs root: {}", String::from_utf8_lossy(&mounted.stderr));
        }
        Ok(Self(path.to_owned()))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Whoever still has files open there keeps it until it ends.
        drop(Command::new("umount").arg("--lazy").arg(&self.0).status());
    }
}

/// S-L09: a disk with data and metadata on it really fills up. The node stays, takes commands, and writes again after a topic is
/// deleted.
#[test]
#[ignore = "needs root"]
fn s_l09_a_disk_fills_up_and_a_topic_is_deleted() {
    let mut cluster = Cluster::prepare(3, &[FAST_LAG, ("log.segment.delete.delay.ms", "1000")]).unwrap();
    let disk =
        SmallDisk::mount(&cluster.nodes[0].data_directory(), 96).unwrap_or_else(|error| panic!("{error:#}"));
    start(&mut cluster);
    let mut verify = Verify::start(&cluster, seed(), &["--rate", "300"]).unwrap();
    cluster.create_topic("filler", 3, 1, &["file.delete.delay.ms=100"]).unwrap();
    let partition = (0..3).find(|partition| cluster.leader("filler", *partition).unwrap() == 1).unwrap();
    let partition = i32::try_from(partition).unwrap();
    let mut connection = Connection::open(&cluster.nodes[0].kafka(), PATIENCE).unwrap();
    let filling = "x".repeat(500_000);
    let mut written = 0;
    let refused = loop {
        let produced = connection
            .produce("filler", partition, 1, &filling)
            .unwrap_or_else(|error| panic!("{error:#}\nkept in {}", verify.keep(&cluster)));
        if produced.error != ErrorCode::None {
            break produced.error;
        }
        written += 1;
        assert!(written < 400, "the disk has no end");
    };
    println!("full after {written} batches");
    assert_eq!(refused, ErrorCode::KafkaStorageError);
    // What is left is eaten up too: smaller records may still have fitted.
    while connection.produce("filler", partition, 1, "x").unwrap().error == ErrorCode::None {}
    // The metadata go on, here and elsewhere.
    for number in 0..20 {
        cluster
            .create_topic(&format!("more-{number}"), 3, 3, &[])
            .unwrap_or_else(|error| panic!("{error:#}\nkept in {}", verify.keep(&cluster)));
    }
    std::thread::sleep(Duration::from_secs(8));
    assert!(cluster.nodes[0].is_running(), "kept in {}\n{}", verify.keep(&cluster), cluster.nodes[0].log());
    cluster.ottla(&["topic", "delete", "filler", "--yes"]).unwrap().ok().unwrap();
    assert_writes(&cluster, &mut verify, PATIENCE, "the topic was deleted");
    let in_sync = cluster.await_in_sync(&verify.topic, 3, PATIENCE).unwrap();
    println!("in sync after {in_sync:?}");
    verify.finish_held(&cluster, 300).unwrap_or_else(|error| panic!("{error:#}"));
    drop(cluster);
    drop(disk);
}

/// Breaks one of two directories of node 1 as `break_it` says; what lies there goes on elsewhere, what lies in the other goes on here.
fn one_directory_fails(break_it: impl Fn(&Shim)) {
    let mut cluster = Cluster::prepare(3, &[]).unwrap();
    two_directories(&cluster);
    let broken = cluster.nodes[0].directory().join("one");
    let shim = Shim::install(&mut cluster.nodes[0], &broken).unwrap();
    start(&mut cluster);
    shim.assert_loaded().unwrap();
    let seed = seed();
    cluster.create_topic(&format!("ottla-verify-{seed}"), 6, 3, &SYNCED).unwrap();
    let mut verify = Verify::start(&cluster, seed, &["--rate", "300"]).unwrap();
    cluster.await_in_sync(&verify.topic, 3, PATIENCE).unwrap();
    break_it(&shim);
    shim.await_failure(PATIENCE).unwrap();
    assert_writes(&cluster, &mut verify, WRITES_LIMIT, "the disk failed");
    assert!(cluster.nodes[0].is_running(), "{}", cluster.logs());
    let log = cluster.nodes[0].log();
    assert!(log.contains("the log directory goes offline"), "{log}");
    // What lies in the other directory is in sync; what lay in this one is not, and stays so.
    let in_sync = |cluster: &Cluster| {
        (0..6)
            .filter(|at| {
                let state = cluster.partition(&verify.topic, *at).unwrap();
                state["isr"].as_array().unwrap().iter().any(|id| id == 1)
            })
            .count()
    };
    eventually(PATIENCE, "the partitions of the directory are out of sync", || {
        Ok((in_sync(&cluster) == 3).then_some(()))
    })
    .unwrap_or_else(|error| panic!("{error:#}: {} of 6\n{}", in_sync(&cluster), verify.keep(&cluster)));
    shim.clear().unwrap();
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(in_sync(&cluster), 3, "a directory that failed was used again");
    assert_eq!(
        shim.get(Knob::SyncedAgain).unwrap(),
        0,
        "a file was synced again after a sync of it had failed"
    );
    // Only a start brings it back.
    cluster.nodes[0].stop().unwrap();
    cluster.nodes[0].start().unwrap();
    cluster.await_brokers(3).unwrap();
    let back = cluster.await_in_sync(&verify.topic, 3, PATIENCE).unwrap();
    println!("in sync {back:?} after the start");
    verify.finish_held(&cluster, 300).unwrap_or_else(|error| panic!("{error:#}"));
}

/// S-L10, I31: a sync fails once, and would succeed the next time: it is not tried again, nothing that hung on it is acknowledged,
/// and the directory is closed for good.
#[test]
#[ignore = "long"]
fn s_l10_a_sync_that_fails_once_closes_the_directory() {
    one_directory_fails(|shim| {
        shim.set(Knob::FailuresLeft, 1).unwrap();
        shim.set(Knob::SyncError, DISK_FAULT).unwrap();
    });
}

/// S-L10, I32: a disk that takes no writes.
#[test]
#[ignore = "long"]
fn s_l10_a_disk_that_takes_no_writes_is_closed_and_the_other_goes_on() {
    one_directory_fails(|shim| {
        shim.set(Knob::WriteError, DISK_FAULT).unwrap();
        shim.set(Knob::CreateError, DISK_FAULT).unwrap();
        shim.set(Knob::SyncError, DISK_FAULT).unwrap();
    });
}

/// S-L20: a disk that is mounted anew to be read only (EROFS), as Linux does after errors.
#[test]
#[ignore = "long"]
fn s_l20_a_disk_that_becomes_read_only_is_closed_and_the_other_goes_on() {
    const READ_ONLY: i64 = 30;
    one_directory_fails(|shim| {
        for knob in [Knob::WriteError, Knob::CreateError] {
            shim.set(knob, READ_ONLY).unwrap();
        }
    });
}

/// S-C22, I32: the disk of the quorum's leader fails or is full. It ends and says why, another leads, every topic whose creation was
/// acknowledged is there, and it is a member again after its start.
fn metadata_disk(error: i64, knobs: &[Knob]) {
    let mut cluster = Cluster::prepare(3, &[]).unwrap();
    let mut shims = Vec::new();
    for at in 0..3 {
        let metadata = cluster.nodes[at].directory().join("metadata");
        let id = cluster.nodes[at].id;
        cluster.rewrite(id, &[("metadata.log.dir", &metadata.display().to_string())]).unwrap();
        shims.push(Shim::install(&mut cluster.nodes[at], &metadata).unwrap());
    }
    start(&mut cluster);
    let seed = seed();
    let mut verify = Verify::start(&cluster, seed, &["--rate", "300"]).unwrap();
    let status = cluster.ottla(&["quorum", "status", "--output", "json"]).unwrap().json().unwrap();
    let leader = usize::try_from(status["leader_id"].as_u64().unwrap() - 1).unwrap();
    shims[leader].assert_loaded().unwrap();
    for knob in knobs {
        shims[leader].set(*knob, error).unwrap();
    }
    let mut topics = Vec::new();
    for number in 0..20 {
        let name = format!("topic-{number}");
        if cluster.create_topic(&name, 1, 3, &[]).is_ok() {
            topics.push(name);
        }
    }
    assert!(
        topics.len() > 10,
        "{} of 20 topics were created: kept in {}",
        topics.len(),
        verify.keep(&cluster)
    );
    let ended = cluster.nodes[leader]
        .wait(PATIENCE)
        .unwrap_or_else(|error| panic!("{error:#}\nkept in {}", verify.keep(&cluster)));
    assert!(!ended.success(), "{ended}");
    let log = cluster.nodes[leader].log();
    let last = log.lines().rev().take(5).collect::<Vec<_>>().join("\n");
    println!("node {} ended: {last}", leader + 1);
    assert!(last.contains("cannot go on"), "{log}");
    assert_writes(&cluster, &mut verify, WRITES_LIMIT, "the node ended");
    shims[leader].clear().unwrap();
    cluster.nodes[leader].start().unwrap();
    cluster.await_brokers(3).unwrap();
    cluster.await_in_sync(&verify.topic, 3, PATIENCE).unwrap();
    let listed = cluster.ottla(&["topic", "list", "--output", "json"]).unwrap().ok().unwrap().stdout;
    for topic in &topics {
        assert!(listed.contains(&format!("\"{topic}\"")), "{topic} was acknowledged and is not in {listed}");
    }
    verify.finish_held(&cluster, 200).unwrap_or_else(|error| panic!("{error:#}"));
}

/// S-C22: syncs of the metadata log fail.
#[test]
#[ignore = "long"]
fn s_c22_the_metadata_log_cannot_be_synced() {
    metadata_disk(DISK_FAULT, &[Knob::SyncError]);
}

/// S-C22: the metadata log cannot be written.
#[test]
#[ignore = "long"]
fn s_c22_the_metadata_log_cannot_be_written() {
    metadata_disk(DISK_FAULT, &[Knob::WriteError, Knob::SyncError]);
}

/// S-C22: the disk of the metadata log is full.
#[test]
#[ignore = "long"]
fn s_c22_the_disk_of_the_metadata_log_is_full() {
    metadata_disk(NO_SPACE, &[Knob::WriteError, Knob::CreateError]);
}

/// S-C22: syncs of the metadata log take a second. Topics are created all the same, and nobody is fenced for it.
#[test]
#[ignore = "long"]
fn s_c22_syncs_of_the_metadata_log_take_a_second() {
    let mut cluster = Cluster::prepare(3, &[]).unwrap();
    let mut shims = Vec::new();
    for node in &mut cluster.nodes {
        let metadata = node.data_directory().join("__cluster_metadata");
        shims.push(Shim::install(node, &metadata).unwrap());
    }
    start(&mut cluster);
    let mut verify = Verify::start(&cluster, seed(), &["--rate", "300"]).unwrap();
    for shim in &shims {
        shim.assert_loaded().unwrap();
        shim.set(Knob::SyncDelayMs, 1_000).unwrap();
    }
    for number in 0..5 {
        cluster
            .create_topic(&format!("topic-{number}"), 1, 3, &[])
            .unwrap_or_else(|error| panic!("{error:#}\nkept in {}", verify.keep(&cluster)));
        assert_writes(&cluster, &mut verify, WRITES_LIMIT, "the one before");
    }
    for shim in &shims {
        shim.clear().unwrap();
    }
    let log = cluster.logs();
    assert!(!log.contains("it is fenced"), "kept in {}", verify.keep(&cluster));
    verify.finish_held(&cluster, 200).unwrap_or_else(|error| panic!("{error:#}"));
}

/// S-L17: every write and sync of one broker's disk takes 200 ms. The others go on, and it is not taken for dead.
#[test]
#[ignore = "long"]
fn s_l17_the_disk_of_one_broker_is_slow() {
    let mut cluster = Cluster::prepare(3, &[FAST_LAG]).unwrap();
    let data = cluster.nodes[2].data_directory();
    let shim = Shim::install(&mut cluster.nodes[2], &data).unwrap();
    start(&mut cluster);
    shim.assert_loaded().unwrap();
    let mut verify = Verify::start(&cluster, seed(), &["--rate", "300"]).unwrap();
    shim.set(Knob::WriteDelayMs, 200).unwrap();
    shim.set(Knob::SyncDelayMs, 200).unwrap();
    for _ in 0..10 {
        assert_writes(&cluster, &mut verify, WRITES_LIMIT, "the one before");
        std::thread::sleep(Duration::from_secs(2));
    }
    let log = cluster.logs();
    assert!(!log.contains("it is fenced"), "kept in {}", verify.keep(&cluster));
    shim.clear().unwrap();
    let in_sync = cluster.await_in_sync(&verify.topic, 3, PATIENCE).unwrap();
    println!("in sync after {in_sync:?}");
    verify.finish_held(&cluster, 200).unwrap_or_else(|error| panic!("{error:#}"));
}

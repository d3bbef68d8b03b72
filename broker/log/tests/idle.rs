//! What many partitions cost that nobody uses: memory and file handles.

#![allow(clippy::unwrap_used, reason = "a step that fails is a failed test")]

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicIsize, Ordering};

use common::plain;
use ottla_log::{Log, LogConfig, OpenOptions};
use uuid::Uuid;

/// Partitions of the test; what 10,000 cost is this many times that of one.
const PARTITIONS: usize = 600;
/// Bytes that a log of one segment may take that nobody uses, as they are asked of the allocator. A node has 4 KiB for all that
/// it knows of such a partition, and its log is the larger half of it.
const IDLE_BYTES_MAX: usize = 1_000;
/// Bytes that each further segment may add.
const SEGMENT_BYTES_MAX: usize = 300;
/// Bytes that each producer may add that is known of. Another allocator would round them up.
const PRODUCER_BYTES_MAX: usize = 500;

/// Bytes that are allocated and not given back.
static LIVE_BYTES: AtomicIsize = AtomicIsize::new(0);

struct Counting;

fn count(bytes: usize, sign: isize) {
    LIVE_BYTES.fetch_add(isize::try_from(bytes).unwrap_or(isize::MAX) * sign, Ordering::Relaxed);
}

// Safety: every call is the system's, with the caller's promises; only a number is kept beside it.
#[allow(unsafe_code, reason = "an allocator cannot be written otherwise; each call is passed on unchanged")]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), 1);
        // Safety: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        count(layout.size(), -1);
        // Safety: the caller's promise is passed on.
        unsafe { System.dealloc(block, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn live_bytes() -> usize {
    usize::try_from(LIVE_BYTES.load(Ordering::Relaxed)).unwrap()
}

fn open_files() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

struct Logs {
    _directory: tempfile::TempDir,
    paths: Vec<PathBuf>,
    config: Arc<LogConfig>,
}

impl Logs {
    /// Logs on disk that were closed cleanly. `fill` makes what is in each.
    fn on_disk(segment_bytes: usize, fill: impl Fn(&mut Log)) -> Self {
        let directory = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let path = |n: usize| directory.path().join(format!("a-topic-of-a-usual-name-{n}"));
        let config = Arc::new(LogConfig { segment_bytes, index_interval_bytes: 100, ..LogConfig::default() });
        let paths: Vec<_> = (0..PARTITIONS).map(path).collect();
        for path in &paths {
            let mut log = Log::create(path, Uuid::from_u128(7), Arc::clone(&config), 0).unwrap();
            fill(&mut log);
            log.close().unwrap();
        }
        Self { _directory: directory, paths, config }
    }

    fn open(&self, path: &Path) -> Log {
        let options = OpenOptions { clean_shutdown: true, recovery_point: 12, ..Default::default() };
        Log::open(path, Arc::clone(&self.config), options).unwrap().0
    }

    /// All of them opened, and what each takes.
    fn opened(&self) -> (Vec<Log>, usize) {
        let mut logs = Vec::with_capacity(PARTITIONS);
        // What is allocated once for all.
        drop(self.open(&self.paths[0]));
        let before = live_bytes();
        logs.extend(self.paths.iter().map(|path| self.open(path)));
        let each = (live_bytes() - before) / PARTITIONS + size_of::<Log>();
        (logs, each)
    }
}

/// One test, for the counter is the whole process's.
#[test]
fn idle_partitions_take_little_memory_and_no_file_handle() {
    let files_before = open_files();
    let twelve = |log: &mut Log| {
        for timestamp in 0..12 {
            log.append_as_leader(&mut plain(1, timestamp), 0, timestamp).unwrap();
        }
    };

    // --- one segment ---
    let one_segment = Logs::on_disk(1 << 20, twelve);
    let (mut logs, each) = one_segment.opened();
    println!(
        "{each} bytes for a log of one segment that was opened, {} of them the struct",
        size_of::<Log>()
    );
    assert!(each < IDLE_BYTES_MAX, "{each}");
    assert!(open_files() <= files_before + 5);
    let resting = live_bytes();
    for log in &mut logs {
        assert_eq!(log.read(0, 500, 12, true).unwrap().position, 0);
        log.begin_leader_epoch(1, 12);
        assert_eq!(log.append_as_leader(&mut plain(1, 12), 1, 12).unwrap().first_offset, 12);
        assert_eq!(log.offset_for_timestamp(12).unwrap().unwrap().offset, 12);
    }
    assert!(open_files() >= files_before + PARTITIONS, "those that are written to have theirs open");
    for log in &mut logs {
        log.rest().unwrap();
    }
    assert!(open_files() <= files_before + 5);
    let grown = (live_bytes() - resting) / PARTITIONS;
    println!("{grown} bytes more for a log that was written to and rests");
    assert!(each + grown < IDLE_BYTES_MAX, "{each} + {grown}");
    drop(logs);

    // --- more segments ---
    let segments = Logs::on_disk(300, twelve);
    let (logs, with_segments) = segments.opened();
    let count = std::fs::read_dir(&segments.paths[0])
        .unwrap()
        .filter(|entry| {
            entry.as_ref().unwrap().path().extension().is_some_and(|extension| extension == "log")
        })
        .count();
    assert!(count > 2, "{count}");
    let more = (with_segments - each) / (count - 1);
    println!("{more} bytes for each further segment of {count}");
    assert!(more < SEGMENT_BYTES_MAX, "{more}");
    drop(logs);

    // --- a producer ---
    let produced = Logs::on_disk(1 << 20, |log| {
        for sequence in 0..12 {
            let mut batch = common::idempotent(7, sequence);
            log.append_as_leader(&mut batch, 0, 1).unwrap();
        }
    });
    let (logs, with_producer) = produced.opened();
    println!("{} bytes more with a producer", with_producer - each);
    assert!(with_producer - each < PRODUCER_BYTES_MAX, "{with_producer}");
    drop(logs);
}

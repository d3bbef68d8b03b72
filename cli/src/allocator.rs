//! The process's allocator: mimalloc for what is small and frequent, the system's for large blocks.
//!
//! A large block of zeroes from the system is untouched memory, which costs nothing until it is written; mimalloc writes the
//! zeroes. sled alone sets up 20 MiB of statistics that nobody fills. Measured on an idle node: 67 MiB resident with mimalloc
//! for everything, 45 MiB with this.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use mimalloc::MiMalloc;

/// Blocks of this size and above come from the system. It is far above what the hot path allocates per request.
const LARGE_BYTES: usize = 384 * 1024;

/// A thread gives free memory back to the system at most this often. What a start or a burst took stays with the thread, and with the
/// system's allocator, otherwise: 22 MiB after the start of a node with 10,000 partitions.
const GIVE_BACK_PAUSE: Duration = Duration::from_secs(10);

/// Chooses by the size of the block, which the caller states again when it gives the block back.
pub(crate) struct BySize;

fn is_large(size: usize) -> bool {
    size >= LARGE_BYTES
}

// Safety: every block is given back to the allocator it came from, because both directions decide by the same size; `realloc`
// moves the block when its size crosses the border.
#[allow(unsafe_code, reason = "an allocator cannot be written otherwise; each call is passed on unchanged")]
unsafe impl GlobalAlloc for BySize {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // Safety: the caller's promise is passed on.
        unsafe { if is_large(layout.size()) { System.alloc(layout) } else { MiMalloc.alloc(layout) } }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // Safety: the caller's promise is passed on.
        unsafe {
            if is_large(layout.size()) { System.alloc_zeroed(layout) } else { MiMalloc.alloc_zeroed(layout) }
        }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // Safety: `layout` is the one it was allocated with, so this is the allocator that it came from.
        unsafe {
            if is_large(layout.size()) {
                System.dealloc(block, layout);
            } else {
                MiMalloc.dealloc(block, layout);
            }
        }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // Safety: as for `dealloc`; a block that crosses the border is copied within the bounds of both.
        unsafe {
            match (is_large(layout.size()), is_large(new_size)) {
                (true, true) => System.realloc(block, layout, new_size),
                (false, false) => MiMalloc.realloc(block, layout, new_size),
                _ => {
                    let moved = self.alloc(Layout::from_size_align_unchecked(new_size, layout.align()));
                    if !moved.is_null() {
                        std::ptr::copy_nonoverlapping(block, moved, layout.size().min(new_size));
                        self.dealloc(block, layout);
                    }
                    moved
                }
            }
        }
    }
}

// Safety: both take no pointer, may be called at any time, and only give free memory back.
#[allow(unsafe_code, reason = "the allocators have no other interface")]
mod native {
    unsafe extern "C" {
        /// Of mimalloc: the calling thread's free pages.
        pub(super) safe fn mi_collect(force: bool);
        /// Of glibc: free pages of all its arenas. Others give large blocks back at once.
        #[cfg(target_env = "gnu")]
        pub(super) safe fn malloc_trim(pad: usize) -> std::ffi::c_int;
        /// Of glibc: sets one of its numbers.
        #[cfg(target_env = "gnu")]
        pub(super) safe fn mallopt(which: std::ffi::c_int, value: std::ffi::c_int) -> std::ffi::c_int;
    }
}

/// How glibc gets large blocks. Others take each from the system and give it back.
#[cfg(target_env = "gnu")]
mod large {
    use std::ffi::c_int;

    /// Number of `M_MMAP_THRESHOLD`: from this size on a block is the system's own.
    const MMAP_THRESHOLD: c_int = -3;
    /// Number of `M_TRIM_THRESHOLD`: so much free memory stays at an arena's end.
    const TRIM_THRESHOLD: c_int = -1;
    /// The most that glibc takes.
    const MMAP_BYTES_MAX: c_int = 32 << 20;
    const TRIM_BYTES: c_int = 16 << 20;

    /// Left alone, glibc keeps in its arenas what was once freed, in pieces that it cannot give back.
    pub(super) fn are_of_the_system() {
        super::native::mallopt(MMAP_THRESHOLD, c_int::try_from(super::LARGE_BYTES).unwrap_or(c_int::MAX));
    }

    /// Traffic gets the same blocks again and again: from the arenas they cost no page fault.
    pub(super) fn are_reused() {
        super::native::mallopt(MMAP_THRESHOLD, MMAP_BYTES_MAX);
        super::native::mallopt(TRIM_THRESHOLD, TRIM_BYTES);
    }
}

/// A start reads a whole node's state, in blocks that are as large as that and needed once: they leave nothing behind. To be called
/// first, and [`end_start`] before there is traffic: each large block costs its page faults until then.
pub(crate) fn begin_start() {
    #[cfg(target_env = "gnu")]
    large::are_of_the_system();
}

/// Everything that a node has to read is read.
pub(crate) fn end_start() {
    #[cfg(target_env = "gnu")]
    {
        native::malloc_trim(0);
        large::are_reused();
    }
}

/// Gives free memory back to the system if the calling thread has not done so for a while: to be called when it has nothing to do.
pub(crate) fn give_back_sometimes() {
    thread_local! {
        static GAVE: Cell<Option<Instant>> = const { Cell::new(None) };
    }
    let now = Instant::now();
    let is_due = |gave: Option<Instant>| gave.is_none_or(|gave| now.duration_since(gave) >= GIVE_BACK_PAUSE);
    if !is_due(GAVE.get()) {
        return;
    }
    GAVE.set(Some(now));
    native::mi_collect(true);
    give_back_large(is_due, now);
}

/// The system's allocator is shared: one thread is enough.
fn give_back_large(is_due: impl Fn(Option<Instant>) -> bool, now: Instant) {
    static GAVE: Mutex<Option<Instant>> = Mutex::new(None);
    let Ok(mut gave) = GAVE.try_lock() else { return };
    if is_due(*gave) {
        *gave = Some(now);
        #[cfg(target_env = "gnu")]
        native::malloc_trim(0);
    }
}

#[cfg(test)]
mod tests {
    use super::LARGE_BYTES;

    #[test]
    fn a_block_keeps_its_bytes_when_it_crosses_the_border_in_both_directions() {
        let pattern =
            |length: usize| (0..length).map(|at| u8::try_from(at % 251).unwrap()).collect::<Vec<u8>>();
        let mut block = pattern(LARGE_BYTES - 1);
        block.shrink_to_fit();
        block.extend_from_slice(&[7; 4096]);
        assert_eq!(block[..LARGE_BYTES - 1], pattern(LARGE_BYTES - 1)[..]);
        block.truncate(1000);
        block.shrink_to_fit();
        assert_eq!(block, pattern(1000));
    }

    /// Bytes of this process that are in memory.
    fn resident_bytes() -> usize {
        let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
        pages.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 4_096
    }

    #[test]
    fn what_is_free_goes_back_to_the_system() {
        const BYTES: usize = 64 << 20;
        let before = resident_bytes();
        // Large blocks in an order that leaves them in glibc's heap, and small ones that cross threads.
        let large: Vec<Vec<u8>> = (0..64).map(|_| vec![1; BYTES / 128]).collect();
        let small = std::thread::spawn(|| {
            let block = |_| vec![1_u8; 100].into_boxed_slice();
            (0..BYTES / 256).map(block).collect::<Vec<_>>()
        });
        let small = small.join().unwrap();
        assert!(resident_bytes() > before + BYTES / 2);
        drop((large, small));
        super::give_back_sometimes();
        let kept = resident_bytes().saturating_sub(before);
        assert!(kept < BYTES / 4, "{kept} bytes are kept");
    }
}

//! How much memory reading may take: an allocator that counts, and a bound for each parser.
//!
//! libFuzzer's own limit of one allocation needs a sanitizer, which these targets are built without; and what counts is
//! what is held at once. So every body is measured, and one that goes beyond its bound is a finding.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::Once;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use crate::bodies::{self, Body};

struct Counting;

static HELD: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn more(bytes: usize) {
    MOST.fetch_max(HELD.fetch_add(bytes, Relaxed) + bytes, Relaxed);
}

// SAFETY: everything is the system's allocator; beside it only numbers are kept.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        more(layout.size());
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        more(layout.size());
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // Both are held while one is copied into the other.
        more(size);
        let moved = unsafe { System.realloc(at, layout, size) };
        HELD.fetch_sub(layout.size(), Relaxed);
        moved
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Relaxed);
        unsafe { System.dealloc(at, layout) }
    }
}

/// Runs a body; beyond its bound of memory it fails.
pub fn within(body: &Body, data: &[u8]) {
    static READY: Once = Once::new();
    READY.call_once(bodies::ready);
    let before = HELD.load(Relaxed);
    MOST.store(before, Relaxed);
    (body.run)(data);
    let (held, room) = (MOST.load(Relaxed).saturating_sub(before), body.room(data.len()));
    assert!(held <= room, "{}: {held} bytes were held for {} of input, {room} at most", body.name, data.len());
}

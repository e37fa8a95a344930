//! sled panics where it should fail; here a panic of sled becomes an error, without a trace on stderr.
//!
//! Panic hooks belong to the whole process, so the hook is wrapped once, and stays silent only for
//! threads that are inside [`contained`], and for sled's own threads: whoever waits for these gets an
//! error that says the same. Every other panic goes to the hook that was there before.

use std::any::Any;
use std::cell::Cell;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;

thread_local! {
    static SILENT: Cell<bool> = const { Cell::new(false) };
}

static HOOK: Once = Once::new();

fn wrap_hook() {
    HOOK.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            let silent = SILENT.try_with(Cell::get).unwrap_or(false)
                || std::thread::current().name().is_some_and(|name| name.starts_with("sled-io"));
            if !silent {
                before(info);
            }
        }));
    });
}

/// Runs `work`, which calls sled; what a panic says comes back as `Err`.
///
/// The message of a panic may hold bytes of keys or values, so it is cut to its first line and to
/// what looks like prose.
pub(super) fn contained<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    wrap_hook();
    let before = SILENT.with(|silent| silent.replace(true));
    // What `work` held when it panicked is either given up (open) or poisoned (the writer).
    let done = panic::catch_unwind(AssertUnwindSafe(work));
    SILENT.with(|silent| silent.set(before));
    done.map_err(|panic| prose(panic.as_ref()))
}

fn prose(panic: &(dyn Any + Send)) -> String {
    let said = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or_default();
    let words: String = said
        .lines()
        .next()
        .unwrap_or_default()
        .chars()
        .take_while(|c| c.is_alphabetic() || " ,'-".contains(*c))
        .collect();
    format!("sled stopped in the middle ({})", words.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_an_error_without_bytes() {
        assert_eq!(contained(|| 3), Ok(3));
        let key = [17_u8, 18];
        let said = contained(|| panic!("no page for key {key:?}")).unwrap_err();
        assert_eq!(said, "sled stopped in the middle (no page for key)");
    }
}

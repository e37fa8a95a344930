//! The `jadegate` command.

/// An answer takes some hundred small allocations on one thread and frees many on another: measured, the system's
/// allocator took a fifth of an answer's time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    jadegate::cli::main()
}

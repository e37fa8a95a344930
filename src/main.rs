//! The `jadegate` command.

fn main() -> std::process::ExitCode {
    jadegate::cli::main()
}

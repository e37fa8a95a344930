//! The `jadegate` command.

fn main() {}

//! The command line, as whoever types it meets it: the binary, its messages and its exit codes.

mod commands;
mod demo;
mod evaluate;
mod feed_bombs;
mod feed_memory;
mod import;
mod logs;
mod models;
mod rotate;
mod starts;
mod moves;
mod store;
mod verify;

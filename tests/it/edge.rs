//! The outer surface over real listeners: what comes in wrong, who is let in, and what goes out.

mod answers;
mod bad_input;
mod bad_lines;
mod canaries;
mod cluster;
mod certificates;
mod crash;
mod damage;
mod durable;
mod identities;
mod limits;
mod listeners;
mod log;
mod operation;
mod outcomes;
mod overload;
mod passports;
mod power;
mod signatures;
mod sweep;
mod timing;
mod trouble;

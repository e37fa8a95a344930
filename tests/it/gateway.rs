//! The use cases over the memory store: what each promises, and what an attacker tries.

mod ask;
mod attacker;
mod audit;
mod backup;
mod batches;
mod cells;
mod codes;
mod commitments;
mod consents;
mod days;
mod door;
mod every_commit;
mod faults;
mod inspect;
mod log;
mod market;
mod models;
mod outside;
mod publish;
mod report;
mod review;
mod rotate;
mod sweep;
mod two;
mod walk;

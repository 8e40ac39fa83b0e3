//! Micro-benchmarks of the code that every request runs: `cargo bench --locked --bench micro`, or a part of it with
//! `-- l1`. To compare two states, use `-- --save-baseline before` and then `-- --baseline before`.
//!
//! Times depend on the machine and its other load; the figures of `benches/instructions` hardly do.

mod body;
mod glob;
mod l1;
mod ring;

use criterion::Criterion;

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    l1::benches(&mut criterion);
    ring::benches(&mut criterion);
    glob::benches(&mut criterion);
    body::benches(&mut criterion);
    criterion.final_summary();
}

//! Micro-benches of what every request passes through: `cargo bench --locked --bench micro`, or a part of them
//! with `-- l1`. To compare two states, `-- --save-baseline before` and then `-- --baseline before`.
//!
//! Times depend on the machine and on what else it does; `benches/instructions` has figures that do not.

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

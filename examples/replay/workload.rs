//! The records to replay, read from a trace or generated, and the expected number of hits.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use anyhow::{Context, ensure};

use crate::args::Input;
use crate::record::Record;
use crate::zipf::{SplitMix64, Zipf};

/// The number of types over which generated keys are spread. More than one, so that the sum over namespaces is
/// tested.
const GENERATED_TYPES: u32 = 4;

/// Accesses in the order of the replay; at least one.
pub struct Workload {
    records: Vec<Record>,
    distinct: BTreeSet<Record>,
    types: BTreeSet<u32>,
}

impl Workload {
    /// Reads or generates the records and keeps the first `limit` of them.
    ///
    /// # Errors
    /// The trace cannot be read, is not in xz format, is empty or ends in the middle of a record.
    pub fn load(input: &Input, limit: Option<usize>) -> anyhow::Result<Self> {
        let limit = limit.unwrap_or(usize::MAX);
        let records = match input {
            Input::Trace(path) => {
                let mut records =
                    read_trace(path).with_context(|| format!("cannot read the trace {}", path.display()))?;
                records.truncate(limit);
                records
            }
            Input::Zipf { records, distribution, seed } => generate(limit.min(*records), distribution, *seed),
        };
        Ok(Self::new(records))
    }

    fn new(records: Vec<Record>) -> Self {
        let distinct: BTreeSet<_> = records.iter().copied().collect();
        let types = distinct.iter().map(|record| record.type_number()).collect();
        Self { records, distinct, types }
    }

    pub fn records(&self) -> &[Record] {
        &self.records
    }

    /// Every different key, in a fixed order.
    pub fn distinct(&self) -> &BTreeSet<Record> {
        &self.distinct
    }

    /// The types that occur; each has its own namespace.
    pub fn types(&self) -> &BTreeSet<u32> {
        &self.types
    }

    /// The hits of a cache that never evicts: each key misses once and hits afterwards.
    pub fn expected_hits(&self) -> usize {
        self.records.len() - self.distinct.len()
    }
}

fn read_trace(path: &Path) -> anyhow::Result<Vec<Record>> {
    let mut packed = BufReader::new(File::open(path)?);
    let mut bytes = Vec::new();
    lzma_rs::xz_decompress(&mut packed, &mut bytes).context("it is not an .xz file")?;
    decode(&bytes)
}

fn decode(bytes: &[u8]) -> anyhow::Result<Vec<Record>> {
    let (records, rest) = bytes.as_chunks::<4>();
    ensure!(rest.is_empty(), "it ends in the middle of a record: {} bytes are not a multiple of 4", bytes.len());
    ensure!(!records.is_empty(), "it contains no records");
    Ok(records.iter().map(|&record| Record::from_bits(u32::from_be_bytes(record))).collect())
}

fn generate(records: usize, distribution: &Zipf, seed: u64) -> Vec<Record> {
    let mut random = SplitMix64::new(seed);
    (0..records).map(|_| of_rank(distribution.draw(&mut random))).collect()
}

/// Neighbouring ranks get different types, so that every namespace has popular keys.
fn of_rank(rank: usize) -> Record {
    let rank = u32::try_from(rank).expect("a distribution has at most MAX_DISTINCT ranks");
    Record::from_bits(((rank % GENERATED_TYPES) << 27) | (rank / GENERATED_TYPES))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_is_big_endian_and_ends_with_a_whole_record() {
        let records = decode(&[0x18, 0, 4, 1, 0, 0, 0, 2]).expect("two records");
        let names: Vec<_> = records.iter().map(ToString::to_string).collect();
        assert_eq!(names, ["type_3/1:1", "type_0/0:2"]);
        assert!(decode(&[0, 0, 0]).is_err());
        assert!(decode(&[]).is_err());
    }

    #[test]
    fn each_rank_is_its_own_key() {
        let keys: BTreeSet<_> = (0..10_000).map(of_rank).collect();
        assert_eq!(keys.len(), 10_000);
    }

    #[test]
    fn the_default_workload_is_the_same_on_every_machine() {
        let workload = Workload::new(generate(100_000, &Zipf::new(10_000, 1.0), 1));
        assert_eq!((workload.records().len(), workload.expected_hits()), (100_000, 91_441));
        assert_eq!(workload.types().len(), 4);
    }
}

//! The schema's history, part of the program. Each step stands once for each database, under the
//! same number; one that was released is never edited.

use sqlx::SqlSafeStr as _;
use sqlx::migrate::{Migration, MigrationType, Migrator};

/// Number, name, and the SQL for PostgreSQL and for SQLite.
const STEPS: [(i64, &str, &str, &str); 6] = [
    (
        1,
        "foundation",
        include_str!("../../migrations/postgres/0001_foundation.sql"),
        include_str!("../../migrations/sqlite/0001_foundation.sql"),
    ),
    (
        2,
        "audit",
        include_str!("../../migrations/postgres/0002_audit.sql"),
        include_str!("../../migrations/sqlite/0002_audit.sql"),
    ),
    (
        3,
        "stale_if_error",
        include_str!("../../migrations/postgres/0003_stale_if_error.sql"),
        include_str!("../../migrations/sqlite/0003_stale_if_error.sql"),
    ),
    (
        4,
        "asked_by",
        include_str!("../../migrations/postgres/0004_asked_by.sql"),
        include_str!("../../migrations/sqlite/0004_asked_by.sql"),
    ),
    (
        5,
        "jobs",
        include_str!("../../migrations/postgres/0005_jobs.sql"),
        include_str!("../../migrations/sqlite/0005_jobs.sql"),
    ),
    (
        7,
        "outcome",
        include_str!("../../migrations/postgres/0007_outcome.sql"),
        include_str!("../../migrations/sqlite/0007_outcome.sql"),
    ),
];

/// Number and name of every step.
pub fn known() -> impl Iterator<Item = (i64, &'static str)> {
    STEPS.iter().map(|(number, name, ..)| (*number, *name))
}

pub fn postgres() -> Migrator {
    migrator(STEPS.map(|(number, name, sql, _)| (number, name, sql)))
}

pub fn sqlite() -> Migrator {
    migrator(STEPS.map(|(number, name, _, sql)| (number, name, sql)))
}

fn migrator<const N: usize>(steps: [(i64, &'static str, &'static str); N]) -> Migrator {
    let migration = |(number, name, sql): (i64, &'static str, &'static str)| {
        Migration::new(number, name.into(), MigrationType::Simple, sql.into_sql_str(), false)
    };
    let mut migrator = Migrator::with_migrations(steps.into_iter().map(migration).collect());
    // During a rolling upgrade an older instance meets migrations that it does not know.
    migrator.set_ignore_missing(true);
    migrator
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::STEPS;

    #[test]
    fn every_file_of_the_folder_is_a_step() {
        for folder in ["postgres", "sqlite"] {
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations").join(folder);
            let names = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
            let mut files: Vec<String> = names.collect();
            files.sort();
            assert_eq!(files, STEPS.map(|(number, name, ..)| format!("{number:04}_{name}.sql")));
        }
    }
}

//! How much goes into one script, so that it never blocks a shard's other clients for long.

use crate::model::Write;

/// Limits of one script.
pub const KEYS_PER_SCRIPT: usize = 100;
const BYTES_PER_SCRIPT: usize = 1 << 20;

/// What an entry adds to the size of a script.
#[derive(Clone, Copy, Default)]
pub struct Load {
    /// About how many Redis keys it touches.
    pub keys: usize,
    pub bytes: usize,
}

impl Load {
    pub const READ: Self = Self { keys: 1, bytes: 0 };

    /// A write touches the value, the metadata and the index, and each tag.
    pub fn of(write: &Write) -> Self {
        Self { keys: 3 + write.tags.len(), bytes: write.value.len() }
    }
}

/// Divides operations into scripts, in their order. Each script takes as many operations as the limits allow, at least
/// one. Neighbours in a script must pass `stand_together`.
pub fn scripts_of<T>(
    operations: Vec<T>,
    most_keys: usize,
    load: impl Fn(&T) -> Load,
    stand_together: impl Fn(&T, &T) -> bool,
) -> Vec<Vec<T>> {
    let (mut scripts, mut sum): (Vec<Vec<T>>, Load) = Default::default();
    for operation in operations {
        let Load { keys, bytes } = load(&operation);
        sum = Load { keys: sum.keys + keys, bytes: sum.bytes + bytes };
        match scripts.last_mut() {
            Some(last)
                if sum.keys <= most_keys
                    && sum.bytes <= BYTES_PER_SCRIPT
                    && last.last().is_some_and(|before| stand_together(before, &operation)) =>
            {
                last.push(operation);
            }
            _ => {
                scripts.push(vec![operation]);
                sum = Load { keys, bytes };
            }
        }
    }
    scripts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn divided(operations: &[(usize, usize)], most_keys: usize) -> Vec<Vec<(usize, usize)>> {
        let load = |(keys, bytes): &(usize, usize)| Load { keys: *keys, bytes: *bytes };
        scripts_of(operations.to_vec(), most_keys, load, |_, _| true)
    }

    #[test]
    fn a_script_takes_as_many_operations_as_its_limits_allow_and_at_least_one() {
        let (small, large) = ((1, 0), (1, BYTES_PER_SCRIPT));
        assert!(divided(&[], 100).is_empty());
        assert_eq!(divided(&[small; 7], 3), [vec![small; 3], vec![small; 3], vec![small]]);
        assert_eq!(divided(&[(5, 0); 2], 3), [[(5, 0)], [(5, 0)]], "more keys than a script may have");
        assert_eq!(divided(&[small, large, large, small], 100), [vec![small, large], vec![large, small]]);
        assert_eq!(divided(&[(1, 2 * BYTES_PER_SCRIPT), small], 100).len(), 2);
        assert_eq!(divided(&[small; 3], 1).len(), 3, "each alone");
    }

    #[test]
    fn operations_that_may_not_be_together_get_separate_scripts() {
        let scripts = scripts_of(vec![1, 1, 2, 2, 1], 100, |_| Load::READ, |a, b| a == b);
        assert_eq!(scripts, [vec![1, 1], vec![2, 2], vec![1]]);
    }
}

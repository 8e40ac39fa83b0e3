//! Memory budgets that all requests share, for example one for request bodies and one for responses. A request takes
//! memory from the budget when it needs it, and fails if there is not enough.

use std::ops::Deref;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Limits how many bytes all current requests together use for one purpose.
#[derive(Debug)]
pub struct Budget {
    max: usize,
    used: AtomicUsize,
}

/// The budget does not have enough left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BudgetExceeded;

impl Budget {
    pub fn new(max: usize) -> Self {
        Self { max, used: AtomicUsize::new(0) }
    }

    pub fn used(&self) -> usize {
        self.used.load(Relaxed)
    }

    /// An empty share, which costs nothing.
    pub fn share(&self) -> Share<&Self> {
        Share::of(self)
    }
}

/// The part of the budget that one request holds. It is given back on drop.
#[derive(Debug)]
pub struct Share<B: Deref<Target = Budget>> {
    budget: B,
    bytes: AtomicUsize,
}

impl<B: Deref<Target = Budget>> Share<B> {
    /// An empty share.
    pub fn of(budget: B) -> Self {
        Self { budget, bytes: AtomicUsize::new(0) }
    }

    /// The bytes of this share.
    pub fn held(&self) -> usize {
        self.bytes.load(Relaxed)
    }

    pub fn left_for_all(&self) -> usize {
        self.budget.max.saturating_sub(self.budget.used())
    }

    /// Takes `bytes` more, at once or not at all. It never waits: requests that each hold a part of the budget could
    /// wait for each other forever.
    ///
    /// # Errors
    /// The budget does not have enough left.
    pub fn take(&self, bytes: usize) -> Result<(), BudgetExceeded> {
        let max = self.budget.max;
        let more = |used: usize| used.checked_add(bytes).filter(|used| *used <= max);
        self.budget.used.fetch_update(Relaxed, Relaxed, more).map_err(|_| BudgetExceeded)?;
        self.bytes.fetch_add(bytes, Relaxed);
        Ok(())
    }

    /// Changes the share to exactly `bytes`.
    ///
    /// # Errors
    /// The budget does not have enough left; nothing changes.
    pub fn resize(&self, bytes: usize) -> Result<(), BudgetExceeded> {
        let held = self.bytes.load(Relaxed);
        if bytes > held {
            return self.take(bytes - held);
        }
        self.bytes.fetch_sub(held - bytes, Relaxed);
        self.budget.used.fetch_sub(held - bytes, Relaxed);
        Ok(())
    }

    pub fn give_back(&self) {
        let bytes = self.bytes.swap(0, Relaxed);
        if bytes > 0 {
            self.budget.used.fetch_sub(bytes, Relaxed);
        }
    }
}

impl<B: Deref<Target = Budget>> Drop for Share<B> {
    fn drop(&mut self) {
        self.give_back();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_grows_and_shrinks_within_the_budget() {
        let budget = Budget::new(100);
        let (one, other) = (budget.share(), budget.share());
        assert_eq!((one.take(60), other.take(41)), (Ok(()), Err(BudgetExceeded)));
        assert_eq!((other.take(40), one.resize(61)), (Ok(()), Err(BudgetExceeded)));
        assert_eq!((one.resize(10), one.held(), budget.used()), (Ok(()), 10, 50));
        drop(one);
        assert_eq!(budget.used(), 40);
        drop(other);
        assert_eq!(budget.used(), 0);
    }
}

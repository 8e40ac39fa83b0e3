//! Leases on their way to a client. The connection settles them when it has written the answer that names them. If it
//! does not get that far, they are dropped, and so given back.

use std::sync::Arc;

use axum::response::Response;
use parking_lot::Mutex;

use crate::cache::WonLease;

/// The leases that a response gives, as an extension of the response. Extensions must be `Clone`; nobody clones it.
#[derive(Clone)]
struct GivenLeases(Arc<Mutex<Vec<WonLease>>>);

/// Lets `response` carry leases to its connection. This also works for a response without a body (304).
pub fn attach(response: &mut Response, won: Vec<WonLease>) {
    if !won.is_empty() {
        response.extensions_mut().insert(GivenLeases(Arc::new(Mutex::new(won))));
    }
}

/// Takes the leases that `response` gives.
pub fn take(response: &mut Response) -> Vec<WonLease> {
    let given = response.extensions_mut().remove::<GivenLeases>();
    given.map(|given| std::mem::take(&mut *given.0.lock())).unwrap_or_default()
}

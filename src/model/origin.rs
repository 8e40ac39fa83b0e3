//! Who requested a change, as far as that is known without credentials.

use std::net::IpAddr;

/// Where a request came from. Its size is bounded, and it has no control characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    client: IpAddr,
    forwarded_for: Option<String>,
    request_id: String,
}

impl Origin {
    /// The maximum number of bytes that are kept of each text.
    const MAX_FORWARDED_FOR: usize = 512;
    const MAX_REQUEST_ID: usize = 128;

    /// `forwarded_for` is the request's own claim. If it is too long, its end is kept: the nearest proxy appends to
    /// the end, and a client can only forge the beginning.
    pub fn new(client: IpAddr, forwarded_for: Option<&str>, request_id: &str) -> Self {
        let forwarded_for = forwarded_for.map(printable).filter(|claim| !claim.is_empty());
        let mut request_id = printable(request_id);
        request_id.truncate(request_id.floor_char_boundary(Self::MAX_REQUEST_ID));
        Self { client: client.to_canonical(), forwarded_for: forwarded_for.map(end), request_id }
    }

    /// The address of the other end of the connection (a client or a proxy).
    pub fn client(&self) -> IpAddr {
        self.client
    }

    /// The claim in `X-Forwarded-For`.
    pub fn forwarded_for(&self) -> Option<&str> {
        self.forwarded_for.as_deref()
    }

    pub fn request_id(&self) -> &str {
        &self.request_id
    }
}

/// The text without control characters.
pub fn printable(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).collect()
}

/// Keeps the end of a text that is too long, and marks the cut.
fn end(text: String) -> String {
    const CUT: &str = "...";
    if text.len() <= Origin::MAX_FORWARDED_FOR {
        return text;
    }
    let kept = text.ceil_char_boundary(text.len() - Origin::MAX_FORWARDED_FOR + CUT.len());
    format!("{CUT}{}", &text[kept..])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(forwarded_for: &str, request_id: &str) -> Origin {
        Origin::new("::ffff:127.0.0.1".parse().unwrap(), Some(forwarded_for), request_id)
    }

    #[test]
    fn claims_are_bounded_and_printable() {
        let kept = origin("10.0.0.1,\t10.0.0.2", "a\u{1b}[31mb");
        assert_eq!(kept.client().to_string(), "127.0.0.1");
        assert_eq!((kept.forwarded_for(), kept.request_id()), (Some("10.0.0.1,10.0.0.2"), "a[31mb"));
        assert_eq!(origin("\t", "x").forwarded_for(), None);
    }

    #[test]
    fn what_the_nearest_proxy_added_is_never_cut_off() {
        for made_up in ["1.2.3.4, ".repeat(1000), "ü".repeat(5000)] {
            let kept = origin(&format!("{made_up}, 10.0.0.7"), &made_up);
            let forwarded_for = kept.forwarded_for().unwrap();
            assert!(forwarded_for.len() <= Origin::MAX_FORWARDED_FOR, "{}", forwarded_for.len());
            assert!(forwarded_for.starts_with("...") && forwarded_for.ends_with(", 10.0.0.7"), "{forwarded_for}");
            assert!(kept.request_id().len() <= Origin::MAX_REQUEST_ID);
        }
    }
}

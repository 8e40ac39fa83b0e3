//! An HTTP answer: status, headers, the bytes of the body, and checks of the contract.

use bytes::Bytes;
use reqwest::header::HeaderMap;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_json::value::RawValue;

/// A whole answer. The methods whose names start with `expect` check the contract and fail the test.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
}

/// The `metadata` of a GET.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Metadata {
    pub ttl_remaining: Option<u64>,
    pub created_at: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry<'a> {
    #[serde(borrow)]
    value: &'a RawValue,
    metadata: Metadata,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        let value = self.headers.get(name)?;
        Some(value.to_str().unwrap_or_else(|_| panic!("header {name} is not text: {value:?}")))
    }

    /// The body as text.
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("a body of UTF-8")
    }

    /// The body, parsed.
    #[track_caller]
    pub fn parsed<T: DeserializeOwned>(&self) -> T {
        match serde_json::from_slice(&self.body) {
            Ok(parsed) => parsed,
            Err(error) => panic!("{error} in {}", self.shown()),
        }
    }

    #[track_caller]
    pub fn json(&self) -> Value {
        self.parsed()
    }

    /// The whole number in a field of the body.
    #[track_caller]
    pub fn number(&self, field: &str) -> u64 {
        self.json()[field].as_u64().unwrap_or_else(|| panic!("{field} is not a whole number in {}", self.shown()))
    }

    /// The bytes of `value` in the answer to a GET, exactly as sent.
    #[track_caller]
    pub fn value(&self) -> &str {
        self.entry().value.get()
    }

    /// The `metadata` in the answer to a GET.
    #[track_caller]
    pub fn metadata(&self) -> Metadata {
        self.entry().metadata
    }

    /// Whether the value came from the L1 of the instance that answered.
    pub fn is_l1_hit(&self) -> bool {
        self.header("cache-status").is_some_and(|status| status.contains("sidecache-l1; hit"))
    }

    /// The staleness that an answer of L1 states: no acknowledged write older than this many milliseconds is missing
    /// from it. `None` for answers of other tiers. Checks that exactly the answers of L1 have one.
    #[track_caller]
    pub fn max_staleness_ms(&self) -> Option<u64> {
        let status = self.header("cache-status").unwrap_or("");
        let stated = status.split_once("; max-staleness-ms=").map(|(_, rest)| {
            let number = rest.split(';').next().unwrap_or_default();
            number.parse().unwrap_or_else(|_| panic!("max-staleness-ms is not a number: {status}"))
        });
        assert_eq!(stated.is_some(), self.is_l1_hit(), "{status}");
        stated
    }

    #[track_caller]
    pub fn expect(self, status: u16) -> Answer {
        assert_eq!(self.status, status, "{}", self.shown());
        self
    }

    /// Expects a JSON body that is exactly `json`, and the headers that every answer has.
    #[track_caller]
    pub fn expect_json(self, status: u16, json: &Value) -> Answer {
        let answer = self.expect(status);
        assert_eq!(answer.header("content-type"), Some("application/json"));
        assert!(answer.header("x-request-id").is_some_and(|id| !id.is_empty()), "{}", answer.shown());
        assert_eq!(&answer.json(), json);
        answer
    }

    /// Expects a 200 with a body that is exactly `json`. For answers whose headers were not kept.
    #[track_caller]
    pub fn expect_json_body(self, json: &Value) {
        assert_eq!(&self.expect(200).json(), json);
    }

    /// Expects an error in the form of the contract. Returns its texts for people, `error` and `detail`.
    #[track_caller]
    pub fn expect_error(self, status: u16, code: &str) -> String {
        self.expect_one_of_errors(status, &[code])
    }

    /// Like [`Answer::expect_error`], where any of several codes is correct.
    #[track_caller]
    pub fn expect_one_of_errors(self, status: u16, codes: &[&str]) -> String {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Problem {
            error: String,
            code: String,
            detail: Option<String>,
        }
        let answer = self.expect(status);
        assert_eq!(answer.header("content-type"), Some("application/json"), "{}", answer.shown());
        assert!(answer.header("x-request-id").is_some_and(|id| !id.is_empty()), "{}", answer.shown());
        let problem: Problem = answer.parsed();
        assert!(codes.contains(&problem.code.as_str()), "code {codes:?} expected: {}", answer.shown());
        assert!(!problem.error.is_empty(), "{}", answer.shown());
        let fixed = match problem.code.as_str() {
            "key_not_found" => Some("Key not found"),
            "invalid_namespace" => Some("Invalid namespace"),
            "value_too_large" => Some("Value too large"),
            "storage_full" => Some("Cache storage full"),
            _ => None,
        };
        if let Some(fixed) = fixed {
            assert_eq!(problem.error, fixed);
        }
        format!("{} {}", problem.error, problem.detail.unwrap_or_default())
    }

    #[track_caller]
    fn entry(&self) -> Entry<'_> {
        match serde_json::from_slice(&self.body) {
            Ok(entry) => entry,
            Err(error) => panic!("{error} in {}", self.shown()),
        }
    }

    fn shown(&self) -> String {
        let body = String::from_utf8_lossy(&self.body);
        let start: String = body.chars().take(500).collect();
        format!("status {}, headers {:?}, body ({} bytes) {start}", self.status, self.headers, self.body.len())
    }
}

//! Trace context (W3C Recommendation "Trace Context") and request ids: what is taken from a client.

use std::fmt;

use http::HeaderMap;
use http::HeaderName;

use crate::message::list;

/// `traceparent`
pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// `tracestate`
pub const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// The most members that a tracestate may have (§3.3.1.1).
const MOST_MEMBERS: usize = 32;

/// A valid traceparent (§3.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceParent {
    /// The version; 0 is the only one that is defined.
    pub version: u8,
    /// The trace; never all zero.
    pub trace_id: [u8; 16],
    /// The caller's span; never all zero.
    pub parent_id: [u8; 8],
    /// Bit 0 says that the caller may have recorded its span.
    pub flags: u8,
}

/// What is done with the trace fields of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TraceContext {
    /// There is no traceparent. A tracestate by itself means nothing and is removed.
    Absent,
    /// Both fields are passed on, or there is only a valid traceparent.
    Valid(TraceParent),
    /// The traceparent is passed on, the malformed tracestate removed (§3.3.1).
    WithoutState(TraceParent),
    /// The traceparent is malformed: both fields are removed (§3.2.2).
    Malformed,
}

impl TraceContext {
    /// Reads the trace fields of a request.
    #[must_use]
    pub fn of(headers: &HeaderMap) -> Self {
        let mut lines = headers.get_all(TRACEPARENT).into_iter();
        let Some(line) = lines.next() else {
            return Self::Absent;
        };
        match (TraceParent::parse(line.as_bytes()), lines.next()) {
            (Some(parent), None) if is_valid_state(headers) => Self::Valid(parent),
            (Some(parent), None) => Self::WithoutState(parent),
            _ => Self::Malformed,
        }
    }
}

impl TraceParent {
    /// Reads a field value; `None` if it is malformed.
    ///
    /// A version above 00 may be longer; its known parts are read and the rest is left aside
    /// (§3.2.4).
    #[must_use]
    pub fn parse(value: &[u8]) -> Option<Self> {
        let (known, rest) = value.split_at_checked(55)?;
        let [version] = hex(&known[..2])?;
        match (version, rest) {
            (0xff, _) => return None,
            (_, []) => {}
            (1.., [b'-', ..]) => {}
            _ => return None,
        }
        if [known[2], known[35], known[52]] != *b"---" {
            return None;
        }
        let parent = Self {
            version,
            trace_id: hex(&known[3..35])?,
            parent_id: hex(&known[36..52])?,
            flags: hex::<1>(&known[53..55])?[0],
        };
        (parent.trace_id != [0; 16] && parent.parent_id != [0; 8]).then_some(parent)
    }
}

impl fmt::Display for TraceParent {
    /// Writes the field value in version 00.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("00-")?;
        self.trace_id.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
        f.write_str("-")?;
        self.parent_id.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
        write!(f, "-{:02x}", self.flags)
    }
}

/// Lower-case hex digits, exactly twice as many as bytes.
fn hex<const N: usize>(digits: &[u8]) -> Option<[u8; N]> {
    fn nibble(digit: u8) -> Option<u8> {
        match digit {
            b'0'..=b'9' => Some(digit - b'0'),
            // Upper case is malformed (§3.2.2.3).
            b'a'..=b'f' => Some(digit - b'a' + 10),
            _ => None,
        }
    }
    let mut bytes = [0; N];
    if digits.len() != 2 * N {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = nibble(pair[0])? << 4 | nibble(pair[1])?;
    }
    Some(bytes)
}

/// Whether the tracestate lines, if any, are well formed (§3.3.1).
fn is_valid_state(headers: &HeaderMap) -> bool {
    let mut keys: Vec<&[u8]> = Vec::new();
    for line in headers.get_all(TRACESTATE) {
        // Values hold no commas and no quoting, so that a plain split is right here.
        for member in line.as_bytes().split(|&byte| byte == b',').map(list::trim) {
            if member.is_empty() {
                continue;
            }
            let Some(equals) = member.iter().position(|&byte| byte == b'=') else {
                return false;
            };
            let (key, value) = (&member[..equals], &member[equals + 1..]);
            let valid = is_state_key(key) && is_state_value(value);
            if !valid || keys.len() >= MOST_MEMBERS || keys.contains(&key) {
                return false;
            }
            keys.push(key);
        }
    }
    true
}

/// A simple key, or `tenant@system` (§3.3.1.3.1).
fn is_state_key(key: &[u8]) -> bool {
    let tail = |bytes: &[u8]| {
        bytes
            .iter()
            .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' | b'*' | b'/'))
    };
    match key.iter().position(|&byte| byte == b'@') {
        None => {
            matches!(key, [b'a'..=b'z' | b'0'..=b'9', rest @ ..] if tail(rest)) && key.len() <= 256
        }
        Some(at) => {
            let (tenant, system) = (&key[..at], &key[at + 1..]);
            matches!(tenant, [b'a'..=b'z' | b'0'..=b'9', rest @ ..] if rest.len() <= 240 && tail(rest))
                && matches!(system, [b'a'..=b'z', rest @ ..] if rest.len() <= 13 && tail(rest))
        }
    }
}

/// 1 to 256 visible bytes and spaces, without `,` and `=` (§3.3.1.3.2). Trimmed by the caller.
fn is_state_value(value: &[u8]) -> bool {
    (1..=256).contains(&value.len())
        && value.iter().all(|byte| matches!(byte, b' '..=b'~') && !matches!(byte, b',' | b'='))
}

/// Whether a request id from outside is taken: 1 to 128 letters, digits, `.`, `_`, `-`. Anything
/// else could break a log line or a file name somewhere behind us, and is replaced by our own.
#[must_use]
pub fn is_acceptable_request_id(id: &[u8]) -> bool {
    (1..=128).contains(&id.len())
        && id.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn context(parents: &[&str], states: &[&str]) -> TraceContext {
        let mut headers = HeaderMap::new();
        for value in parents {
            headers.append(TRACEPARENT, HeaderValue::from_str(value).unwrap());
        }
        for value in states {
            headers.append(TRACESTATE, HeaderValue::from_str(value).unwrap());
        }
        TraceContext::of(&headers)
    }

    fn good() -> TraceParent {
        TraceParent::parse(GOOD.as_bytes()).unwrap()
    }

    #[test]
    fn a_valid_traceparent_is_read_and_written() {
        assert_eq!(good().flags, 1);
        assert_eq!(good().parent_id, [0x00, 0xf0, 0x67, 0xaa, 0x0b, 0xa9, 0x02, 0xb7]);
        assert_eq!(good().to_string(), GOOD);
        assert_eq!(context(&[GOOD], &[]), TraceContext::Valid(good()));
    }

    #[test]
    fn malformed_traceparents_are_dropped() {
        for bad in [
            "",
            "00",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0g",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-011",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-",
            "00_4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01x",
        ] {
            assert_eq!(context(&[bad], &[]), TraceContext::Malformed, "{bad}");
        }
        assert_eq!(context(&[GOOD, GOOD], &[]), TraceContext::Malformed);
    }

    #[test]
    fn later_versions_may_be_longer() {
        let later = GOOD.replacen("00", "cc", 1);
        for value in [later.clone(), format!("{later}-"), format!("{later}-more")] {
            assert_eq!(
                TraceParent::parse(value.as_bytes()).map(|parent| parent.version),
                Some(0xcc)
            );
        }
    }

    #[test]
    fn a_tracestate_alone_means_nothing() {
        assert_eq!(context(&[], &["a=1"]), TraceContext::Absent);
    }

    #[test]
    fn valid_tracestates_pass() {
        for states in [
            &["rojo=00f067aa0ba902b7,congo=t61rcWkgMzE"][..],
            &["a=1", "b=2 3"],
            &["", "a=1 , ,b=!~"],
            &["t_1-*/x@sys=v", "0a=b"],
        ] {
            assert_eq!(context(&[GOOD], states), TraceContext::Valid(good()), "{states:?}");
        }
    }

    #[test]
    fn malformed_tracestates_are_dropped_alone() {
        for states in [
            &["a"][..],
            &["=1"],
            &["a="],
            &["A=1"],
            &["a=1=2"],
            &["a =1"],
            &["a=1", "a=2"],
            &["@sys=1"],
            &["t@0sys=1"],
            &["t@=1"],
            &["_a=1"],
            &["a=\u{e9}"],
        ] {
            assert_eq!(context(&[GOOD], states), TraceContext::WithoutState(good()), "{states:?}");
        }
    }

    #[test]
    fn a_tracestate_is_bounded() {
        let members = |n: usize| (0..n).map(|i| format!("k{i}=v")).collect::<Vec<_>>().join(",");
        assert_eq!(context(&[GOOD], &[&members(32)]), TraceContext::Valid(good()));
        assert_eq!(context(&[GOOD], &[&members(33)]), TraceContext::WithoutState(good()));
        let value = |n: usize| format!("k={}", "v".repeat(n));
        assert_eq!(context(&[GOOD], &[&value(256)]), TraceContext::Valid(good()));
        assert_eq!(context(&[GOOD], &[&value(257)]), TraceContext::WithoutState(good()));
        let key = |n: usize| format!("{}=v", "k".repeat(n));
        assert_eq!(context(&[GOOD], &[&key(256)]), TraceContext::Valid(good()));
        assert_eq!(context(&[GOOD], &[&key(257)]), TraceContext::WithoutState(good()));
    }

    #[test]
    fn request_ids_are_short_and_plain() {
        assert!(is_acceptable_request_id(b"0191-aZ_9.x"));
        assert!(is_acceptable_request_id(&[b'a'; 128]));
        assert!(!is_acceptable_request_id(&[b'a'; 129]));
        for bad in [&b""[..], b"a b", b"a\n", b"a/b", b"a\"", b"\xe9", b"a,b"] {
            assert!(!is_acceptable_request_id(bad), "{bad:?}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn any_bytes_have_an_answer(value in proptest::collection::vec(any::<u8>(), 0..70)) {
            if let Some(parent) = TraceParent::parse(&value) {
                prop_assert_eq!(TraceParent::parse(parent.to_string().as_bytes()),
                    Some(TraceParent { version: 0, ..parent }));
            }
        }

        #[test]
        fn what_is_written_is_read_back(trace_id: [u8; 16], parent_id: [u8; 8], flags: u8) {
            prop_assume!(trace_id != [0; 16] && parent_id != [0; 8]);
            let parent = TraceParent { version: 0, trace_id, parent_id, flags };
            prop_assert_eq!(TraceParent::parse(parent.to_string().as_bytes()), Some(parent));
        }

        #[test]
        fn any_tracestate_has_an_answer(value in "[ -~]{0,60}") {
            let found = context(&[GOOD], &[&value]);
            prop_assert!(matches!(found, TraceContext::Valid(_) | TraceContext::WithoutState(_)));
        }
    }
}

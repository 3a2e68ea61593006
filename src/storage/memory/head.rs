//! The parsed head of a stored response, in memory of its own.
//!
//! Field values that come from a connection are slices of its read buffers; keeping them would pin
//! buffers that nobody counts. So the values are copied once into one allocation, which they share.

use http::HeaderMap;
use http::HeaderName;
use http::HeaderValue;
use http::StatusCode;

use crate::cache::freshness::Restraint;
use crate::storage::memory::body::paid;
use crate::storage::memory::budget::Charge;
use crate::storage::memory::budget::allocated;

/// What one field costs in the map beside name and value text: hash, name, value and links.
const FIELD: u64 = 104;
/// What a further value of a field costs: value and links.
const FURTHER_VALUE: u64 = 88;
/// What the shared owner of the values costs.
const OWNER: u64 = 64;

/// A status and fields that pin no memory but their own.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    /// What the fields say of reuse, read once.
    pub(super) restraint: Restraint,
}

/// The fields cannot be kept: more than a header map holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TooManyFields;

impl Head {
    /// What the map of a copy of `headers` will cost in bytes, without the values' text.
    pub(super) fn map_cost(headers: &HeaderMap) -> u64 {
        let fields = headers.keys_len();
        // The map's index is a power of two of at least 4/3 of the fields; three quarters of it can
        // be used, and that many places are allocated.
        let index = (fields + fields / 3).next_power_of_two() as u64;
        // A list of further values grows by doubling.
        let further = match headers.len().saturating_sub(fields) {
            0 => 0,
            further => further.next_power_of_two().max(4) as u64,
        };
        let names: u64 = headers.keys().map(|name| allocated(name.as_str().len())).sum();
        (index * 4)
            .saturating_add((index - index / 4) * FIELD)
            .saturating_add(further * FURTHER_VALUE)
            .saturating_add(names)
    }

    /// What the values' text of a copy of `headers` will cost in bytes.
    pub(super) fn values_cost(headers: &HeaderMap) -> u64 {
        match values_len(headers) {
            // Nobody refers to an empty text, so nothing would hold on to its charge.
            0 => 0,
            len => allocated(len).saturating_add(OWNER),
        }
    }

    /// A copy of `status` and `headers`; `charge` pays for the values' text.
    pub(super) fn copied(
        status: StatusCode,
        headers: &HeaderMap,
        charge: Charge,
    ) -> Result<Self, TooManyFields> {
        let mut text = Vec::with_capacity(values_len(headers));
        for value in headers.values() {
            text.extend_from_slice(value.as_bytes());
        }
        let text = paid(text, charge);
        let mut own =
            HeaderMap::try_with_capacity(headers.keys_len()).map_err(|_| TooManyFields)?;
        let mut at = 0;
        for (name, value) in headers {
            let end = at + value.len();
            let mut copy = HeaderValue::from_maybe_shared(text.slice(at..end))
                .expect("the bytes of a valid field value make a valid field value");
            copy.set_sensitive(value.is_sensitive());
            own.try_append(own_name(name), copy).map_err(|_| TooManyFields)?;
            at = end;
        }
        let restraint = Restraint::of(&own);
        Ok(Self { status, headers: own, restraint })
    }
}

fn values_len(headers: &HeaderMap) -> usize {
    headers.values().map(HeaderValue::len).sum()
}

/// A name that shares no memory with the connection it came from.
fn own_name(name: &HeaderName) -> HeaderName {
    HeaderName::from_bytes(name.as_str().as_bytes())
        .expect("the text of a valid field name makes a valid field name")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::memory::budget::Budget;

    fn several() -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.append("content-type", HeaderValue::from_static("text/html"));
        headers.append("x-one", HeaderValue::from_static("1"));
        headers.append("x-one", HeaderValue::from_static(""));
        headers.append("x-one", HeaderValue::from_bytes(b"caf\xe9").expect("obs-text is allowed"));
        headers
    }

    #[test]
    fn a_copy_keeps_every_value_in_its_order() {
        let budget = Budget::new(1000);
        let head =
            Head::copied(StatusCode::OK, &several(), Charge::nothing(&budget)).expect("few fields");
        assert_eq!(head.headers, several());
        assert_eq!(
            head.headers.get_all("x-one").iter().collect::<Vec<_>>(),
            several().get_all("x-one").iter().collect::<Vec<_>>()
        );
    }

    #[test]
    fn values_stay_paid_for_while_a_response_still_holds_one() {
        let budget = Budget::new(1000);
        let mut charge = Charge::nothing(&budget);
        assert!(charge.try_grow(100));
        let head = Head::copied(StatusCode::OK, &several(), charge).expect("few fields");
        let escaped = head.headers.get("x-one").cloned();
        drop(head);
        assert_eq!(budget.used(), 100);
        drop(escaped);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn the_cost_covers_the_maps_real_capacity() {
        for fields in [0_usize, 1, 3, 6, 7, 12, 13, 24, 25, 100] {
            let mut headers = HeaderMap::new();
            for n in 0..fields {
                let name = HeaderName::from_bytes(format!("x-{n}").as_bytes()).expect("a token");
                headers.insert(name, HeaderValue::from_static("v"));
            }
            let budget = Budget::new(0);
            let copy = Head::copied(StatusCode::OK, &headers, Charge::nothing(&budget))
                .expect("few fields");
            let real = copy.headers.capacity() as u64 * FIELD;
            assert!(Head::map_cost(&headers) >= real, "{fields}: {real}");
        }
    }
}

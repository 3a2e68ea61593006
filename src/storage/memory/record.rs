//! A stored response but for its body, as bytes for another process.
//!
//! Numbers are big-endian, texts have their length before them. What is read may be anything: it is a record,
//! whole and without a byte too many, or nothing.

/// A stored response but for its body.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Record {
    /// The base key.
    pub(super) key: Vec<u8>,
    /// How many bytes at the front of it are the resource, where that is less than the key.
    pub(super) resource: Option<u32>,
    /// The route that stored it.
    pub(super) route: Option<String>,
    pub(super) status: u16,
    /// The fields, as lines.
    pub(super) lines: Vec<u8>,
    /// How many bytes at the end of them are sensitive.
    pub(super) sensitive: u32,
    /// What its request said in the fields that it varies by.
    pub(super) values: Option<Vec<u8>>,
    /// In nanoseconds, instants since 1970: created, responded, lifetime, age, and the two windows.
    pub(super) times: [u64; 6],
    /// Since when a soft purge made it stale; `u64::MAX`: none did.
    pub(super) stale_since: u64,
    pub(super) hits: u64,
    pub(super) last: u64,
    /// The length of the body that follows.
    pub(super) body: u64,
}

const NONE: u8 = 0;
const SOME: u8 = 1;

impl Record {
    /// The length of the body that follows, in bytes.
    pub fn body_len(&self) -> u64 {
        self.body
    }

    /// The bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(128 + self.key.len() + self.lines.len());
        text(&mut bytes, &self.key);
        option(&mut bytes, self.resource, |bytes, end| bytes.extend(end.to_be_bytes()));
        option(&mut bytes, self.route.as_ref(), |bytes, name| text(bytes, name.as_bytes()));
        bytes.extend(self.status.to_be_bytes());
        text(&mut bytes, &self.lines);
        bytes.extend(self.sensitive.to_be_bytes());
        option(&mut bytes, self.values.as_ref(), |bytes, values| text(bytes, values));
        let numbers =
            self.times.iter().chain([&self.stale_since, &self.hits, &self.last, &self.body]);
        numbers.for_each(|number| bytes.extend(number.to_be_bytes()));
        bytes
    }

    /// What these bytes are; `None`: no record.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut rest = Rest(bytes);
        let record = Self {
            key: rest.text()?,
            resource: rest.option(|rest| rest.array().map(u32::from_be_bytes))?,
            route: rest.option(|rest| String::from_utf8(rest.text()?).ok())?,
            status: u16::from_be_bytes(rest.array()?),
            lines: rest.text()?,
            sensitive: u32::from_be_bytes(rest.array()?),
            values: rest.option(Rest::text)?,
            times: {
                let mut times = [0; 6];
                for time in &mut times {
                    *time = rest.number()?;
                }
                times
            },
            stale_since: rest.number()?,
            hits: rest.number()?,
            last: rest.number()?,
            body: rest.number()?,
        };
        rest.0.is_empty().then_some(record)
    }
}

fn text(bytes: &mut Vec<u8>, text: &[u8]) {
    // What is stored is shorter than 4 GiB (`Draft::new`).
    bytes.extend(u32::try_from(text.len()).unwrap_or(u32::MAX).to_be_bytes());
    bytes.extend_from_slice(text);
}

fn option<T>(bytes: &mut Vec<u8>, what: Option<T>, write: impl FnOnce(&mut Vec<u8>, T)) {
    bytes.push(if what.is_some() { SOME } else { NONE });
    if let Some(what) = what {
        write(bytes, what);
    }
}

/// What is still to be read.
struct Rest<'a>(&'a [u8]);

impl Rest<'_> {
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (first, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*first)
    }

    fn number(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }

    fn text(&mut self) -> Option<Vec<u8>> {
        let length = usize::try_from(u32::from_be_bytes(self.array()?)).ok()?;
        let (text, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(text.to_vec())
    }

    /// The outer `None`: it cannot be read.
    fn option<T>(&mut self, read: impl FnOnce(&mut Self) -> Option<T>) -> Option<Option<T>> {
        match self.array::<1>()?[0] {
            NONE => Some(None),
            SOME => read(self).map(Some),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn record() -> impl Strategy<Value = Record> {
        let bytes = || prop::collection::vec(any::<u8>(), 0..40);
        let names = (bytes(), any::<Option<u32>>(), prop::option::of("[a-z]{0,9}"), bytes());
        let rest = (any::<u16>(), any::<u32>(), prop::option::of(bytes()), any::<[u64; 6]>());
        (names, rest, any::<[u64; 4]>()).prop_map(
            |((key, resource, route, lines), (status, sensitive, values, times), last)| Record {
                key,
                resource,
                route,
                status,
                lines,
                sensitive,
                values,
                times,
                stale_since: last[0],
                hits: last[1],
                last: last[2],
                body: last[3],
            },
        )
    }

    proptest! {
        #[test]
        fn a_record_reads_back_as_it_was_and_no_part_of_it_is_one(one in record(), cut in any::<prop::sample::Index>()) {
            let bytes = one.encode();
            prop_assert_eq!(Record::decode(&bytes), Some(one));
            prop_assert_eq!(Record::decode(&bytes[..cut.index(bytes.len())]), None);
            let more = [&bytes[..], &[0]].concat();
            prop_assert_eq!(Record::decode(&more), None);
        }

        #[test]
        fn any_bytes_are_a_record_or_none(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            if let Some(record) = Record::decode(&bytes) {
                prop_assert_eq!(record.encode(), bytes);
            }
        }
    }
}

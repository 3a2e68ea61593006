//! Which variant a request selects (RFC 9111 §4.1).
//!
//! A variant keeps the field names its own response's `Vary` listed and what the request that
//! fetched it said in them. It is served to a request that says the same in the same fields, and
//! to no other, whatever its siblings list.

use http::HeaderMap;
use http::HeaderName;

use crate::cache::vary::Spec;
use crate::cache::vary::selecting;
use crate::storage::memory::budget::allocated;

/// The selecting fields of one variant and the normalised values it was fetched for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Selection {
    /// `None`: the response listed no field, so every request selects it.
    varied: Option<Box<Varied>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Varied {
    spec: Spec,
    values: Box<[u8]>,
}

/// Why a response has no [`Selection`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoSelection {
    /// `Vary: *`, or a Vary that cannot be read: no later request can be known to match.
    Star,
    /// The response varies, but the request's fields are not known here.
    RequestUnknown,
}

impl Selection {
    /// What a response with `headers`, fetched for `request`, is selected by.
    pub(super) fn new(
        headers: &HeaderMap,
        request: Option<&HeaderMap>,
    ) -> Result<Self, NoSelection> {
        let spec = Spec::parse(headers).map_err(|_| NoSelection::Star)?;
        if spec.is_empty() {
            return Ok(Self::default());
        }
        let request = request.ok_or(NoSelection::RequestUnknown)?;
        let values = selecting(&spec, request).into_boxed_slice();
        Ok(Self { varied: Some(Box::new(Varied { spec, values })) })
    }

    /// What a response with `headers` is selected by that was stored for these values of what it lists.
    pub(super) fn carried(
        headers: &HeaderMap,
        values: Option<Vec<u8>>,
    ) -> Result<Self, NoSelection> {
        let spec = Spec::parse(headers).map_err(|_| NoSelection::Star)?;
        match (spec.is_empty(), values) {
            (true, None) => Ok(Self::default()),
            (false, Some(values)) => {
                let values = values.into_boxed_slice();
                Ok(Self { varied: Some(Box::new(Varied { spec, values })) })
            }
            (true, Some(_)) | (false, None) => Err(NoSelection::RequestUnknown),
        }
    }

    /// The values of what it lists; `None` when it lists nothing.
    pub(super) fn values(&self) -> Option<&[u8]> {
        self.varied.as_ref().map(|varied| &*varied.values)
    }

    /// The same selection for the `headers` of a response that was validated, when they list the
    /// same fields.
    pub(super) fn kept_by(&self, headers: &HeaderMap) -> Option<Self> {
        let spec = Spec::parse(headers).ok()?;
        let same = match &self.varied {
            Some(varied) => varied.spec == spec,
            None => spec.is_empty(),
        };
        same.then(|| self.clone())
    }

    /// Whether every request selects it.
    pub(super) fn is_unvaried(&self) -> bool {
        self.varied.is_none()
    }

    /// What it costs in bytes.
    pub(super) fn cost(&self) -> u64 {
        let Some(varied) = &self.varied else { return 0 };
        let names = varied.spec.names();
        let text: usize = names.iter().map(|name| name.as_str().len()).sum();
        // The list of names may have been longer before repetitions went.
        let list = names.len().next_power_of_two().max(4) * size_of::<HeaderName>();
        allocated(size_of::<Varied>())
            .saturating_add(allocated(varied.values.len()))
            .saturating_add(allocated(list))
            .saturating_add(allocated(text))
    }
}

/// A request that looks for its variant. Siblings that list the same fields cost one normalisation.
pub(super) struct Selector<'a> {
    request: Option<&'a HeaderMap>,
    last: Option<(Spec, Vec<u8>)>,
}

impl<'a> Selector<'a> {
    /// `None`: the request's fields are unknown, so that only responses that do not vary match.
    pub(super) fn new(request: Option<&'a HeaderMap>) -> Self {
        Self { request, last: None }
    }

    /// Whether the request selects this variant.
    pub(super) fn selects(&mut self, selection: &Selection) -> bool {
        let Some(varied) = &selection.varied else { return true };
        let Some(request) = self.request else { return false };
        match &self.last {
            Some((spec, values)) if *spec == varied.spec => values[..] == varied.values[..],
            Some(_) | None => {
                let values = selecting(&varied.spec, request);
                let same = values[..] == varied.values[..];
                self.last = Some((varied.spec.clone(), values));
                same
            }
        }
    }
}

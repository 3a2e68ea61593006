//! Conditions on the certificate that a client showed.

use std::borrow::Cow;

use crate::message::certificate::ClientCertificate;
use crate::route::predicate::ValueMatch;

/// Conditions that must all hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClientMatch {
    /// Whether there is a certificate; `None` does not matter.
    pub presence: Option<Presence>,
    /// A condition on whose it is.
    pub subject: Option<ValueMatch>,
    /// A condition on its alternative names.
    pub names: Option<ValueMatch>,
    /// It is one of these, by their SHA-256 in small hexadecimal digits; empty is any.
    pub fingerprints: Vec<String>,
}

/// Whether a client showed a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// It did, and it was good.
    Shown,
    /// It did not.
    Missing,
}

/// The first condition on a certificate that a client does not meet.
#[derive(Debug, Clone, Copy)]
pub enum Unmet<'p> {
    /// There must be one, or must not.
    Presence(Presence),
    /// It is not for this one.
    Subject(&'p ValueMatch),
    /// None of its names is such a one.
    Name(&'p ValueMatch),
    /// It is none of the certificates that are listed.
    Fingerprint,
}

impl ClientMatch {
    /// Whether a client with this certificate meets every condition.
    ///
    /// # Errors
    /// The first one that it does not meet.
    pub fn holds(&self, client: Option<&ClientCertificate>) -> Result<(), Unmet<'_>> {
        let here = if client.is_some() { Presence::Shown } else { Presence::Missing };
        if let Some(wanted) = self.presence.filter(|wanted| *wanted != here) {
            return Err(Unmet::Presence(wanted));
        }
        let subject = client.map(|client| Cow::Borrowed(client.subject.as_bytes()));
        if let Some(wanted) = &self.subject
            && !wanted.meets(subject.filter(|subject| !subject.is_empty()).into_iter())
        {
            return Err(Unmet::Subject(wanted));
        }
        let names = client.map(|client| &client.names[..]).unwrap_or_default();
        if let Some(wanted) = &self.names
            && !wanted.meets(names.iter().map(|name| Cow::Borrowed(name.as_bytes())))
        {
            return Err(Unmet::Name(wanted));
        }
        let is_listed =
            |client: &ClientCertificate| self.fingerprints.contains(&client.fingerprint);
        if !self.fingerprints.is_empty() && !client.is_some_and(is_listed) {
            return Err(Unmet::Fingerprint);
        }
        Ok(())
    }

    /// How many conditions there are.
    #[must_use]
    pub fn conditions(&self) -> usize {
        let Self { presence, subject, names, fingerprints } = self;
        usize::from(presence.is_some())
            .saturating_add(usize::from(subject.is_some()))
            .saturating_add(usize::from(names.is_some()))
            .saturating_add(usize::from(!fingerprints.is_empty()))
    }

    /// Whether every client that meets `other` is sure to meet these conditions too. (False may also mean: not
    /// known.)
    pub(in crate::route) fn cover(&self, other: &Self) -> bool {
        fn within<T: PartialEq>(one: &Option<T>, other: &Option<T>) -> bool {
            one.is_none() || one == other
        }
        let listed = |one: &String| self.fingerprints.contains(one);
        within(&self.presence, &other.presence)
            && within(&self.subject, &other.subject)
            && within(&self.names, &other.names)
            && (self.fingerprints.is_empty()
                || !other.fingerprints.is_empty() && other.fingerprints.iter().all(listed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(subject: &str, names: &[&str], fingerprint: &str) -> ClientCertificate {
        let names = names.iter().map(|&name| name.to_owned()).collect();
        ClientCertificate::new(subject.to_owned(), names, fingerprint.to_owned(), vec![])
    }

    fn exact(text: &str) -> ValueMatch {
        ValueMatch::Exact(text.to_owned())
    }

    #[test]
    fn every_condition_is_asked() {
        let alice = client("CN=alice,O=Example", &["DNS:a.example", "URI:spiffe://x/a"], "00ff");
        let holds = |wanted: &ClientMatch| wanted.holds(Some(&alice)).is_ok();
        let any = ClientMatch::default;
        assert!(holds(&any()) && any().holds(None).is_ok());
        for (wanted, met, met_by_nobody) in [
            (ClientMatch { presence: Some(Presence::Shown), ..any() }, true, false),
            (ClientMatch { presence: Some(Presence::Missing), ..any() }, false, true),
            (ClientMatch { subject: Some(exact("CN=alice,O=Example")), ..any() }, true, false),
            (ClientMatch { subject: Some(exact("CN=alice")), ..any() }, false, false),
            (ClientMatch { subject: Some(ValueMatch::Absent), ..any() }, false, true),
            (ClientMatch { names: Some(exact("URI:spiffe://x/a")), ..any() }, true, false),
            (ClientMatch { names: Some(exact("a.example")), ..any() }, false, false),
            (ClientMatch { fingerprints: vec!["11".into(), "00ff".into()], ..any() }, true, false),
            (ClientMatch { fingerprints: vec!["11".into()], ..any() }, false, false),
        ] {
            assert_eq!(holds(&wanted), met, "{wanted:?}");
            assert_eq!(wanted.holds(None).is_ok(), met_by_nobody, "{wanted:?}");
            assert_eq!(wanted.conditions(), 1);
        }
        let nameless = client("", &[], "00");
        let absent = ClientMatch { subject: Some(ValueMatch::Absent), ..any() };
        assert!(absent.holds(Some(&nameless)).is_ok());
    }

    #[test]
    fn fewer_conditions_cover_more() {
        let any = ClientMatch::default();
        let alice = ClientMatch { subject: Some(exact("CN=alice")), ..ClientMatch::default() };
        let listed = |all: &[&str]| ClientMatch {
            fingerprints: all.iter().map(|&one| one.to_owned()).collect(),
            ..ClientMatch::default()
        };
        assert!(any.cover(&alice) && alice.cover(&alice) && !alice.cover(&any));
        assert!(listed(&["1", "2"]).cover(&listed(&["2"])));
        assert!(!listed(&["2"]).cover(&listed(&["1", "2"])) && !listed(&["2"]).cover(&any));
        assert!(any.cover(&listed(&["2"])));
    }
}

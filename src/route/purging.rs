//! Who may purge, with the method PURGE, what a route stored.

use std::net::IpAddr;

use http::Method;
use ipnet::IpNet;

use crate::message::secret::Token;
use crate::route::Route;
use crate::route::action::Action;

/// Who may purge what a route stored: whoever meets every part that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// The networks of those who may; `None` is everybody.
    pub from: Option<Vec<IpNet>>,
    /// What has to be presented; `None` is nothing.
    pub token: Option<Token>,
}

/// Who asks for a purge, as far as rules tell apart.
#[derive(Debug, Clone, Copy)]
pub struct Asker<'a> {
    /// The address, if there is one.
    pub address: Option<IpAddr>,
    /// The token that was presented.
    pub presented: Option<&'a [u8]>,
}

/// What becomes of a PURGE.
#[derive(Debug, Clone)]
pub enum Purging<'r> {
    /// What these routes stored goes.
    Allowed(Vec<&'r Route>),
    /// There is a rule, and the asker does not meet it.
    Refused(Unmet),
    /// No rule is about this URL: PURGE is a method like others.
    Unruled,
}

/// The first part of a rule that somebody does not meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unmet {
    /// The address is not one of those who may.
    Address,
    /// The token was not presented.
    Token,
}

/// Is this the method that purges?
#[must_use]
pub fn is_purge(method: &Method) -> bool {
    method.as_str() == "PURGE"
}

/// What becomes of a PURGE for a URL. `taken` is the route that a GET with the same fields takes: its rule
/// decides. Of the others that serve the URL those follow whose own rules let the asker, since who may
/// purge what one of them stored need not be one who may purge what another did.
#[must_use]
pub fn judge<'r>(taken: &Route, serving: &[&'r Route], asker: &Asker<'_>) -> Purging<'r> {
    let lets = |route: &Route| route.purge.as_ref().map(|rule| rule.judge(asker));
    match lets(taken) {
        None => Purging::Unruled,
        Some(Err(unmet)) => Purging::Refused(unmet),
        Some(Ok(())) => {
            let routes = serving.iter().copied();
            Purging::Allowed(routes.filter(|route| lets(route) == Some(Ok(()))).collect())
        }
    }
}

impl Rule {
    fn judge(&self, asker: &Asker<'_>) -> Result<(), Unmet> {
        let is_from = |networks: &Vec<IpNet>| {
            asker.address.is_some_and(|one| networks.iter().any(|network| network.contains(&one)))
        };
        if !self.from.as_ref().is_none_or(is_from) {
            return Err(Unmet::Address);
        }
        let presents = |token: &Token| asker.presented.is_some_and(|text| token.is(text));
        if !self.token.as_ref().is_none_or(presents) {
            return Err(Unmet::Token);
        }
        Ok(())
    }
}

impl Route {
    /// Whether a PURGE that no rule is about may take this route. It goes to an origin only where the
    /// route names the method: many caches purge for whoever can reach them.
    #[must_use]
    pub fn passes_purge(&self) -> bool {
        match &self.action {
            Action::Upstream(_) => self.when.methods.iter().any(is_purge),
            Action::Respond { .. } | Action::Redirect { .. } => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(from: &[&str], token: Option<&str>) -> Rule {
        let networks = from.iter().map(|text| text.parse().expect("a network")).collect();
        Rule { from: (!from.is_empty()).then_some(networks), token: token.map(Token::new) }
    }

    fn verdict(rule: &Rule, address: &str, presented: Option<&str>) -> Result<(), Unmet> {
        let address = address.parse().ok();
        rule.judge(&Asker { address, presented: presented.map(str::as_bytes) })
    }

    #[test]
    fn who_comes_from_elsewhere_may_not_whatever_is_presented() {
        let rule = rule(&["10.0.0.0/8", "2001:db8::7/128"], Some("t"));
        for (address, presented, expected) in [
            ("10.1.2.3", Some("t"), Ok(())),
            ("2001:db8::7", Some("t"), Ok(())),
            ("10.1.2.3", Some("T"), Err(Unmet::Token)),
            ("10.1.2.3", None, Err(Unmet::Token)),
            ("11.1.2.3", Some("t"), Err(Unmet::Address)),
            ("2001:db8::8", Some("t"), Err(Unmet::Address)),
            ("of a socket", Some("t"), Err(Unmet::Address)),
        ] {
            assert_eq!(verdict(&rule, address, presented), expected, "{address} {presented:?}");
        }
    }

    #[test]
    fn either_part_may_be_left_out() {
        assert_eq!(verdict(&rule(&["10.0.0.0/8"], None), "10.0.0.1", None), Ok(()));
        assert_eq!(verdict(&rule(&[], Some("t")), "192.0.2.1", Some("t")), Ok(()));
        assert_eq!(verdict(&rule(&[], Some("t")), "of a socket", Some("t")), Ok(()));
        assert_eq!(verdict(&rule(&[], Some("t")), "192.0.2.1", None), Err(Unmet::Token));
    }
}

//! What must never happen, said as plainly as can be: RFC 9111 for those who have no cache to write.

use crate::harness::Reply;
use crate::harness::client::End;

use super::policy::Said;
use super::world::Fault;
use super::world::Given;
use super::world::Place;
use super::world::What;
use super::world::World;

/// What the routes of the simulation say, by the first letter of the path.
pub(super) const ROUTES: &str = "
routes:
  - {name: override, match: {path_prefix: /o}, upstream: origin, cache: {override_ttl: 100s}}
  - {name: default, match: {path_prefix: /t}, upstream: origin, cache: {ttl: 100s}}
  - {name: bare, match: {path_prefix: /k}, upstream: origin, cache: {key: {query: none}}}
  - {name: pieces, match: {path_prefix: /s}, upstream: origin, cache: {slice: 16KiB}}
  - {name: parts, match: {path_prefix: /r}, upstream: origin, cache: {ranges: as-asked}}
  - {name: all, upstream: origin}
";

/// What `override_ttl` and `ttl` are there, in seconds.
const RULE: u64 = 100;

/// Who asks for what.
#[derive(Debug, Clone)]
pub(super) struct Asking {
    pub(super) method: &'static str,
    pub(super) place: Place,
    pub(super) fields: Vec<(&'static str, String)>,
    /// What had happened before.
    pub(super) since: u64,
}

impl Asking {
    fn value(&self, name: &str) -> Option<&str> {
        let found = self.fields.iter().find(|(n, _)| n.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }
}

impl World {
    /// What is wrong with a reply.
    pub(super) fn judge(&self, asking: &Asking, reply: &Reply, now: u64) -> Result<(), String> {
        let fault = self.resources.get(&asking.place).map_or(Fault::None, |r| r.fault);
        let serial = match reply.status {
            200 | 206 | 404 => {
                reply.value("x-serial").ok_or("it is nothing that was ever given")?
            }
            304 if asking.value("if-none-match").is_none() => return Err("unasked".to_owned()),
            // Between the s and the full stop.
            304 => {
                reply.value("etag").and_then(|tag| tag.split(['s', '.']).nth(1)).ok_or("no tag")?
            }
            500..=504 if fault != Fault::None => return Ok(()),
            _ => return Err("a status without a reason".to_owned()),
        };
        let serial = serial.parse::<usize>().map_err(|e| format!("{serial}: {e}"))?;
        self.judge_body(asking, reply, serial)?;
        self.judge_audience(asking, serial)?;
        let now_given = self.given.iter().rev().take_while(|given| given.order > asking.since);
        let now_given: Vec<_> = now_given.filter(|given| given.serial == serial).collect();
        let is_cut = reply.end == End::Cut;
        // Whoever is given pieces of his own behind those that are everybody's is cut where they part.
        let has_own = asking.place.1.starts_with("/s") && asking.value("authorization").is_some();
        if is_cut && !has_own && now_given.iter().all(|given| given.whole) {
            return Err("it was cut, and the origin did not do it".to_owned());
        }
        // Who gets no body, or a part that came, does not see that the rest of it did not.
        let is_partial = asking.method == "HEAD" || matches!(reply.status, 206 | 304);
        if has_own && is_cut && !now_given.is_empty()
            || now_given.iter().any(|given| is_partial || given.whole != is_cut)
        {
            return Ok(());
        }
        self.judge_life(asking, serial, now)?;
        self.judge_age(reply, serial, now)
    }

    fn judge_body(&self, asking: &Asking, reply: &Reply, serial: usize) -> Result<(), String> {
        let whole = self.body(serial);
        match (asking.method, reply.status) {
            ("HEAD", _) | (_, 304) => Ok(()),
            (_, 206) => {
                let range = reply.value("content-range").ok_or("206 without Content-Range")?;
                let range = range.strip_prefix("bytes ").ok_or("not in bytes")?;
                let (range, length) = range.split_once('/').ok_or("no length")?;
                let (first, last) = range.split_once('-').ok_or("no range")?;
                let number = |text: &str| text.parse::<usize>().map_err(|e| e.to_string());
                if number(length)? != whole.len() {
                    return Err("a part of something else".to_owned());
                }
                let part = whole.get(number(first)?..=number(last)?).ok_or("beyond its end")?;
                is_this(reply, part)
            }
            _ => is_this(reply, &whole),
        }
    }

    /// Whether who asks is one of those whom it is for.
    fn judge_audience(&self, asking: &Asking, serial: usize) -> Result<(), String> {
        let thing = &self.representations[serial];
        // On one route the query is no part of the key.
        let shown = |place: &Place| match place.1.starts_with("/k") {
            true => (place.0.clone(), place.1.split('?').next().unwrap_or_default().to_owned()),
            false => place.clone(),
        };
        let is_it = shown(&thing.place) == shown(&asking.place);
        if !is_it && !self.is_by_rule(serial, &asking.place) {
            return Err(format!("it belongs to {:?}", thing.place));
        }
        for (name, value) in &thing.selected {
            if asking.value(name) != value.as_deref() {
                return Err(format!("it is for {name}: {value:?}"));
            }
        }
        match &thing.only_for {
            Some(client) if asking.value("x-client") != Some(client) => {
                Err(format!("it is for {client} alone"))
            }
            _ => Ok(()),
        }
    }

    /// Whether it was given for another URL, and says that it is as good for this one.
    pub(super) fn is_by_rule(&self, serial: usize, place: &Place) -> bool {
        let thing = &self.representations[serial];
        thing.place != *place
            && thing.place.0 == place.0
            && thing.search.equates(&thing.place.1, &place.1)
    }

    /// Whether anything that was ever said allows serving it now without asking.
    fn judge_life(&self, asking: &Asking, serial: usize, now: u64) -> Result<(), String> {
        let mut why = vec!["nobody gave it".to_owned()];
        for given in self.given.iter().filter(|given| given.serial == serial) {
            match self.permits(asking, given, now) {
                Ok(()) => return Ok(()),
                Err(reason) => why.push(reason),
            }
        }
        why.dedup();
        Err(format!("it may not be served unasked: {}", why.join("; ")))
    }

    fn permits(&self, asking: &Asking, given: &Given, now: u64) -> Result<(), String> {
        let thing = &self.representations[given.serial];
        let place = &thing.place;
        let by_rule = self.is_by_rule(given.serial, &asking.place);
        let policy = &given.policy;
        if !given.whole {
            return Err("it was cut".to_owned());
        }
        if policy.is_personal(given.authorized) {
            return Err("it was for one client".to_owned());
        }
        let later = |purge: &&super::world::Purge| purge.order >= given.order;
        // What is good for several URLs is gone with each of them. For its own alone it may be good again: a rule
        // counts only as long as it is remembered.
        let concerns = |what: &What| match what {
            What::Place(purged) if by_rule => {
                purged.0 == place.0 && thing.search.equates(&purged.1, &place.1)
            }
            what => what.concerns(place),
        };
        let purges = self.purges.iter().filter(later).filter(|purge| concerns(&purge.what));
        let purges: Vec<_> = purges.collect();
        if purges.iter().any(|purge| !purge.soft) {
            return Err("it was purged".to_owned());
        }
        let is_overridden = place.1.starts_with("/o") && policy.status == 200;
        if policy.no_cache && !is_overridden {
            return Err("no-cache".to_owned());
        }
        let age_at_arrival = match is_overridden {
            true => 0,
            false => policy.age.max((-policy.skew).max(0).unsigned_abs()),
        };
        let age_at = |then: u64| then - given.at + age_at_arrival;
        let lifetime = match (is_overridden, policy.targeted, policy.said) {
            (true, _, _) => RULE,
            (false, Some(seconds), _) => seconds,
            (false, None, Said::MaxAge(seconds) | Said::SMaxage(seconds)) => seconds,
            (false, None, Said::Expires(seconds)) => u64::try_from(seconds).unwrap_or(0),
            (false, None, Said::Nothing) if given.with_cookie && !policy.public => 0,
            (false, None, Said::Nothing) => {
                let heuristic = given.modified.map_or(0, |modified| {
                    given
                        .at
                        .saturating_add_signed(policy.skew)
                        .saturating_sub(modified)
                        .div_ceil(10)
                });
                let rule = if place.1.starts_with("/t") { RULE + age_at_arrival } else { 0 };
                heuristic.max(rule)
            }
        };
        let purged = purges.iter().map(|purge| age_at(purge.at)).min();
        let lifetime = lifetime.min(purged.unwrap_or(u64::MAX));
        let has_failed = |place| self.resources.get(place).is_some_and(|r| r.has_failed);
        // It failed for whoever asked.
        let alike = |other: &Place| other.0 == place.0 && thing.search.equates(&place.1, &other.1);
        let has_failed = self.resources.keys().filter(|other| alike(other)).any(has_failed);
        let if_error = policy.if_error.filter(|_| has_failed).unwrap_or(0);
        let window = match policy.must_revalidate {
            true => 0,
            false => policy.while_revalidate.unwrap_or(0).max(if_error),
        };
        match age_at(now) < lifetime + window {
            true => Ok(()),
            false => Err(format!("{} s old, good for {lifetime} s and {window} s", age_at(now))),
        }
    }

    /// An age is never less than the time since the origin was asked last.
    fn judge_age(&self, reply: &Reply, serial: usize, now: u64) -> Result<(), String> {
        let age = reply.value("age").ok_or("an answer from the store without Age")?;
        let age = age.parse::<u64>().map_err(|e| format!("Age: {e}"))?;
        let youngest = self.given.iter().filter(|given| given.serial == serial && given.whole);
        let youngest = youngest.map(|given| now - given.at).min().unwrap_or(0);
        match age >= youngest {
            true => Ok(()),
            false => Err(format!("Age: {age}, and the youngest answer is {youngest} s old")),
        }
    }
}

/// Whether these bytes came, or where it shows, only the first of them.
fn is_this(reply: &Reply, bytes: &[u8]) -> Result<(), String> {
    let is_right = match reply.end {
        End::Whole => bytes == reply.body,
        End::Cut => bytes.starts_with(&reply.body),
    };
    match is_right {
        true => Ok(()),
        false => Err(format!(
            "not what was given, or {} of {} bytes of it as if that were all",
            reply.body.len(),
            bytes.len()
        )),
    }
}

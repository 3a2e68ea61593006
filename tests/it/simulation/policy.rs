//! What an origin says of the responses of one resource.

use crate::harness::clock::at;

use super::dice::Dice;

/// The fields that a response may vary by.
pub(super) const SELECTING: [&str; 3] = ["X-A", "X-B", "Cookie"];

/// How long a response says that it is fresh.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Said {
    Nothing,
    MaxAge(u64),
    SMaxage(u64),
    Expires(i64),
}

/// The validators of a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tag {
    None,
    Weak,
    Strong,
}

/// What a response says of queries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Search {
    Nothing,
    /// `u` does not matter.
    NotU,
    /// Nor does the order.
    NotUNorOrder,
}

impl Search {
    /// Whether two targets come to the same.
    pub(super) fn equates(self, one: &str, other: &str) -> bool {
        if one == other {
            return true;
        }
        let split = |target: &str| {
            let (path, query) = target.split_once('?').unwrap_or((target, ""));
            let mut left: Vec<String> = query
                .split('&')
                .filter(|parameter| !parameter.starts_with("u="))
                .map(str::to_owned)
                .collect();
            if self == Self::NotUNorOrder {
                left.sort();
            }
            (path.to_owned(), left)
        };
        self != Self::Nothing && split(one) == split(other)
    }
}

/// All that an origin says.
#[derive(Debug, Clone)]
pub(super) struct Policy {
    pub(super) status: u16,
    pub(super) said: Said,
    /// A targeted field's word, which goes before all others.
    pub(super) targeted: Option<u64>,
    pub(super) no_store: bool,
    pub(super) private: bool,
    pub(super) no_cache: bool,
    pub(super) must_revalidate: bool,
    pub(super) public: bool,
    pub(super) while_revalidate: Option<u64>,
    pub(super) if_error: Option<u64>,
    /// The age that it says it has.
    pub(super) age: u64,
    /// How far its Date is off.
    pub(super) skew: i64,
    /// When it was changed last, counted back from its beginning.
    pub(super) modified_ago: Option<u64>,
    pub(super) vary: Vec<&'static str>,
    pub(super) vary_star: bool,
    /// Which parameters it says do not matter.
    pub(super) search: Search,
    pub(super) tag: Tag,
    pub(super) sets_cookie: bool,
    pub(super) chunked: bool,
}

impl Policy {
    /// Anything an origin may say.
    pub(super) fn any(dice: &mut Dice, target: &str) -> Self {
        let numbers = [0, 1, 50, 100, 300, 1000];
        let said = match dice.below(8) {
            0 | 1 => Said::Nothing,
            2..=4 => Said::MaxAge(dice.one(&numbers)),
            5 | 6 => Said::SMaxage(dice.one(&numbers)),
            _ => Said::Expires(dice.one(&[-50, 0, 50, 300])),
        };
        let mut policy = Self {
            status: dice.one(&[200, 200, 200, 200, 200, 404]),
            said,
            targeted: dice.percent(10).then(|| dice.one(&numbers)),
            no_store: dice.percent(6),
            private: dice.percent(8),
            no_cache: dice.percent(8),
            must_revalidate: dice.percent(12),
            public: dice.percent(15),
            while_revalidate: dice.percent(25).then(|| dice.one(&numbers)),
            if_error: dice.percent(25).then(|| dice.one(&numbers)),
            age: dice.one(&[0, 0, 0, 20, 200]),
            skew: dice.one(&[0, 0, 0, -30, 30]),
            modified_ago: dice.percent(40).then(|| dice.one(&[500, 1000, 20_000])),
            vary: SELECTING.into_iter().filter(|_| dice.percent(20)).collect(),
            vary_star: dice.percent(3),
            search: match target.starts_with("/n") {
                true => {
                    dice.one(&[Search::Nothing, Search::NotU, Search::NotU, Search::NotUNorOrder])
                }
                false => Search::Nothing,
            },
            tag: dice.one(&[Tag::None, Tag::Weak, Tag::Strong, Tag::Strong]),
            sets_cookie: dice.percent(4),
            chunked: dice.percent(30),
        };
        if policy.targeted.is_some() {
            policy.forget_untargeted();
        }
        policy
    }

    /// Says something else in the fields that it has, so that a 304 can bring it.
    pub(super) fn retune(&mut self, dice: &mut Dice) {
        match &mut self.said {
            Said::MaxAge(seconds) | Said::SMaxage(seconds) if self.targeted.is_none() => {
                *seconds = dice.one(&[0, 50, 300]);
                self.no_store = dice.percent(15);
                self.private = dice.percent(15);
                self.no_cache = dice.percent(15);
                self.must_revalidate = dice.percent(15);
            }
            _ => {}
        }
    }

    // Beside a targeted field these say nothing.
    fn forget_untargeted(&mut self) {
        self.no_store = false;
        self.private = false;
        self.no_cache = false;
        self.must_revalidate = false;
        self.public = false;
        self.while_revalidate = None;
        self.if_error = None;
    }

    /// Whether every response is for the one who asked, and for nobody else.
    pub(super) fn is_personal(&self, authorized: bool) -> bool {
        self.no_store
            || self.private
            || self.vary_star
            || self.sets_cookie
            || (authorized && !self.allows_sharing_authorized())
    }

    fn allows_sharing_authorized(&self) -> bool {
        let shared = self.targeted.is_none() && matches!(self.said, Said::SMaxage(_));
        self.public || self.must_revalidate || shared
    }

    /// The fields that say it, in a response of now.
    pub(super) fn fields(&self, now: u64, modified: Option<u64>) -> Vec<(&'static str, String)> {
        let date = now.saturating_add_signed(self.skew);
        let mut fields = vec![("Date", http_date(date))];
        let mut directives: Vec<String> = Vec::new();
        match self.said {
            Said::Nothing => {}
            Said::MaxAge(seconds) => directives.push(format!("max-age={seconds}")),
            Said::SMaxage(seconds) => directives.push(format!("s-maxage={seconds}")),
            Said::Expires(seconds) => {
                fields.push(("Expires", http_date(date.saturating_add_signed(seconds))));
            }
        }
        let words = [
            (self.no_store, "no-store"),
            (self.private, "private"),
            (self.no_cache, "no-cache"),
            (self.must_revalidate, "must-revalidate"),
            (self.public, "public"),
        ];
        directives.extend(words.iter().filter(|(said, _)| *said).map(|(_, w)| (*w).to_owned()));
        directives.extend(self.while_revalidate.map(|s| format!("stale-while-revalidate={s}")));
        directives.extend(self.if_error.map(|s| format!("stale-if-error={s}")));
        if !directives.is_empty() {
            fields.push(("Cache-Control", directives.join(", ")));
        }
        fields.extend(self.targeted.map(|s| ("CDN-Cache-Control", format!("max-age={s}"))));
        if self.age > 0 {
            fields.push(("Age", self.age.to_string()));
        }
        fields.extend(modified.map(|modified| ("Last-Modified", http_date(modified))));
        if self.vary_star {
            fields.push(("Vary", "*".to_owned()));
        } else if !self.vary.is_empty() {
            fields.push(("Vary", self.vary.join(", ")));
        }
        match self.search {
            Search::Nothing => {}
            Search::NotU => fields.push(("No-Vary-Search", "params=(\"u\")".to_owned())),
            Search::NotUNorOrder => {
                fields.push(("No-Vary-Search", "key-order, params=(\"u\")".to_owned()));
            }
        }
        if self.sets_cookie {
            fields.push(("Set-Cookie", "a=b".to_owned()));
        }
        fields
    }
}

fn http_date(seconds: u64) -> String {
    httpdate::fmt_http_date(at(seconds))
}

use http::HeaderValue;
use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::cache::key::in_zone;

const HOW: Normalisation = Normalisation {
    merge_slashes: true,
    encoded_slash: crate::message::target::EncodedSlash::Keep,
};

fn wish() -> Wish {
    Wish::default()
}

fn one(wish: &Wish) -> Scope {
    let order = wish.order(&HOW).expect("the test's wish is clear");
    assert_eq!(order.scopes.len(), 1);
    order.scopes.into_iter().next().expect("there is one")
}

fn texts(list: &[&str]) -> Vec<String> {
    list.iter().map(|text| (*text).to_owned()).collect()
}

#[test]
fn a_url_is_read_into_its_normal_form() {
    for (text, normal) in [
        ("https://Example.ORG/a/../b?q=%7e", "https://example.org/b?q=~"),
        ("http://example.org", "http://example.org/"),
        ("example.org/a", "//example.org/a"),
        ("//example.org:8080?x", "//example.org:8080/?x"),
        ("https://[::1]:8443/", "https://[::1]:8443/"),
        ("example.org/?next=https://other.example/", "//example.org/?next=https://other.example/"),
    ] {
        let scope = one(&Wish { url: texts(&[text]), ..wish() });
        assert_eq!((scope.label(), scope.value().as_str()), ("url", normal), "{text}");
    }
}

#[test]
fn a_url_without_a_scheme_is_of_both() {
    let schemes = |text| Url::parse(text, &HOW).expect("a URL").schemes();
    assert_eq!(schemes("example.org/a"), [Scheme::Http, Scheme::Https]);
    assert_eq!(schemes("https://example.org/a"), [Scheme::Https]);
    assert_eq!(schemes("http://example.org/a"), [Scheme::Http]);
}

#[test]
fn what_cannot_be_asked_for_is_no_url() {
    for (text, says) in [
        ("", "names no host"),
        ("/a", "names no host"),
        ("https:///a", "names no host"),
        ("https://user@example.org/", "names no host"),
        ("ftp://example.org/a", "the scheme is"),
        ("https://example.org/a#b", "a `#` is never sent"),
        ("https://example.org/../a", "no URL that any request"),
        ("https://example.org/a b", "no URL that any request"),
    ] {
        let Unclear(why) = Url::parse(text, &HOW).expect_err(text);
        assert!(why.contains(says), "{text}: {why}");
    }
}

#[test]
fn a_prefix_has_no_query_and_a_host_no_port() {
    let unclear = |wish: Wish| wish.order(&HOW).expect_err("it is unclear").0;
    assert!(
        unclear(Wish { prefix: texts(&["example.org/a?b"]), ..wish() }).contains("every query")
    );
    let long = format!("example.org/{}", "a".repeat(LONGEST_PREFIX));
    assert!(unclear(Wish { prefix: vec![long], ..wish() }).contains("1024 bytes at most"));
    for host in ["example.org:80", "https://example.org", "*.example.org", ""] {
        assert!(unclear(Wish { host: texts(&[host]), ..wish() }).contains("no port"), "{host}");
    }
    assert_eq!(one(&Wish { host: texts(&["EXAMPLE.org."]), ..wish() }).value(), "example.org");
}

#[test]
fn a_tag_is_one_name_of_bounded_length() {
    let of = |text: String| Wish { tag: vec![text], ..wish() }.order(&HOW);
    assert!(of("a".repeat(surrogate::LONGEST)).is_ok());
    for text in ["a".repeat(surrogate::LONGEST + 1), String::new(), " a".into(), "a\n".into()] {
        assert!(of(text.clone()).is_err(), "{text:?}");
    }
}

#[test]
fn something_has_to_be_named_and_not_too_much() {
    assert!(wish().order(&HOW).expect_err("nothing").0.starts_with("nothing is named"));
    let tags = |count| Wish { tag: vec!["a".to_owned(); count], ..wish() };
    assert_eq!(tags(MOST).order(&HOW).expect("just so many").scopes.len(), MOST);
    assert!(tags(MOST + 1).order(&HOW).is_err());
    assert!(Wish { route: texts(&[""]), ..wish() }.order(&HOW).is_err());
}

#[test]
fn a_dry_run_counts_all() {
    let order = |wish: Wish| {
        let order = Wish { everything: true, ..wish }.order(&HOW).expect("clear");
        (order.manner, order.effect, order.count)
    };
    assert_eq!(order(wish()), (Manner::Hard, Effect::Purge, Count::Glance));
    assert_eq!(
        order(Wish { soft: true, dry_run: true, ..wish() }),
        (Manner::Soft, Effect::DryRun, Count::All)
    );
    assert_eq!(order(Wish { count: true, ..wish() }).2, Count::All);
}

#[test]
fn every_kind_has_its_own_label() {
    let all = Wish {
        url: texts(&["a.org/"]),
        prefix: texts(&["a.org/"]),
        host: texts(&["a.org"]),
        route: texts(&["r"]),
        upstream: texts(&["u"]),
        zone: texts(&["z"]),
        tag: texts(&["t"]),
        everything: true,
        ..wish()
    };
    let labels: Vec<&str> =
        all.order(&HOW).expect("clear").scopes.iter().map(Scope::label).collect();
    assert_eq!(labels, ["url", "prefix", "host", "route", "upstream", "zone", "tag", "everything"]);
}

/// What is stored, as text.
#[derive(Debug, Clone)]
struct Stored {
    zone: &'static str,
    upstream: &'static str,
    route: &'static str,
    scheme: &'static str,
    host: &'static str,
    port: Option<u16>,
    path: String,
    keys: Vec<&'static str>,
}

impl Stored {
    fn concerned_by(&self, many: &Many) -> bool {
        let mut headers = HeaderMap::new();
        let keys = self.keys.join(" ");
        headers.insert("surrogate-key", HeaderValue::from_str(&keys).expect("plain"));
        many.concerns(&Subject {
            asked: Asked {
                space: match self.zone {
                    "" => format!("{}\nx", self.upstream),
                    zone => in_zone(zone, &format!("{}\nx", self.upstream)),
                }
                .as_bytes(),
                scheme: self.scheme.as_bytes(),
                host: self.host.as_bytes(),
                port: self.port,
                path: self.path.as_bytes(),
            },
            route: Some(self.route),
            headers,
        })
    }
}

prop_compose! {
    fn stored()(
        zone in prop::sample::select(vec!["", "z", "u"]),
        upstream in prop::sample::select(vec!["u", "v"]),
        route in prop::sample::select(vec!["r", "s"]),
        scheme in prop::sample::select(vec!["http", "https"]),
        host in prop::sample::select(vec!["a.org", "b.org"]),
        port in prop::option::of(prop::sample::select(vec![80_u16, 443, 8080])),
        path in "(/[ab]{0,2}){1,3}",
        keys in vec(prop::sample::select(vec!["k", "kk", "l"]), 0..3),
    ) -> Stored {
        // As a key has it.
        let port = port.filter(|port| Some(*port) != default_port(scheme));
        Stored { zone, upstream, route, scheme, host, port, path, keys }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    // The oracle: text compared with text.
    #[test]
    fn a_prefix_concerns_what_a_naive_reading_of_urls_says(
        stored in stored(),
        scheme in prop::option::of(prop::sample::select(vec!["http", "https"])),
        host in prop::sample::select(vec!["a.org", "b.org"]),
        port in prop::option::of(prop::sample::select(vec![80_u16, 443, 8080])),
        path in "(/[ab]{1,2}){0,2}/?",
    ) {
        let written = |scheme: &str, host: &str, port: Option<u16>, path: &str| {
            let port = port.or(default_port(scheme)).expect("a scheme has a port");
            format!("{scheme}://{host}:{port}{path}")
        };
        let named = written(stored.scheme, stored.host, stored.port, &stored.path);
        let naive = ["http", "https"].iter().filter(|one| scheme.is_none_or(|s| s == **one)).any(|one| {
            let front = written(one, host, port, if path.is_empty() { "/" } else { &path });
            let at_end = front.ends_with('/') || named == front;
            named.starts_with(&front) && at_end || named.starts_with(&format!("{front}/"))
        });
        let port = port.map(|port| format!(":{port}")).unwrap_or_default();
        let scheme = scheme.map(|scheme| format!("{scheme}:")).unwrap_or_default();
        let text = format!("{scheme}//{host}{port}{path}");
        let prefix = Prefix::parse(&text, &HOW).expect("a prefix");
        prop_assert_eq!(stored.concerned_by(&Many::Prefix(prefix)), naive, "{} {:?}", text, stored);
    }

    #[test]
    fn names_concern_what_has_exactly_that_name(stored in stored(), name in "[a-z.]{1,6}") {
        for name in [name.as_str(), "", "z", "u", "v", "r", "s", "a.org", "b.org", "k", "kk", "l"] {
            let own = name.to_owned();
            prop_assert_eq!(stored.concerned_by(&Many::Upstream(own.clone())), name == stored.upstream);
            prop_assert_eq!(stored.concerned_by(&Many::Zone(own.clone())), name == stored.zone);
            prop_assert_eq!(stored.concerned_by(&Many::Route(own.clone())), name == stored.route);
            prop_assert_eq!(stored.concerned_by(&Many::Host(own.clone())), name == stored.host);
            let tagged = stored.concerned_by(&Many::SurrogateKey(own));
            prop_assert_eq!(tagged, stored.keys.contains(&name));
        }
        prop_assert!(stored.concerned_by(&Many::Everything));
    }

    #[test]
    fn what_is_printed_reads_back(text in "(http://|https://|//|)[ab.:1]{1,4}[/?%41b.;]{0,8}") {
        if let Ok(url) = Url::parse(&text, &HOW) {
            let printed = Scope::Url(url.clone()).value();
            prop_assert_eq!(Url::parse(&printed, &HOW), Ok(url), "{}", printed);
        }
    }
}

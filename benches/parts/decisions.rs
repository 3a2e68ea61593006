//! The decisions of the cache: key, look, keep, serve.

use std::time::Duration;
use std::time::SystemTime;

use edgeproxy::cache::Exchange;
use edgeproxy::cache::Policy;
use edgeproxy::cache::Request;
use edgeproxy::cache::Response;
use edgeproxy::cache::directives::RequestDirectives;
use edgeproxy::cache::freshness::Life;
use edgeproxy::cache::key::Key;
use edgeproxy::cache::key::Target;
use edgeproxy::cache::lookup::may_look;
use edgeproxy::cache::reuse::Origin;
use edgeproxy::cache::reuse::may_serve;
use edgeproxy::cache::storable::Keep;
use edgeproxy::cache::storable::may_keep;
use http::HeaderMap;
use http::HeaderValue;
use http::Method;
use http::StatusCode;

use crate::nanoseconds;

/// Prints what each decision costs.
pub(crate) fn run() {
    let policy = Policy::default();
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
    let request = fields(&[
        ("host", "www.example.com"),
        ("user-agent", "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0"),
        ("accept", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"),
        ("accept-encoding", "gzip, deflate, br, zstd"),
        ("accept-language", "de,en-US;q=0.7,en;q=0.3"),
    ]);
    let response = fields(&[
        ("date", "Fri, 15 Jan 2027 08:00:00 GMT"),
        ("content-type", "text/html; charset=utf-8"),
        ("content-length", "1024"),
        ("last-modified", "Thu, 14 Jan 2027 08:00:00 GMT"),
        ("etag", "\"65a4f3c0-400\""),
        ("cache-control", "public, max-age=3600, stale-while-revalidate=60"),
    ]);
    let method = Method::GET;
    let view = Request::new(&method, &request);
    let answer = Response { status: StatusCode::OK, headers: &response };
    let life = life(&view, &answer, &policy, now);
    let asked = RequestDirectives::default();
    let target = Target {
        space: "origin",
        scheme: "https",
        host: "www.example.com",
        port: None,
        path: "/articles/2027/01/a-title-of-the-usual-length",
        query: Some("page=2"),
    };

    println!("| decision | ns |");
    println!("|---|---:|");
    print("key::Key::new", nanoseconds(|_| Key::new(&target, &request, &policy.key)));
    print("lookup::may_look", nanoseconds(|_| may_look(&view, &policy)));
    print("reuse::may_serve, fresh", {
        nanoseconds(|n| {
            may_serve(&life, &asked, now + Duration::from_millis(n % 1000), Origin::Reachable)
        })
    });
    print("reuse::may_serve, stale", {
        let late = now + Duration::from_secs(3630);
        nanoseconds(|n| {
            may_serve(&life, &asked, late + Duration::from_millis(n % 1000), Origin::Reachable)
        })
    });
    print("storable::may_keep, yes", {
        nanoseconds(|_| may_keep(&view, &answer, &policy, Exchange::at(now)))
    });
    let mut private = response.clone();
    private.insert("cache-control", HeaderValue::from_static("private, max-age=0"));
    let refused = Response { status: StatusCode::OK, headers: &private };
    print("storable::may_keep, private", {
        nanoseconds(|_| may_keep(&view, &refused, &policy, Exchange::at(now)))
    });
}

fn print(name: &str, nanoseconds: f64) {
    println!("| `{name}` | {nanoseconds:.0} |");
}

fn fields(lines: &[(&'static str, &'static str)]) -> HeaderMap {
    let mut fields = HeaderMap::new();
    for (name, value) in lines {
        fields.append(*name, HeaderValue::from_static(value));
    }
    fields
}

fn life(request: &Request<'_>, response: &Response<'_>, policy: &Policy, now: SystemTime) -> Life {
    match may_keep(request, response, policy, Exchange::at(now)) {
        Keep::Yes(kept) => kept.life,
        Keep::No(reason) => panic!("the response of this benchmark is not kept: {reason:?}"),
    }
}

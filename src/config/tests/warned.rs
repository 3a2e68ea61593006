//! What is taken although it does nothing, or harm, is told: of an upstream, and of what routes make of it.

use super::config;
use super::load_text;

/// Where something is warned of, and of what.
fn told(text: &str) -> Vec<(String, String)> {
    let loaded = config(text);
    loaded.warnings.all().iter().map(|one| (one.path.clone(), one.message.clone())).collect()
}

/// Two sticky upstreams with these settings, and others that are not, behind these routes.
fn sticky(a: &str, b: &str, routes: &str) -> Vec<(String, String)> {
    told(&format!(
        "upstreams:\n  a: {{addresses: [\"a:80\", \"10.0.0.1:80\"], {a}}}\n  \
         b: {{addresses: [\"b:80\"], {b}}}\n  c: {{addresses: [\"c:80\"]}}\n\
         routes: [{routes}, {{match: {{hosts: [c.test], path: /c}}, upstream: c}}]\n"
    ))
}

#[test]
fn who_comes_to_two_upstreams_has_two_cookies() {
    const ON: &str = "sticky: on";
    let at = |host: &str, path: &str, of: &str| {
        format!("{{match: {{hosts: [{host}], path_prefix: {path}}}, {of}}}")
    };
    let (here, there) = (at("a.test", "/a", "upstream: a"), "upstream: b");
    for route in [
        "{split: [{upstream: a, weight: 9}, {upstream: b, weight: 1}]}".to_owned(),
        "{upstream: a, fallback: {upstream: b}}".to_owned(),
        "{upstream: c, fallback: {upstream: b}}, {match: {path: /a}, upstream: a}".to_owned(),
        format!("{here}, {}", at("a.test", "/b", there)),
        format!("{here}, {}", at("\"*.test\"", "/b", there)),
        format!("{here}, {{{there}}}"),
        format!("{}, {{match: {{path: /b}}, {there}}}", at("\"*.a.test\"", "/a", "upstream: a")),
        // The one takes all, but not from all.
        format!("{{match: {{hosts: [a.test], methods: [GET]}}, upstream: a}}, {{{there}}}"),
    ] {
        let told = sticky(ON, ON, &route);
        let [(place, message)] = told.as_slice() else { panic!("{route}: {told:?}") };
        assert_eq!(place, "upstreams.b.sticky", "{route}");
        assert!(message.contains("\"b\" and \"a\" set one cookie"), "{message}");
        assert_eq!(sticky(ON, "sticky: {cookie: other}", &route), [], "{route}");
        assert_eq!(sticky(ON, "", &route), [], "{route}");
    }
    for route in [
        // Nobody comes to both.
        format!("{here}, {}", at("b.test", "/", there)),
        format!("{here}, {}", at("\"*.a.test\"", "/", there)),
        format!("{}, {{{there}}}", at("a.test", "/", "upstream: a")),
        format!("{{match: {{hosts: [a.test]}}, upstream: a}}, {{{there}}}"),
        // Who is sent copies answers nobody, and who has no share is asked nothing.
        "{upstream: a, mirror: {upstream: b}}".to_owned(),
        "{split: [{upstream: a, weight: 1}, {upstream: b, weight: 0}]}".to_owned(),
    ] {
        let told = sticky(ON, ON, &route);
        assert!(told.iter().all(|(at, _)| !at.ends_with("sticky")), "{route}: {told:?}");
    }
}

/// Upstreams of the same backends tell them by the same number, as long as they have the same key.
#[test]
fn one_cookie_for_the_same_backends_is_right() {
    let both = |a: &str, b: &str| {
        told(&format!(
            "upstreams: {{a: {{addresses: [{a}}}, b: {{addresses: [{b}}}}}\n\
             routes: [{{match: {{path: /a}}, upstream: a}}, {{upstream: b}}]\n"
        ))
        .len()
    };
    let key = "\"a:80\", \"b:80\"], sticky: {key: a key that nobody guesses}";
    let named = |address: &str| format!("{{id: x, address: \"{address}\"}}], sticky: on");
    for (a, b, warnings) in [
        ("\"a:80\", \"b:80\"], sticky: on", "\"b:80\", \"a:80\"], sticky: on", 0),
        (key, key, 0),
        (&named("10.0.0.1:80"), &named("10.0.0.2:80"), 0),
        (&named("a:80"), &named("b:80"), 1),
        ("\"a:80\", \"b:80\"], sticky: on", "\"a:80\"], sticky: on", 1),
        ("\"a:80\", \"b:80\"], sticky: on", key, 1),
    ] {
        assert_eq!(both(a, b), warnings, "{a} and {b}");
    }
}

#[test]
fn a_cookie_that_browsers_take_over_tls_only_is_for_tls() {
    let at = |name: &str, listeners: &str, more: &str| {
        let text = format!(
            "listeners: [{listeners}]\n\
             upstreams: {{a: {{addresses: [\"a:80\"], sticky: {{cookie: {name}}}}}}}\n{more}\n"
        );
        let loaded = load_text(&text, "t.yaml").unwrap_or_else(|found| panic!("{found}"));
        let all = loaded.warnings.all().iter();
        all.filter(|one| one.path == "upstreams.a.sticky.cookie").cloned().collect::<Vec<_>>()
    };
    let (plain, routes) = ("{address: \"127.0.0.1:80\"}", "routes: [{upstream: a}]");
    let tls =
        "{address: \"127.0.0.1:443\", tls: {certificates: [{hosts: [a.test], internal: true}]}}";
    let sends = "{address: \"127.0.0.1:80\", to_https: on}";
    for (name, prefix) in [("__Host-a", "`__Host-`"), ("__secure-a", "`__secure-`")] {
        let told = at(name, &format!("{tls}, {plain}"), routes);
        let [one] = told.as_slice() else { panic!("{name}: {told:?}") };
        let help = one.help.as_deref().expect("there is help");
        assert!(help.contains("listeners[1]") && help.contains(prefix), "{help}");
        assert_eq!(at(name, &format!("{tls}, {sends}"), routes), []);
        // What is in front may speak TLS.
        assert_eq!(at(name, plain, &format!("{routes}\ntrusted_proxies: [10.0.0.1]")), []);
        let by_tls = "routes: [{match: {scheme: https}, upstream: a}, {redirect: {to: /x}}]";
        assert_eq!(at(name, &format!("{tls}, {plain}"), by_tls), []);
    }
    assert_eq!(at("host-a", plain, routes), []);
}

#[test]
fn nobody_answers_at_an_upstream_that_is_switched_off() {
    let of = |b: &str, route: &str| {
        told(&format!(
            "upstreams: {{a: {{addresses: [\"a:80\"]}}, b: {{addresses: [\"b:80\"], {b}}}}}\n\
             routes: [{{upstream: a, {route}}}]"
        ))
    };
    for (route, place, part) in [
        ("mirror: {upstream: b}", "routes[0].mirror.upstream", "every copy fails"),
        ("fallback: {upstream: b}", "routes[0].fallback.upstream", "nobody answers there"),
        (
            "fallback: {upstream: b, respond: {status: 503}}",
            "routes[0].fallback.upstream",
            "nobody answers there",
        ),
    ] {
        let told = of("active: false", route);
        assert!(
            matches!(told.as_slice(), [(at, one)] if at == place && one.contains(part)),
            "{told:?}"
        );
        assert_eq!(of("", route), [], "{route}");
    }
}

#[test]
fn an_attempt_has_no_more_time_than_the_upstream_that_stands_in_has_for_all() {
    let of = |per_try: &str, total: &str| {
        told(&format!(
            "upstreams: {{a: {{addresses: [\"a:80\"], timeouts: {{total: 60s}}}}, \
             b: {{addresses: [\"b:80\"], {total}}}}}\n\
             routes: [{{upstream: a, fallback: {{upstream: b}}, retry: {{{per_try}}}, timeout: off}}]"
        ))
    };
    for (total, time) in [("", "30s"), ("timeouts: {total: 5s}", "5s")] {
        let told = of("per_try: 40s", total);
        assert!(
            matches!(told.as_slice(), [(at, one)] if at == "routes[0].retry.per_try"
                && one.contains(&format!("\"b\", has {time} for all attempts"))),
            "{told:?}"
        );
    }
    for (per_try, total) in [
        ("per_try: 30s", ""),
        ("per_try: off", "timeouts: {total: 5s}"),
        ("attempts: 2", "timeouts: {total: 5s}"),
        ("per_try: 40s", "timeouts: {total: 40s}"),
    ] {
        assert_eq!(of(per_try, total), [], "{per_try} {total}");
    }
}

//! What a configuration means: from the text to the plan.

use std::time::Duration;

use http::HeaderName;

use super::config;
use super::load_text;
use crate::cache::QueryRule;
use crate::config::plan::AdminAddress;
use crate::observe::Sink;
use crate::route::HeaderRule;
use crate::route::Route;
use crate::route::action::Action;
use crate::upstream::Place;

/// The only route of a configuration with an upstream `a`.
fn route(text: &str) -> Route {
    let text = format!("upstreams: {{a: {{addresses: [\"a:80\"]}}}}\n{text}");
    config(&text).plan.routes.routes()[0].clone()
}

#[test]
fn a_route_takes_from_the_defaults_what_it_leaves_out() {
    let text = "defaults: {timeout: 40s, max_body: 1MiB, spool: 2KiB, cache: {ttl: 5m, max_ttl: 1h}}\n\
                routes: [{upstream: a, max_body: off, cache: {ttl: 10m}}]\n";
    let route = route(text);
    assert_eq!(route.total_timeout, Some(Duration::from_secs(40)));
    assert_eq!(route.max_body, u64::MAX);
    assert_eq!(route.spool, 2048);
    assert_eq!(route.cache.default_ttl, Some(Duration::from_secs(600)));
    assert_eq!(route.cache.max_ttl, Some(Duration::from_secs(3600)));
}

#[test]
fn a_route_can_switch_the_cache_off_and_on_again() {
    assert!(!route("routes: [{upstream: a, cache: off}]").cache.enabled);
    assert!(!route("defaults: {cache: off}\nroutes: [{upstream: a}]").cache.enabled);
    assert!(route("defaults: {cache: off}\nroutes: [{upstream: a, cache: on}]").cache.enabled);
}

#[test]
fn a_route_that_stores_takes_from_the_defaults_who_may_purge_or_says_it_itself() {
    let of = |text: &str| {
        let text = format!("defaults: {{purge: {{from: [10.0.0.0/8]}}}}\nroutes: [{{{text}}}]");
        route(&text).purge.map(|rule| (rule.from.is_some(), rule.token.is_some()))
    };
    assert_eq!(of("upstream: a"), Some((true, false)));
    assert_eq!(of("upstream: a, purge: {token: t}"), Some((false, true)));
    assert_eq!(of("upstream: a, purge: off"), None);
    assert_eq!(of("upstream: a, cache: off"), None);
    assert_eq!(of("respond: {}"), None);
    assert_eq!(route("routes: [{upstream: a}]").purge, None);
}

#[test]
fn off_takes_an_inherited_lifetime_away() {
    let route = route("defaults: {cache: {ttl: 5m}}\nroutes: [{upstream: a, cache: {ttl: off}}]");
    assert_eq!(route.cache.default_ttl, None);
}

#[test]
fn a_nearer_ttl_is_not_void_because_of_an_override_further_out() {
    let text = "defaults: {cache: {override_ttl: 1h}}\nroutes: [{upstream: a, cache: {ttl: 5m}}]";
    let policy = route(text).cache;
    assert_eq!(policy.default_ttl, Some(Duration::from_secs(300)));
    assert_eq!(policy.override_ttl, None);
}

#[test]
fn nothing_written_is_the_policy_built_in() {
    assert_eq!(*route("routes: [{upstream: a}]").cache, crate::cache::Policy::default());
}

#[test]
fn key_rules_are_carried_over() {
    let text = "routes: [{upstream: a, cache: {key: {query: {except: [utm]}, headers: [Accept-Language], \
                cookies: [lang], sort_query: true}}}]";
    let key = route(text).cache.key.clone();
    assert_eq!(key.query, QueryRule::Except(vec!["utm".into()]));
    assert_eq!(key.headers, [HeaderName::from_static("accept-language")]);
    assert_eq!(key.cookies, ["lang"]);
    assert!(key.sort_query);
}

#[test]
fn upstreams_are_numbered_by_name() {
    let text = "upstreams: {b: {addresses: [\"b:80\"]}, a: {addresses: [\"a:80\"]}}\n\
                routes: [{upstream: b}, {match: {path: /a}, upstream: a}]\n";
    let plan = config(text).plan;
    for route in plan.routes.routes() {
        let Action::Upstream(index) = route.action else { panic!("an upstream was written") };
        let wanted = if &*route.name == "route-1" { "b" } else { "a" };
        assert_eq!(&*plan.upstreams[index].name, wanted);
    }
}

#[test]
fn header_changes_are_applied_in_the_order_remove_set_add() {
    let text = "routes: [{upstream: a, headers: {response: \
                {add: {x-a: '1'}, set: {x-b: '2'}, remove: [x-c]}}}]";
    let rules = route(text).headers.response;
    assert!(matches!(
        &rules[..],
        [HeaderRule::Remove(_), HeaderRule::Set(..), HeaderRule::Add(..)]
    ));
}

#[test]
fn header_values_that_look_like_numbers_stay_as_they_are_written() {
    let text =
        "routes: [{upstream: a, headers: {request: {set: {x-a: 1.10, x-b: true, x-c: 0x10}}}}]";
    let rules = route(text).headers.request;
    let values: Vec<&str> = rules
        .iter()
        .map(|rule| match rule {
            HeaderRule::Set(_, value) | HeaderRule::Add(_, value) => value.to_str().expect("text"),
            HeaderRule::Remove(_) => "",
        })
        .collect();
    assert_eq!(values, ["1.10", "true", "0x10"]);
}

#[test]
fn a_fixed_response_says_that_it_is_text() {
    let Action::Respond { status, headers, body } =
        config("routes: [{respond: {body: hello}}]").plan.routes.routes()[0].action.clone()
    else {
        panic!("a response was written");
    };
    assert_eq!((status.as_u16(), &body[..]), (200, &b"hello"[..]));
    assert_eq!(headers["content-type"], "text/plain; charset=utf-8");
}

#[test]
fn addresses_may_be_sockets_and_have_weights() {
    let text = "upstreams: {a: {addresses: [{address: \"unix:run/a.sock\", weight: 3}, demo]}}\n\
                routes: [{upstream: a}]\n";
    let addresses = config(text).plan.upstreams[0].backends.clone();
    assert_eq!(addresses[0].at, Place::Unix("/etc/edge/run/a.sock".into()));
    assert_eq!((addresses[0].weight, addresses[1].weight), (3, 1));
    assert_eq!(addresses[1].at, Place::Demo);
}

#[test]
fn auto_is_found_out_from_the_surroundings() {
    let process = config("routes: [{respond: {}}]").plan.process;
    assert_eq!(process.threads, 4);
    assert_eq!(process.state_dir.to_str(), Some("/var/lib/edge"));
    assert_eq!(process.upgrade_socket.to_str(), Some("/var/lib/edge/upgrade.sock"));
}

#[test]
fn relative_paths_begin_in_the_folder_of_the_file() {
    let text = "process: {state_dir: state}\nadmin: {socket: admin.sock}\n\
                access_log: {to: ./access.log}\nroutes: [{respond: {}}]\n";
    let plan = config(text).plan;
    assert_eq!(plan.process.state_dir.to_str(), Some("/etc/edge/state"));
    assert_eq!(plan.process.pid_file.to_str(), Some("/etc/edge/state/edgeproxy.pid"));
    assert_eq!(plan.admin, Some(AdminAddress::Unix("/etc/edge/admin.sock".into())));
    assert_eq!(plan.access_log.to, Some(Sink::File("/etc/edge/./access.log".into())));
}

#[test]
fn admin_on_is_the_usual_loopback_address() {
    let plan = config("admin: on\nroutes: [{respond: {}}]").plan;
    assert_eq!(plan.admin, Some(AdminAddress::Tcp(([127, 0, 0, 1], 9180).into())));
    assert_eq!(config("routes: [{respond: {}}]").plan.admin, None);
}

#[test]
fn an_empty_section_has_its_defaults() {
    let loaded = config("limits:\nprocess:\nupstreams:\nroutes:\n  - respond:\n      body: x\n");
    assert_eq!(loaded.plan.limits.header_fields, 100);
}

#[test]
fn every_range_takes_its_ends_and_nothing_beyond() {
    let accepts = |line: &str| {
        let text = format!(
            "listeners: [{{address: \"127.0.0.1:80\"}}]\nroutes: [{{respond: {{}}}}]\n{line}\n"
        );
        load_text(&text, "t.yaml").is_ok()
    };
    for (good, bad) in [
        ("process: {threads: 1}", "process: {threads: 0}"),
        ("process: {threads: 1024}", "process: {threads: 1025}"),
        ("process: {drain_timeout: 1d}", "process: {drain_timeout: 86401s}"),
        ("cache: {memory: 1MiB}", "cache: {memory: 1048575}"),
        ("limits: {connections: 1}", "limits: {connections: 0}"),
        ("limits: {header_bytes: 1MiB}", "limits: {header_bytes: 1048577}"),
        ("limits: {header_bytes: 8KiB}", "limits: {header_bytes: 8191}"),
        ("limits: {header_timeout: 1ms}", "limits: {header_timeout: 999us}"),
        ("limits: {header_fields: 1000}", "limits: {header_fields: 1001}"),
        ("limits: {h2_streams: 10000}", "limits: {h2_streams: 10001}"),
        ("limits: {rate_window: 1s}", "limits: {rate_window: 999ms}"),
        ("limits: {min_body_rate: 0}", "limits: {min_body_rate: 2GiB}"),
        ("access_log: {queue: 1}", "access_log: {queue: 0}"),
        ("access_log: {queue: 1048576}", "access_log: {queue: 1048577}"),
        (
            "defaults: {cache: {heuristic_percent: 100}}",
            "defaults: {cache: {heuristic_percent: 101}}",
        ),
        ("defaults: {cache: {ttl: 1s}}", "defaults: {cache: {ttl: 999ms}}"),
        (
            "defaults: {cache: {ttl: 1h, max_ttl: 1h}}",
            "defaults: {cache: {ttl: 1h1s, max_ttl: 1h}}",
        ),
        ("defaults: {max_header: 32KiB}", "defaults: {max_header: 32769}"),
        ("defaults: {max_header: 128B}", "defaults: {max_header: 127B}"),
        ("defaults: {spool: 48KiB}", "defaults: {spool: 49153}"),
        ("defaults: {timeout: 1ms}", "defaults: {timeout: 0}"),
    ] {
        assert!(accepts(good), "{good}");
        assert!(!accepts(bad), "{bad}");
    }
}

#[test]
fn a_key_cannot_count_what_we_tell_the_origin_ourselves() {
    for (name, fine) in [("X-Real-IP", false), ("forwarded", false), ("Accept-Language", true)] {
        let text = format!(
            "listeners: [{{address: \"127.0.0.1:80\"}}]\nupstreams: {{a: {{addresses: [demo]}}}}\n\
             routes: [{{upstream: a, cache: {{key: {{headers: [{name}]}}}}}}]\n"
        );
        assert_eq!(load_text(&text, "t.yaml").is_ok(), fine, "{name}");
    }
}

#[test]
fn the_access_log_is_switched_off_as_other_sections_are() {
    for text in ["access_log: off", "access_log: {to: off}"] {
        let loaded = config(&format!("routes: [{{respond: {{status: 204}}}}]\n{text}"));
        assert_eq!(loaded.plan.access_log.to, None, "{text}");
    }
    let loaded = config("routes: [{respond: {status: 204}}]\naccess_log: on");
    assert_eq!(loaded.plan.access_log.to, Some(Sink::Stdout));
}

#[test]
fn a_route_for_all_of_a_host_takes_everything_from_routes_for_every_host_and_that_is_told() {
    let all = "{name: site, match: {hosts: [a.test]}, respond: {status: 204}}";
    let api = "{name: api, match: {path_prefix: /api}, respond: {status: 204}}";
    let loaded = config(&format!("routes: [{all}, {api}]"));
    let told: Vec<&str> = loaded.warnings.all().iter().map(|one| one.message.as_str()).collect();
    assert_eq!(told, ["on a.test no request takes this route: \"site\" takes them all"]);
    // Both are for what the others leave.
    let rest = "{name: rest, respond: {status: 204}}";
    assert!(config(&format!("routes: [{all}, {api}, {rest}]")).warnings.is_empty());
    // It is named there, and more special.
    let own = "{name: api, match: {hosts: [a.test], path_prefix: /api}, respond: {status: 204}}";
    assert!(config(&format!("routes: [{all}, {own}]")).warnings.is_empty());
    // It leaves what is not asked for by GET.
    let get = "{name: site, match: {hosts: [a.test], methods: [GET]}, respond: {status: 204}}";
    assert!(config(&format!("routes: [{get}, {api}]")).warnings.is_empty());
}

//! Checks the cache's sections.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;

use crate::cache::ClientDirectives;
use crate::cache::Methods;
use crate::cache::Policy;
use crate::cache::Posts;
use crate::cache::QueryRule;
use crate::cache::Ranges;
use crate::cache::Search;
use crate::cache::SetCookie;
use crate::cache::StatusTtl;
use crate::cache::Statuses;
use crate::cache::Timing;
use crate::cache::condition::Condition;
use crate::cache::condition::Names;
use crate::cache::condition::Place;
use crate::cache::condition::Wanted;
use crate::cache::deception::Guard;
use crate::cache::normalise::DEVICE_CLASS;
use crate::cache::purge::DEFAULT_ZONE;
use crate::cache::vary;
use crate::config::check::forms;
use crate::config::check::header;
use crate::config::check::matching;
use crate::config::check::period;
use crate::config::check::size;
use crate::config::check::within;
use crate::config::check::zones;
use crate::config::path::Path;
use crate::config::report::Report;
use crate::config::schema;
use crate::config::schema::cache::Cache;
use crate::config::schema::cache::Key;
use crate::config::schema::cache::Query;
use crate::config::schema::cache::SuffixGuard;
use crate::config::schema::cache::When;
use crate::config::schema::value::OrAuto;
use crate::config::schema::value::OrOff;
use crate::config::schema::value::Switch;
use crate::storage;
use crate::storage::Handover;
use crate::units::ByteSize;
use crate::units::Period;

/// The largest lifetime that a cache has to tell from larger ones (RFC 9111 §1.2.2).
const LONGEST: Duration = Duration::from_secs((1 << 31) - 1);

/// The longest that a request may be told to wait for another's answer.
const COLLAPSE_WAIT_MOST: Duration = Duration::from_secs(600);

/// The most variants of one key: each of them is compared with a request.
const MOST_VARIANTS: u32 = 256;

/// The longest that a new process may wait for what is stored, before it serves.
const LONGEST_HANDOVER: Duration = Duration::from_secs(50);

/// The store.
pub(super) fn store(
    config: &schema::Config,
    root: &Path,
    report: &mut Report<'_>,
) -> storage::Settings {
    let at = root.key("cache").key("memory");
    let memory = size(report, &at, config.cache.memory, 1 << 20, 1 << 50);
    let zones = zones::zones(config, memory, root, report);
    let built_in = Cache::built_in().max_object;
    for (at, section) in sections(config, root) {
        zones::known(section, config, &at, report);
        let Some(largest) = section.max_object else { continue };
        let room = zones::room(section, memory, &zones);
        // The built-in limit is nobody's wish.
        if largest.0 > storage::memory::largest(room) && Some(largest) != built_in {
            report
                .warning(&at.key("max_object"), "objects of this size never fit into the cache")
                .help(format!(
                    "{} is {}, of which one object may take half",
                    zones::key_of(section),
                    ByteSize(room),
                ));
        }
    }
    let eviction = match config.cache.eviction {
        schema::cache::Eviction::S3Fifo => storage::memory::Policy::S3Fifo,
        schema::cache::Eviction::Lru => storage::memory::Policy::Lru,
    };
    let at = root.key("cache").key("variants");
    let variants = config.cache.variants;
    within(report, &at, variants, 1, MOST_VARIANTS);
    let at = root.key("cache");
    let most = match config.cache.handover_memory {
        OrAuto::Auto => memory,
        OrAuto::Is(most) => size(report, &at.key("handover_memory"), most, 0, 1 << 50).min(memory),
    };
    let at = at.key("handover_time");
    let within = period(report, &at, config.cache.handover_time, Duration::ZERO, LONGEST_HANDOVER);
    let handover = Handover { most, within };
    storage::Settings { memory, zones, eviction, variants, handover }
}

/// All sections about routes, and where they stand.
pub(super) fn sections<'a>(
    config: &'a schema::Config,
    root: &Path,
) -> impl Iterator<Item = (Path, &'a Cache)> {
    let defaults = (root.key("defaults").key("cache"), Some(&config.defaults.cache));
    let routes = root.key("routes");
    let own = config
        .routes
        .iter()
        .enumerate()
        .map(move |(n, route)| (routes.index(n).key("cache"), route.cache.as_ref()));
    std::iter::once(defaults)
        .chain(own)
        .filter_map(|(at, section)| Some((at, section.and_then(Switch::as_ref)?)))
}

/// What a route allows: `own` completed from `outer`.
pub(super) fn policy(own: Option<&Switch<Cache>>, outer: &Switch<Cache>) -> Policy {
    let nothing = Cache::default();
    let (own, outer) = match (own, outer) {
        (Some(Switch::Off), _) | (None, Switch::Off) => {
            return Policy { enabled: false, ..Policy::default() };
        }
        (own, outer) => {
            let own = own.and_then(Switch::as_ref).unwrap_or(&nothing);
            (own, outer.as_ref().unwrap_or(&nothing))
        }
    };
    build(&own.or(&outer.or(&Cache::built_in())))
}

/// Checks what is written in one section, which is completed from `outer`.
pub(super) fn section(section: &Cache, outer: Option<&Cache>, at: &Path, report: &mut Report<'_>) {
    contradictions(section, outer.unwrap_or(&Cache::default()), at, report);
    let second = Duration::from_secs(1);
    let lifetimes = [
        ("ttl", section.ttl),
        ("override_ttl", section.override_ttl),
        ("max_ttl", section.max_ttl),
    ];
    for (key, lifetime) in lifetimes {
        if let Some(OrOff::Is(lifetime)) = lifetime {
            if lifetime.0.is_zero() {
                report
                    .error(&at.key(key), "a lifetime of nothing is not kept")
                    .help("write `off` to have none, or `cache: off` to store nothing");
            } else {
                period(report, &at.key(key), lifetime, second, LONGEST);
            }
        }
    }
    for (key, when) in [("bypass", &section.bypass), ("no_store", &section.no_store)] {
        if let Some(when) = when {
            conditions(when, &at.key(key), report);
        }
    }
    for (statuses, ttl) in section.ttl_by_status.iter().flatten() {
        by_status(statuses, *ttl, &at.key("ttl_by_status").key(statuses.0.as_str()), report);
    }
    for (key, window) in [
        ("stale_while_revalidate", section.stale_while_revalidate),
        ("stale_if_error", section.stale_if_error),
    ] {
        let Some(OrOff::Is(window)) = window else { continue };
        if window.0.is_zero() {
            report
                .error(&at.key(key), "a window of nothing is never open")
                .help("write `off` to have none");
        } else {
            period(report, &at.key(key), window, second, LONGEST);
        }
    }
    requests_and_statuses(section, at, report);
    if let Some(heuristic_max) = section.heuristic_max {
        period(report, &at.key("heuristic_max"), heuristic_max, Duration::ZERO, LONGEST);
    }
    if let Some(percent) = section.heuristic_percent {
        within(report, &at.key("heuristic_percent"), percent, 0, 100);
    }
    if let Some(largest) = section.max_object {
        size(report, &at.key("max_object"), largest, 1, 1 << 50);
    }
    if let Some(OrOff::Is(piece)) = section.slice {
        size(report, &at.key("slice"), piece, PIECE_LEAST, PIECE_MOST);
    }
    if let Some(wait) = section.collapse_wait {
        period(report, &at.key("collapse_wait"), wait, Duration::ZERO, COLLAPSE_WAIT_MOST);
    }
    if let Some(normalise) = &section.normalise {
        forms::section(normalise, &at.key("normalise"), report);
    }
    if let Some(key) = &section.key {
        forms::host(key, &at.key("key"), report);
        key_values(key, &at.key("key"), report);
    }
}

/// The largest number of uses that is counted.
const MOST_USES: u32 = 100;

fn requests_and_statuses(section: &Cache, at: &Path, report: &mut Report<'_>) {
    if let Some(methods) = &section.methods {
        let at = at.key("methods");
        for (n, method) in methods.iter().enumerate() {
            if !matches!(method.as_str(), "GET" | "HEAD" | "POST") {
                report
                    .error(
                        &at.index(n),
                        format!("\"{method}\" is not a method whose answers are stored"),
                    )
                    .help("write [GET, HEAD], [GET], either with POST, or `cache: off`");
            }
        }
        if !methods.iter().any(|method| method == "GET") {
            report
                .error(&at, "what answers a HEAD is the stored answer to a GET")
                .help("write [GET, HEAD], [GET], either with POST, or `cache: off`");
        }
    }
    for (n, statuses) in section.statuses.iter().flatten().enumerate() {
        if statuses_of(&statuses.0).is_none() {
            report
                .error(
                    &at.key("statuses").index(n),
                    format!("\"{}\" is not a status that is stored", statuses.0),
                )
                .help("write a final status like 404, or a class: 2xx, 3xx, 4xx, 5xx");
        }
    }
    if let Some(uses) = section.min_uses {
        within(report, &at.key("min_uses"), uses, 1, MOST_USES);
    }
}

fn conditions(when: &When, at: &Path, report: &mut Report<'_>) {
    matching::headers(&when.headers, &at.key("headers"), report);
    matching::conditions(&when.query, &at.key("query"), report);
    matching::conditions(&when.cookies, &at.key("cookies"), report);
    for name in when.cookies.keys() {
        if name.strip_suffix('*').unwrap_or(name).contains('*') {
            report
                .error_in_key(&at.key("cookies").key(name.as_str()), "a `*` stands at the end only")
                .help("`wordpress_logged_in_*` is every cookie whose name begins so");
        }
    }
    for (kind, written) in
        [("headers", &when.headers), ("query", &when.query), ("cookies", &when.cookies)]
    {
        for (name, condition) in written {
            if matches!(condition, schema::route::Condition::Regex(_)) {
                report
                    .error(
                        &at.key(kind).key(name.as_str()).key("regex"),
                        "a regular expression is not a condition of the cache",
                    )
                    .help("write present, absent, a value or {prefix: …}; or a route of its own");
            }
        }
    }
}

/// The conditions as meant; regular expressions were refused above.
fn built(when: Option<&When>) -> Vec<Condition> {
    let Some(when) = when else { return Vec::new() };
    let wanted = |condition: &schema::route::Condition| match condition {
        schema::route::Condition::Present => Some(Wanted::Present),
        schema::route::Condition::Absent => Some(Wanted::Absent),
        schema::route::Condition::Exact(text) => Some(Wanted::Exact(text.clone())),
        schema::route::Condition::Prefix(text) => Some(Wanted::Prefix(text.clone())),
        schema::route::Condition::Regex(_) => None,
    };
    let header = |name: &String| name.parse().ok().map(Place::Header);
    let headers = when.headers.iter().map(|(name, is)| (header(name), wanted(is)));
    let query = when.query.iter().map(|(name, is)| (Some(Place::Query(name.clone())), wanted(is)));
    let cookies =
        when.cookies.iter().map(|(name, is)| (Some(Place::Cookie(Names::read(name))), wanted(is)));
    headers
        .chain(query)
        .chain(cookies)
        .filter_map(|(place, wanted)| Some(Condition { place: place?, wanted: wanted? }))
        .collect()
}

/// The longest that an error of the origin is kept by our own word: an origin that is well again should
/// not look broken.
const LONGEST_ERROR: Duration = Duration::from_secs(60);

fn by_status(
    statuses: &schema::cache::Statuses,
    ttl: OrOff<Period>,
    at: &Path,
    report: &mut Report<'_>,
) {
    let of = statuses_of(&statuses.0);
    if of.is_none() {
        report
            .error_in_key(at, format!("\"{}\" is not a status that is stored", statuses.0))
            .help("write a final status like 404, or a class: 2xx, 3xx, 4xx, 5xx");
    }
    let OrOff::Is(ttl) = ttl else { return };
    if ttl.0.is_zero() {
        report.error(at, "a lifetime of nothing is not kept").help("write `off` to store none");
        return;
    }
    let is_error = match of {
        Some(Statuses::One(status)) => status.is_server_error(),
        Some(Statuses::Class(class)) => class == 5,
        None => false,
    };
    if is_error && ttl.0 > LONGEST_ERROR {
        report
            .error(at, format!("{ttl} is long for an error of the origin"))
            .help("at most 1m: an origin that is well again should not look broken");
        return;
    }
    period(report, at, ttl, Duration::from_secs(1), LONGEST);
}

/// What the text names; `None` for what is not stored as itself: interim responses, 206 and 304.
fn statuses_of(text: &str) -> Option<Statuses> {
    if let Some(class) = text.strip_suffix("xx") {
        let class = class.parse().ok().filter(|class| (2..=5).contains(class))?;
        return Some(Statuses::Class(class));
    }
    let status = StatusCode::from_bytes(text.as_bytes()).ok()?;
    let whole = !matches!(status.as_u16(), 206 | 304) && (200..600).contains(&status.as_u16());
    whole.then_some(Statuses::One(status))
}

fn key_values(key: &Key, at: &Path, report: &mut Report<'_>) {
    for (n, text) in key.headers.iter().flatten().enumerate() {
        let at = at.key("headers").index(n);
        if header::name(text, &at, report).as_ref().is_some_and(vary::is_ours) {
            report
                .error(
                    &at,
                    format!("`{text}` is what we tell the origin, not what the client says"),
                )
                .help("what depends on who asks is not to be stored: write `cache: off`");
        }
    }
    for (n, text) in key.cookies.iter().flatten().enumerate() {
        if text.is_empty() {
            report
                .error(&at.key("cookies").index(n), "a cookie needs a name")
                .help("write the name of the cookie, or remove the empty text");
        }
    }
    let at = at.key("query");
    match &key.query {
        None | Some(Query::All) => {}
        Some(Query::None) => {
            if key.sort_query == Some(true) {
                report
                    .warning(&at, "`sort_query` has no effect when no parameter counts")
                    .help("remove `sort_query`, or let parameters count with `only` or `except`");
            }
        }
        Some(Query::Only(names)) if names.is_empty() => {
            report.error(&at.key("only"), "no parameter is named").help("write `query: none`");
        }
        Some(Query::Except(names)) if names.is_empty() => {
            report.error(&at.key("except"), "no parameter is named").help("write `query: all`");
        }
        Some(Query::Only(_) | Query::Except(_)) => {}
    }
}

/// The smallest and the largest piece of an object, in bytes.
const PIECE_LEAST: u64 = 16 << 10;
const PIECE_MOST: u64 = 1 << 30;

/// What pieces cannot do without.
fn pieces(own: &Cache, whole: &Cache, at: &Path, report: &mut Report<'_>) {
    let Some(OrOff::Is(piece)) = whole.slice else { return };
    let written_here =
        own.slice.is_some() || own.max_object.is_some() || own.collapse_wait.is_some();
    let is_as_asked = whole.ranges == Some(schema::cache::Ranges::AsAsked);
    if is_as_asked && (own.slice.is_some() || own.ranges.is_some()) {
        report
            .error(&at.key("ranges"), "`as-asked` has no effect beside `slice`")
            .help("pieces are what is fetched for a range: keep one of the two");
    }
    if !written_here {
        return;
    }
    if let Some(largest) = whole.max_object.filter(|largest| piece.0 > largest.0) {
        report
            .error(
                &at.key("slice"),
                format!("slice ({piece}) is larger than max_object ({largest})"),
            )
            .help("max_object is the largest body that is stored, a piece's as well");
    }
    if whole.collapse_wait.is_some_and(|wait| wait.0.is_zero()) {
        report
            .error(&at.key("slice"), "pieces are fetched for all who ask for them at once")
            .help("give collapse_wait more than 0s, or slice nothing");
    }
}

/// What cannot be meant together.
fn contradictions(own: &Cache, outer: &Cache, at: &Path, report: &mut Report<'_>) {
    let is = |value: Option<OrOff<Period>>| value.and_then(OrOff::get);
    if is(own.ttl).is_some() && is(own.override_ttl).is_some() {
        report
            .error_in_key(&at.key("ttl"), "`ttl` has no effect beside `override_ttl`")
            .help("`ttl` is for responses that say nothing, `override_ttl` for all: keep one");
    }
    let whole = own.or(outer);
    pieces(own, &whole.or(&Cache::built_in()), at, report);
    let Some(max) = is(whole.max_ttl) else { return };
    for (key, value) in [("ttl", whole.ttl), ("override_ttl", whole.override_ttl)] {
        let Some(value) = is(value) else { continue };
        // Said where one of the two was written.
        let written_here = own.max_ttl.is_some()
            || (key == "ttl" && own.ttl.is_some())
            || (key == "override_ttl" && own.override_ttl.is_some());
        if value.0 > max.0 && written_here {
            report
                .error(&at.key(key), format!("{key} ({value}) is longer than max_ttl ({max})"))
                .help("no response is ever kept for longer than max_ttl: lower one or raise the other");
        }
    }
}

fn build(whole: &Cache) -> Policy {
    let time = |value: Option<OrOff<Period>>| value.and_then(OrOff::get).map(|period| period.0);
    let mut policy = Policy {
        enabled: true,
        posts: match whole.methods.iter().flatten().any(|method| method == "POST") {
            true => Posts::Stored,
            false => Posts::NotStored,
        },
        zone: Arc::from(whole.zone.as_deref().filter(|name| *name != DEFAULT_ZONE).unwrap_or("")),
        methods: match whole.methods.iter().flatten().any(|method| method == "HEAD") {
            true => Methods::GetAndHead,
            false => Methods::Get,
        },
        statuses: whole
            .statuses
            .iter()
            .flatten()
            .filter_map(|statuses| statuses_of(&statuses.0))
            .collect(),
        min_uses: whole.min_uses.unwrap_or(1),
        bypass: built(whole.bypass.as_ref()),
        no_store: built(whole.no_store.as_ref()),
        default_ttl: time(whole.ttl),
        override_ttl: time(whole.override_ttl),
        max_ttl: time(whole.max_ttl),
        stale_while_revalidate: time(whole.stale_while_revalidate).unwrap_or_default(),
        stale_if_error: time(whole.stale_if_error).unwrap_or_default(),
        ..Policy::default()
    };
    for (statuses, ttl) in whole.ttl_by_status.iter().flatten() {
        let ttl = match ttl {
            OrOff::Off => StatusTtl::Off,
            OrOff::Is(ttl) => StatusTtl::Is(ttl.0),
        };
        policy.status_ttl.extend(statuses_of(&statuses.0).map(|statuses| (statuses, ttl)));
    }
    policy.guard = match whole.suffix_guard {
        None => policy.guard,
        Some(SuffixGuard::Off) => Guard::Off,
        Some(SuffixGuard::Unstated) => Guard::Unstated,
        Some(SuffixGuard::All) => Guard::All,
    };
    if let Some(percent) = whole.heuristic_percent {
        policy.heuristic_percent = percent;
    }
    if let Some(longest) = whole.heuristic_max {
        policy.heuristic_max = longest.0;
    }
    if let Some(largest) = whole.max_object {
        policy.max_object = largest.0;
    }
    if let Some(wait) = whole.collapse_wait {
        policy.collapse_wait = wait.0;
    }
    match whole.set_cookie {
        None => {}
        Some(schema::cache::SetCookie::Refuse) => policy.set_cookie = SetCookie::Refuse,
        Some(schema::cache::SetCookie::Strip) => policy.set_cookie = SetCookie::Strip,
        Some(schema::cache::SetCookie::Keep) => policy.set_cookie = SetCookie::Keep,
    }
    policy.client_directives = match whole.client_directives {
        None => policy.client_directives,
        Some(schema::cache::ClientDirectives::Limited) => ClientDirectives::Limited,
        Some(schema::cache::ClientDirectives::Honour) => ClientDirectives::Honour,
        Some(schema::cache::ClientDirectives::Ignore) => ClientDirectives::Ignore,
    };
    if let Some(key) = &whole.key {
        policy.key.query = match &key.query {
            None | Some(Query::All) => QueryRule::All,
            Some(Query::None) => QueryRule::None,
            Some(Query::Only(names)) => QueryRule::Only(names.clone()),
            Some(Query::Except(names)) => QueryRule::Except(names.clone()),
        };
        policy.key.sort_query = key.sort_query.unwrap_or(policy.key.sort_query);
        policy.key.search = match key.no_vary_search {
            None => policy.key.search,
            Some(true) => Search::Heeded,
            Some(false) => Search::Ignored,
        };
        let names = key.headers.iter().flatten();
        policy.key.headers = names.filter_map(|name| name.parse().ok()).collect();
        policy.key.cookies = key.cookies.clone().unwrap_or_default();
        policy.key.host = forms::normal_host(key);
        if key.device == Some(true) && !policy.key.headers.contains(&DEVICE_CLASS) {
            policy.key.headers.push(DEVICE_CLASS);
        }
    }
    policy.key.ranges = match whole.ranges {
        None => policy.key.ranges,
        Some(schema::cache::Ranges::Whole) => Ranges::Whole,
        Some(schema::cache::Ranges::AsAsked) => Ranges::AsAsked,
    };
    policy.key.slice = whole.slice.and_then(OrOff::get).map(|piece| piece.0);
    policy.timing = match whole.server_timing {
        Some(true) => Timing::Told,
        Some(false) | None => Timing::Untold,
    };
    policy.normalise = forms::rules(whole.normalise.as_ref(), whole.key.as_ref());
    policy
}

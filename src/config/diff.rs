//! Two plans compared: what a reload changes, and what only another process can change.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use serde::Serialize;

use crate::config::plan::Plan;
use crate::config::plan::Process;
use crate::route::Route;

/// What differs between the configuration in use and another one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Difference {
    /// What a reload changes.
    pub changes: Changes,
    /// What it cannot change; not empty: nothing at all is changed.
    pub beyond: Vec<Beyond>,
}

/// What a reload changes, by names.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Changes {
    /// Listeners.
    pub listeners: Names,
    /// Listeners whose certificates' files hold others than before. A comparison of plans knows none.
    pub certificates: Vec<String>,
    /// Upstreams.
    pub upstreams: Names,
    /// Routes.
    pub routes: Names,
    /// Keys of everything else that is different.
    pub settings: Vec<&'static str>,
}

/// What came, went and is different.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Names {
    /// It was not there.
    pub added: Vec<String>,
    /// It is not there any more.
    pub removed: Vec<String>,
    /// It is there, and different.
    pub changed: Vec<String>,
}

/// A key that a running process cannot change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Beyond {
    /// Which one.
    pub key: &'static str,
    /// What can.
    pub needs: Needs,
}

/// What it takes to change what a running process cannot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Needs {
    /// A new process that takes the sockets over.
    Upgrade,
    /// An end and a start.
    Restart,
}

impl fmt::Display for Beyond {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, needs } = self;
        match needs {
            Needs::Upgrade => write!(f, "{key}: start a new process with -u"),
            Needs::Restart => write!(f, "{key}: stop the process and start it again"),
        }
    }
}

impl Names {
    /// Whether nothing came, went or is different.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.removed.is_empty() && self.changed.is_empty()
    }

    /// How many of each, with the words for it in metrics.
    #[must_use]
    pub fn counts(&self) -> [(&'static str, usize); 3] {
        let Self { added, removed, changed } = self;
        [("added", added.len()), ("removed", removed.len()), ("changed", changed.len())]
    }

    /// What differs between two lists of things with names.
    fn between<'a, T: PartialEq + 'a>(
        old: impl Iterator<Item = (&'a str, T)>,
        new: impl Iterator<Item = (&'a str, T)>,
    ) -> Self {
        let mut names = Self::default();
        let mut before: HashMap<&str, T> = HashMap::new();
        let mut order = Vec::new();
        for (name, thing) in old {
            order.push(name);
            before.insert(name, thing);
        }
        for (name, thing) in new {
            match before.remove(name) {
                None => names.added.push(name.to_owned()),
                Some(was) if was != thing => names.changed.push(name.to_owned()),
                Some(_) => {}
            }
        }
        let gone = order.into_iter().filter(|name| before.contains_key(name));
        names.removed = gone.map(str::to_owned).collect();
        names
    }
}

impl Changes {
    /// Whether nothing changes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let Self { listeners, certificates, upstreams, routes, settings } = self;
        [listeners, upstreams, routes].into_iter().all(Names::is_empty)
            && certificates.is_empty()
            && settings.is_empty()
    }
}

impl fmt::Display for Changes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { listeners, certificates, upstreams, routes, settings } = self;
        let mut parts = Vec::new();
        for (what, names) in
            [("listeners", listeners), ("upstreams", upstreams), ("routes", routes)]
        {
            let Names { added, removed, changed } = names;
            for (how, names) in [("added", added), ("removed", removed), ("changed", changed)] {
                if !names.is_empty() {
                    parts.push(format!("{what} {how}: {}", names.join(", ")));
                }
            }
        }
        if !certificates.is_empty() {
            parts.push(format!("certificates read: {}", certificates.join(", ")));
        }
        if !settings.is_empty() {
            parts.push(format!("settings changed: {}", settings.join(", ")));
        }
        if parts.is_empty() {
            return f.write_str("nothing changed");
        }
        f.write_str(&parts.join("; "))
    }
}

/// What differs between the plan in use and the next one.
#[must_use]
pub fn between(old: &Plan, new: &Plan) -> Difference {
    // Taken apart, so that nobody adds a part to a plan without saying here what a reload does with it.
    let Plan {
        process,
        listeners,
        acme,
        limits,
        normalisation,
        upstreams,
        routes,
        storage,
        admin,
        admin_token,
        state_file,
        access_log,
        log_level,
    } = old;
    let mut settings = Vec::new();
    let mut beyond = Vec::new();
    of_processes(process, &new.process, &mut settings, &mut beyond);
    let trusted = limits.trusted_proxies != new.limits.trusted_proxies;
    let mut limits = limits.clone();
    limits.trusted_proxies.clone_from(&new.limits.trusted_proxies);
    let kept = [
        ("acme", *acme != new.acme),
        ("limits", limits != new.limits),
        ("trusted_proxies", trusted),
        ("paths", *normalisation != new.normalisation),
        ("admin.token", *admin_token != new.admin_token),
        ("access_log", *access_log != new.access_log),
        ("cache.handover", storage.handover != new.storage.handover),
        ("log.level", *log_level != new.log_level),
        ("the order of routes", is_reordered(old, new)),
    ];
    settings.extend(kept.into_iter().filter(|(_, differs)| *differs).map(|(key, _)| key));
    let fixed = [
        ("cache.memory", storage.memory != new.storage.memory),
        ("cache.zones", storage.zones != new.storage.zones),
        ("cache.eviction", storage.eviction != new.storage.eviction),
        ("cache.variants", storage.variants != new.storage.variants),
        ("admin", *admin != new.admin),
        ("admin.state_file", *state_file != new.state_file),
    ];
    let fixed = fixed.into_iter().filter(|(_, differs)| *differs);
    beyond.extend(fixed.map(|(key, _)| Beyond { key, needs: Needs::Upgrade }));

    let by_name = |plan: &Plan| -> HashMap<Arc<str>, usize> {
        let names = plan.upstreams.iter().map(|upstream| Arc::clone(&upstream.name));
        names.zip(0..).collect()
    };
    let places = by_name(new);
    // A route names its upstreams by their places, which differ from plan to plan.
    let place = |index: usize| places.get(&*upstreams.get(index)?.name).copied();
    let moved: Vec<Option<Route>> =
        routes.routes().iter().map(|route| route.placed(place)).collect();
    let same: Vec<Option<Route>> = new.routes.routes().iter().cloned().map(Some).collect();
    let changes = Changes {
        listeners: Names::between(
            listeners.iter().map(|one| (&*one.name, one)),
            new.listeners.iter().map(|one| (&*one.name, one)),
        ),
        certificates: Vec::new(),
        upstreams: Names::between(
            upstreams.iter().map(|one| (&*one.name, one)),
            new.upstreams.iter().map(|one| (&*one.name, one)),
        ),
        routes: Names::between(
            routes.routes().iter().zip(&moved).map(|(route, moved)| (&*route.name, moved)),
            new.routes.routes().iter().zip(&same).map(|(route, same)| (&*route.name, same)),
        ),
        settings,
    };
    Difference { changes, beyond }
}

fn of_processes(
    old: &Process,
    new: &Process,
    settings: &mut Vec<&'static str>,
    beyond: &mut Vec<Beyond>,
) {
    let Process {
        threads,
        state_dir,
        pid_file,
        user,
        group,
        working_directory,
        log_file,
        upgrade_socket,
        drain_timeout,
        watch,
    } = old;
    let upgrade = [
        ("process.threads", *threads != new.threads),
        ("process.state_dir", *state_dir != new.state_dir),
        ("process.pid_file", *pid_file != new.pid_file),
        ("process.user", *user != new.user),
        ("process.group", *group != new.group),
        ("process.working_directory", *working_directory != new.working_directory),
        ("process.log_file", *log_file != new.log_file),
    ];
    let upgrade = upgrade.into_iter().filter(|(_, differs)| *differs);
    beyond.extend(upgrade.map(|(key, _)| Beyond { key, needs: Needs::Upgrade }));
    if *upgrade_socket != new.upgrade_socket {
        // A new process would look for this one where it is not.
        beyond.push(Beyond { key: "process.upgrade_socket", needs: Needs::Restart });
    }
    if *drain_timeout != new.drain_timeout {
        settings.push("process.drain_timeout");
    }
    if *watch != new.watch {
        settings.push("process.watch");
    }
}

/// Whether routes that both plans have stand in another order, by which one of two that match wins.
fn is_reordered(old: &Plan, new: &Plan) -> bool {
    fn names(plan: &Plan) -> impl Iterator<Item = &str> {
        plan.routes.routes().iter().map(|route| &*route.name)
    }
    let before: HashMap<&str, usize> = names(old).zip(0..).collect();
    let places: Vec<usize> = names(new).filter_map(|name| before.get(name).copied()).collect();
    !places.is_sorted()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config;

    fn plan(text: &str) -> Plan {
        config::from_text(text, "test").expect("it is valid").plan
    }

    /// A configuration with these upstreams, and these routes that name one of them.
    fn with(upstreams: &[(&str, u32)], routes: &[(&str, &str)]) -> Plan {
        let mut text =
            "listeners: [{name: http, address: \"127.0.0.1:0\"}]\nupstreams:\n".to_owned();
        for (name, weight) in upstreams {
            text.push_str(&format!(
                "  {name}: {{addresses: [{{address: \"{name}:1\", weight: {weight}}}]}}\n"
            ));
        }
        text.push_str("routes:\n");
        for (name, upstream) in routes {
            text.push_str(&format!(
                "  - {{name: {name}, match: {{path: /{name}}}, upstream: {upstream}}}\n"
            ));
        }
        plan(&text)
    }

    fn names(names: &Names) -> [String; 3] {
        [&names.added, &names.removed, &names.changed].map(|names| names.join(" "))
    }

    #[test]
    fn nothing_differs_from_itself() {
        let text = std::fs::read_to_string("conf/reference.yaml").unwrap();
        let difference = between(&plan(&text), &plan(&text));
        assert_eq!(difference, Difference::default());
        assert_eq!(difference.changes.to_string(), "nothing changed");
    }

    #[test]
    fn what_came_went_and_changed_is_told_by_name() {
        let old = with(&[("a", 1), ("c", 1), ("d", 1)], &[("one", "c"), ("two", "d")]);
        let new = with(&[("b", 1), ("c", 2), ("d", 1)], &[("one", "c"), ("three", "b")]);
        let changes = between(&old, &new).changes;
        assert_eq!(names(&changes.upstreams), ["b", "a", "c"]);
        assert_eq!(names(&changes.routes), ["three", "two", ""]);
        assert!(changes.listeners.is_empty() && changes.settings.is_empty());
        assert_eq!(
            changes.to_string(),
            "upstreams added: b; upstreams removed: a; upstreams changed: c; routes added: three; \
             routes removed: two"
        );
    }

    #[test]
    fn a_route_is_not_changed_by_upstreams_that_come_before_its_own() {
        let old = with(&[("m", 1)], &[("one", "m")]);
        let new = with(&[("a", 1), ("m", 1)], &[("one", "m")]);
        assert!(between(&old, &new).changes.routes.is_empty());
        // Under the same place there is another one now.
        let other = with(&[("a", 1), ("m", 1)], &[("one", "a")]);
        assert_eq!(names(&between(&old, &other).changes.routes), ["", "", "one"]);
    }

    #[test]
    fn another_order_of_routes_is_a_change() {
        let one = with(&[("a", 1)], &[("x", "a"), ("y", "a")]);
        let other = with(&[("a", 1)], &[("y", "a"), ("new", "a"), ("x", "a")]);
        assert_eq!(between(&one, &other).changes.settings, ["the order of routes"]);
    }

    #[test]
    fn every_key_says_what_it_takes() {
        let base = "listeners: [{address: \"127.0.0.1:0\"}]\nupstreams: {a: {addresses: [\"a:1\"]}}\n\
                    routes: [{upstream: a}]\n";
        let difference = |more: &str| between(&plan(base), &plan(&format!("{base}{more}\n")));
        for (more, key, needs) in [
            ("process: {threads: 7}", "process.threads", Needs::Upgrade),
            ("process: {pid_file: /a}", "process.pid_file", Needs::Upgrade),
            ("process: {user: a}", "process.user", Needs::Upgrade),
            ("process: {upgrade_socket: /a}", "process.upgrade_socket", Needs::Restart),
            ("cache: {memory: 77MiB}", "cache.memory", Needs::Upgrade),
            ("cache: {zones: {a: {memory: 7MiB}}}", "cache.zones", Needs::Upgrade),
            ("cache: {eviction: lru}", "cache.eviction", Needs::Upgrade),
            ("admin: on", "admin", Needs::Upgrade),
        ] {
            assert_eq!(difference(more).beyond, [Beyond { key, needs }], "{more}");
        }
        for (more, key) in [
            ("process: {drain_timeout: 7s}", "process.drain_timeout"),
            ("process: {watch: true}", "process.watch"),
            ("limits: {connections: 77}", "limits"),
            ("trusted_proxies: [10.0.0.0/8]", "trusted_proxies"),
            ("paths: {merge_slashes: false}", "paths"),
            ("cache: {handover_time: 1s}", "cache.handover"),
            ("access_log: {to: \"off\"}", "access_log"),
            ("log: {level: debug}", "log.level"),
        ] {
            let Difference { changes, beyond } = difference(more);
            assert_eq!((changes.settings, beyond), (vec![key], vec![]), "{more}");
        }
    }

    fn some() -> impl Strategy<Value = Plan> {
        let upstreams = prop::collection::vec(1_u32..4, 1..5);
        let routes = prop::collection::vec((0_usize..6, any::<prop::sample::Index>()), 0..5);
        (upstreams, routes).prop_map(|(weights, routes)| {
            let all = ["u0", "u1", "u2", "u3", "u4"];
            let upstreams: Vec<(&str, u32)> = all.into_iter().zip(weights).collect();
            let mut named: Vec<(String, &str)> = vec![("always".to_owned(), "u0")];
            for (name, upstream) in routes {
                let name = format!("r{name}");
                if !named.iter().any(|(known, _)| *known == name) {
                    named.push((name, upstreams[upstream.index(upstreams.len())].0));
                }
            }
            let routes: Vec<(&str, &str)> = named.iter().map(|(n, u)| (&**n, *u)).collect();
            with(&upstreams, &routes)
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn the_way_back_adds_what_the_way_there_removed(one in some(), other in some()) {
            let there = between(&one, &other).changes;
            let back = between(&other, &one).changes;
            let sorted = |mut names: Vec<String>| { names.sort(); names };
            for (there, back) in
                [(there.upstreams, back.upstreams), (there.routes, back.routes)]
            {
                prop_assert_eq!(sorted(there.added), sorted(back.removed));
                prop_assert_eq!(sorted(there.removed), sorted(back.added));
                prop_assert_eq!(sorted(there.changed), sorted(back.changed));
            }
            prop_assert_eq!(between(&one, &one), Difference::default());
        }
    }
}

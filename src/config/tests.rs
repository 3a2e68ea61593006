mod defaults;
mod editors;
mod golden;
mod meaning;
mod planted;
mod reference;
mod secrets;
mod shipped;
mod warned;

use proptest::prelude::*;

use super::*;
use crate::config::schema::Config;

/// The same surroundings on every machine.
fn somewhere() -> Surroundings {
    Surroundings {
        folder: "/etc/edge".into(),
        file: Some("/etc/edge/edge.yaml".into()),
        state_dir: "/var/lib/edge".into(),
        cores: 4,
    }
}

/// Loads text without the machine's environment; `HOME_HOST` is the only variable.
fn load_text(text: &str, name: &str) -> Result<Loaded, Diagnostics> {
    let environment = |name: &str| (name == "HOME_HOST").then(|| "home.example".into());
    through(text, name, &somewhere(), &environment, Machine::Leave)
}

/// A configuration that is all right, for changing one thing.
fn config(text: &str) -> Loaded {
    let whole = format!("listeners: [{{address: \"127.0.0.1:8080\"}}]\n{text}");
    load_text(&whole, "t.yaml").unwrap_or_else(|found| panic!("{found}"))
}

fn listening() -> Config {
    let listener = schema::listen::Listener {
        address: "127.0.0.1:8080".to_owned(),
        ..schema::listen::Listener::default()
    };
    Config { listeners: vec![listener], ..Config::default() }
}

#[test]
fn a_configuration_put_together_in_code_takes_the_same_road() {
    let loaded = from_config(listening()).expect("a listener is enough");
    assert_eq!(loaded.plan.listeners.len(), 1);
    let found = from_config(Config::default()).expect_err("there is no listener");
    assert_eq!(found.all()[0].path, "listeners");
    assert_eq!(found.all()[0].line, None);
}

#[test]
fn what_is_shown_loads_again_as_the_same() {
    for config in [Config::default(), listening()] {
        let yaml = show(&config);
        let (mut document, mut found) = Document::parse(&yaml, "shown").expect("YAML");
        expand::expand_all(&mut document, &|_| None, &mut found);
        let again = read::read::<Config>(&mut document, &mut found);
        assert!(found.is_empty(), "{found}\n{yaml}");
        assert_eq!(again, Some(effective(&config)), "{yaml}");
    }
}

/// Text of every kind that YAML has an opinion about.
fn any_text() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-z${}:#&*!|>'\"%@`,? \\[\\]\n\t~é-]{0,12}",
        prop::sample::select(vec![
            "", "~", "null", "true", "yes", "off", "on", "auto", "1.10", "0x1f", "1e3", "present",
            "absent", "<<", "---", "- a", "a: b", "\u{85}", "\u{2028}", "\u{feff}", "a\\n",
        ])
        .prop_map(str::to_owned),
    ]
}

prop_compose! {
    fn any_config()(
        words in prop::collection::vec(any_text(), 10),
        numbers in prop::collection::vec(0_u32..100_000, 6),
        flags in prop::collection::vec(any::<bool>(), 8),
    ) -> Config {
        use schema::cache::Cache;
        use schema::cache::Key;
        use schema::cache::Query;
        use schema::route::Condition;
        use schema::route::Respond;
        use schema::route::Route;
        use schema::value::OrAuto;
        use schema::value::OrOff;
        use schema::value::Switch;
        use crate::units::ByteSize;
        use crate::units::Period;

        let word = |n: usize| words[n].clone();
        let period = |n: usize| Period(std::time::Duration::from_millis(numbers[n].into()));
        let mut config = listening();
        if flags[0] {
            config.process.threads = OrAuto::Is(numbers[0]);
            config.process.user = Some(word(0));
        }
        config.limits.header_bytes = ByteSize(numbers[1].into());
        config.limits.idle_timeout = period(2);
        config.trusted_proxies = vec![word(1)];
        config.listeners[0].tls = if flags[1] { Switch::On(Default::default()) } else { Switch::Off };
        let mut upstream = schema::upstream::Upstream { host: word(2), ..Default::default() };
        upstream.addresses.push(schema::upstream::Address {
            weight: numbers[3],
            ..schema::upstream::Address::new(word(3))
        });
        upstream.addresses.push(schema::upstream::Address::new(word(3)));
        config.upstreams.insert(word(4), upstream);
        let key = Key {
            query: Some(match (flags[2], flags[3]) {
                (false, false) => Query::All,
                (false, true) => Query::None,
                (true, false) => Query::Only(vec![word(5)]),
                (true, true) => Query::Except(vec![word(5), word(6)]),
            }),
            ..Key::default()
        };
        let cache = Cache {
            ttl: Some(if flags[4] { OrOff::Off } else { OrOff::Is(period(4)) }),
            key: flags[5].then_some(key),
            ..Cache::default()
        };
        let mut route = Route {
            name: Some(word(7)),
            respond: Some(Respond { body: word(8), ..Respond::default() }),
            cache: flags[6].then_some(Switch::On(cache)),
            timeout: flags[7].then_some(OrOff::Is(period(5))),
            ..Route::default()
        };
        let conditions = [
            Condition::Present,
            Condition::Absent,
            Condition::Exact(word(9)),
            Condition::Prefix(word(9)),
            Condition::Regex(word(9)),
        ];
        for (n, condition) in conditions.into_iter().enumerate() {
            route.matches.query.insert(format!("{n}{}", word(0)), condition);
        }
        config.routes.push(route);
        config
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn whatever_is_shown_is_read_as_the_same(config in any_config()) {
        let yaml = show(&config);
        let (mut document, mut found) =
            Document::parse(&yaml, "shown").map_err(|e| TestCaseError::fail(format!("{e}\n{yaml}")))?;
        expand::expand_all(&mut document, &|_| None, &mut found);
        let again = read::read::<Config>(&mut document, &mut found);
        prop_assert!(found.is_empty(), "{}\n{}", found, yaml);
        prop_assert_eq!(again, Some(effective(&config)), "{}", yaml);
    }

    #[test]
    fn no_text_makes_the_whole_way_panic(
        lines in prop::collection::vec(
            ("[ ]{0,6}", "(- )?", "(listeners|routes|match|tls|cache|key|query|upstream|[a-z]{1,4})",
             ": ?", "(on|off|auto|~|\\[\\]|\\{\\}|5s|\\$\\{A|[a-z0-9]{0,4}|)"),
            0..12,
        )
    ) {
        let text: String = lines.iter().map(|(a, b, c, d, e)| format!("{a}{b}{c}{d}{e}\n")).collect();
        if let Err(found) = load_text(&text, "t.yaml") {
            prop_assert!(found.errors() > 0);
            prop_assert!(!found.render(diagnostic::Style::Colour).is_empty());
        }
    }
}

#[test]
fn what_is_shown_of_routes_that_answer_by_themselves_is_not_warned_of() {
    let loaded = config(
        "defaults: {purge: {from: [10.0.0.0/8]}, timeout: 30s}\n\
         upstreams: {a: {addresses: [\"127.0.0.1:1\"]}}\n\
         routes:\n- {match: {path: /fixed}, respond: {status: 204}}\n\
         - {match: {path: /moved}, redirect: {to: /b}}\n- {match: {path: /a}, upstream: a}\n",
    );
    assert!(loaded.warnings.is_empty(), "{}", loaded.warnings);
    let yaml = show(&loaded.config);
    let again = load_text(&yaml, "shown").unwrap_or_else(|found| panic!("{found}\n{yaml}"));
    assert!(again.warnings.is_empty(), "{}\n{yaml}", again.warnings);
    let [fixed, moved, asks] = &again.config.routes[..] else { panic!("three routes") };
    assert!(fixed.cache.is_none() && moved.cache.is_none() && asks.cache.is_some());
    assert!(fixed.max_body.is_some() && moved.max_header.is_some() && asks.timeout.is_some());
}

#[test]
fn a_dollar_brace_survives_being_shown() {
    let mut config = listening();
    config.routes.push(schema::route::Route {
        respond: Some(schema::route::Respond {
            body: "${HOME} $${X} $".to_owned(),
            ..schema::route::Respond::default()
        }),
        ..schema::route::Route::default()
    });
    let loaded = load_text(&show(&config), "shown").expect("it loads");
    assert_eq!(loaded.config, effective(&config));
}

#[test]
fn a_file_that_is_not_there_or_not_text_is_told_with_its_name() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("edge.yaml");
    let found = load(&path).expect_err("it is not there");
    assert_eq!(found.all()[0].file, path.display().to_string());
    std::fs::write(&path, b"a: 1\nb: \xff\n").expect("written");
    let found = load(&path).expect_err("it is not UTF-8");
    assert_eq!(found.all()[0].message, "line 2 is not UTF-8");
}

/// A certificate for this host and its key, in PEM.
fn pair(host: &str) -> (String, String) {
    let made = rcgen::generate_simple_self_signed(vec![host.to_owned()]).expect("a certificate");
    (made.cert.pem(), made.signing_key.serialize_pem())
}

/// Where errors are, and what each says.
fn errors(found: &Diagnostics) -> Vec<(&str, Option<usize>, &str)> {
    let errors = found.all().iter().filter(|d| d.severity == Severity::Error);
    errors.map(|d| (d.path.as_str(), d.line, d.message.as_str())).collect()
}

#[test]
fn certificates_are_looked_for_beside_the_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("edge.yaml");
    let text = "listeners:\n  - address: \"127.0.0.1:8443\"\n    tls:\n      certificates:\n        \
                - {hosts: [A.org], certificate: a.pem, key: a.key}\n";
    std::fs::write(&path, text).expect("written");
    let (certificate, key) = pair("a.org");
    std::fs::write(folder.path().join("a.pem"), certificate).expect("written");
    let found = load(&path).expect_err("the key is not there");
    let told: Vec<&str> = errors(&found).iter().map(|(path, ..)| *path).collect();
    assert_eq!(told, ["listeners[0].tls.certificates[0].key"]);
    std::fs::write(folder.path().join("a.key"), key).expect("written");
    let loaded = load(&path).expect("both are there");
    let tls = loaded.plan.listeners[0].tls.as_ref().expect("TLS");
    let crate::tls::Source::Files { certificate, .. } = &tls.certificates[0].source else {
        panic!("files were written");
    };
    assert_eq!(certificate.file_name().and_then(|name| name.to_str()), Some("a.pem"));
    assert!(certificate.is_absolute());
}

#[test]
fn everything_that_this_machine_lacks_is_told_with_all_other_problems_at_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("edge.yaml");
    let text = "\
process: {user: no-such-user, group: no-such-group}
listeners:
  - address: \"127.0.0.1:8443\"
    tls:
      certificates:
        - {hosts: [a.org], certificate: a.pem, key: b.key}
        - {hosts: [b.org], certificate: nothing.pem, key: nothing.pem}
        - {hosts: [c.org], certificate: b.key, key: none.key}
upstreams:
  one:
    addresses: [\"one:443\"]
    tls: {ca: nothing.pem}
  two:
    addresses: [{address: \"two:443\", tls: {certificate: a.pem, key: b.key}}]
    tls: {certificate: nothing.pem, key: none.key}
routes:
  - upstream: onne
";
    std::fs::write(&path, text).expect("written");
    for (file, text) in
        [("a.pem", pair("a.org").0), ("b.key", pair("b.org").1), ("nothing.pem", String::new())]
    {
        std::fs::write(folder.path().join(file), text).expect("written");
    }
    let found = load(&path).expect_err("much is wrong");
    let expected = [
        ("process.user", 1, "there is no user \"no-such-user\""),
        ("process.group", 1, "there is no group \"no-such-group\""),
        ("listeners[0].tls.certificates[0].key", 6, "b.key: the private key does not belong"),
        ("listeners[0].tls.certificates[1].certificate", 7, "nothing.pem: contains no certificate"),
        ("listeners[0].tls.certificates[1].key", 7, "nothing.pem: contains no private key"),
        (
            "listeners[0].tls.certificates[2].certificate",
            8,
            "contains a private key and no certificate",
        ),
        ("listeners[0].tls.certificates[2].key", 8, "cannot read none.key"),
        ("upstreams.one.tls.ca", 12, "no certificate in "),
        ("upstreams.two.addresses[0].tls.key", 14, "b.key: the private key does not belong"),
        ("upstreams.two.tls.certificate", 15, "nothing.pem: contains no certificate"),
        ("upstreams.two.tls.key", 15, "cannot read none.key"),
        ("routes[0].upstream", 17, "unknown upstream \"onne\""),
    ];
    let errors = errors(&found);
    assert_eq!(errors.len(), expected.len(), "{found}");
    for (error, (path, line, part)) in errors.iter().zip(expected) {
        assert_eq!((error.0, error.1), (path, Some(line)), "{found}");
        assert!(error.2.contains(part), "{part}: {found}");
    }
    assert!(found.all().iter().all(|d| d.column.is_some()), "{found}");
}

#[test]
fn a_file_of_nothing_but_mistakes_ends_after_a_hundred() {
    let text: String = (0..300).map(|n| format!("mistake_{n}: 1\n")).collect();
    let found = load_text(&text, "t.yaml").expect_err("full of mistakes");
    assert_eq!(found.errors(), 100);
}

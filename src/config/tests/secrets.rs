//! Secrets: where they come from, and that nothing shows them.

use std::path::PathBuf;

use tempfile::TempDir;

use super::load_text;
use crate::config::Loaded;
use crate::config::diagnostic::Diagnostics;
use crate::config::load;
use crate::config::show;
use crate::route::HeaderRule;

const HEAD: &str = "listeners: [{address: \"127.0.0.1:8080\"}]\n\
                    upstreams: {a: {addresses: [\"a:80\"]}}\n";

/// A folder with this file, and a configuration beside it that sets a header by it.
fn with_file(content: Option<&[u8]>) -> (TempDir, Result<Loaded, Diagnostics>) {
    let folder = tempfile::tempdir().expect("a folder");
    if let Some(content) = content {
        std::fs::write(folder.path().join("token"), content).expect("written");
    }
    let path = folder.path().join("edge.yaml");
    let text = format!(
        "{HEAD}routes:\n  - upstream: a\n    headers: {{request: {{set: {{x-plain: \
         {{value_file: token}}}}}}}}\n"
    );
    std::fs::write(&path, text).expect("written");
    let loaded = load(&path);
    (folder, loaded)
}

#[test]
fn a_secret_is_what_its_file_holds_but_for_the_line_break_at_its_end() {
    for (content, expected) in [
        (&b"hunter2"[..], "hunter2"),
        (b"hunter2\n", "hunter2"),
        (b"hunter2\r\n", "hunter2"),
        (b"Bearer hunter2\n", "Bearer hunter2"),
    ] {
        let (_folder, loaded) = with_file(Some(content));
        let plan = loaded.unwrap_or_else(|found| panic!("{found}")).plan;
        let [HeaderRule::Set(name, value)] = &plan.routes.routes()[0].headers.request[..] else {
            panic!("one header is set");
        };
        assert_eq!((name.as_str(), value.as_bytes()), ("x-plain", expected.as_bytes()));
        assert!(value.is_sensitive());
        assert!(!format!("{plan:?}").contains("hunter2"));
    }
}

#[test]
fn a_file_that_gives_no_secret_is_an_error_with_its_place() {
    let large = vec![b'a'; (64 << 10) + 1];
    for (content, part) in [
        (None, "cannot take a secret from token: No such file"),
        (Some(&b""[..]), "it is empty"),
        (Some(b"\n"), "it is empty"),
        (Some(b"\xff"), "it is not UTF-8 text"),
        (Some(&large), "it is larger than 64 KiB"),
        (Some(b"hunter2\nhunter2\n"), "what token holds cannot be the value of a header"),
        (Some(b" hunter2"), "what token holds cannot be the value of a header"),
        (Some(b"hunter2\n\n"), "what token holds cannot be the value of a header"),
    ] {
        let (_folder, loaded) = with_file(content);
        let found = loaded.expect_err(part);
        let [problem] = found.all() else { panic!("{found}") };
        assert!(problem.message.contains(part), "{part}: {found}");
        assert_eq!(problem.path, "routes[0].headers.request.set.x-plain.value_file");
        assert_eq!((problem.line, problem.column), (Some(5), Some(53)), "{found}");
        assert!(!found.to_string().contains("hunter2"), "{found}");
    }
}

#[test]
fn a_folder_is_no_secret() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("edge.yaml");
    let text = format!(
        "{HEAD}routes: [{{upstream: a, headers: {{request: {{add: {{x-a: {{value_file: .}}}}}}}}}}]\n"
    );
    std::fs::write(&path, text).expect("written");
    let found = load(&path).expect_err("a folder is named");
    assert!(found.to_string().contains("it is not a file"), "{found}");
}

#[test]
fn what_checks_of_health_present_is_masked() {
    let text = "upstreams:\n  a:\n    addresses: [\"127.0.0.1:1\"]\n    health:\n      path: /h\n      \
                headers: {authorization: hunter2, x-a: plain}\nlisteners:\n  - address: \"127.0.0.1:0\"\n\
                routes: [{upstream: a}]\n";
    let loaded = load_text(text, "t.yaml").unwrap_or_else(|found| panic!("{found}"));
    let shown = show(&loaded.config);
    assert!(!shown.contains("hunter2") && shown.contains("x-a: plain"), "{shown}");
}

#[test]
fn what_is_shown_has_a_mask_for_every_secret_and_everything_else() {
    let text = format!(
        "{HEAD}routes:\n  - upstream: a\n    match:\n      headers: {{x-api-key: hunter2, x-v: plain}}\n      \
         query: {{token: {{prefix: hunter2}}, page: plain}}\n      \
         cookies: {{session: {{regex: hunter2}}, lang: plain}}\n    headers:\n      request:\n        \
         set: {{Authorization: hunter2, x-gateway: plain, x-auth: {{value_file: /run/a}}}}\n      \
         response:\n        add: {{Set-Cookie: hunter2, surrogate-key: plain}}\n  \
         - match: {{path: /b}}\n    respond: {{headers: {{x-token: hunter2, x-a: plain}}}}\n"
    );
    let loaded = load_text(&text, "t.yaml").unwrap_or_else(|found| panic!("{found}"));
    let shown = show(&loaded.config);
    assert!(!shown.contains("hunter2"), "{shown}");
    assert_eq!(shown.matches("\"***\"").count(), 6, "{shown}");
    assert_eq!(shown.matches(": plain").count(), 6, "{shown}");
    assert!(shown.contains("value_file: /run/a"), "{shown}");
    assert!(!format!("{:?}", loaded.config.routes[0].headers).contains("hunter2"));

    // The mask is no secret, and is not taken for one; with the secrets it is the same again.
    let found = load_text(&shown, "shown.yaml").expect_err("masks are no secrets");
    assert_eq!(found.errors(), 6, "{found}");
    let again = load_text(&shown.replace("***", "hunter2"), "shown.yaml");
    assert_eq!(show(&again.unwrap_or_else(|found| panic!("{found}")).config), shown);
}

#[test]
fn no_picture_of_a_line_shows_a_secret_that_stands_in_it() {
    let golden = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/secrets.yaml");
    let text = std::fs::read_to_string(golden).expect("it is there");
    let found = load_text(&text, "secrets.yaml").expect_err("it is full of mistakes");
    assert!(!found.to_string().contains("hunter2"), "{found}");
    assert!(!found.to_json().contains("hunter2"), "{found}");
}

#[test]
fn a_secret_of_the_wrong_shape_is_not_shown_either() {
    for wrong in [
        "headers: {request: {set: {proxy-authorization: [hunter2]}}}",
        "headers: {request: {set: {authorization: {valu: hunter2}}}}",
        "headers: {response: {add: {set-cookie: {value_file: [hunter2]}}}}",
        "match: {headers: {authorization: {regx: hunter2}}}",
        "match: {headers: {x-api-key: {exact: [hunter2], prefix: hunter2}}}",
        "match: {query: {token: {regex: \"hunter2(\"}}}",
        "match: {headers: {authorization: {regex: \"hunter2(?x)#\"}}}",
        "match: {cookies: {session: {regex: \"hunter2{999999}\"}}}",
        "match: {cookies: {session: hunter2, sesion: {exakt: a}}}",
        "match: {cookies: {session: \"hunter2 \n hunter2\", sesion: {exakt: a}}}",
        "match: {cookies: {session: hunter2, session: hunter2}}",
        "headers: {request: {set: {x-token: hunter2, x-token: hunter2}}}",
    ] {
        let text = format!("{HEAD}routes: [{{upstream: a, {wrong}}}]\n");
        let found = load_text(&text, "t.yaml").expect_err(wrong);
        assert!(!found.to_string().contains("hunter2"), "{found}");
        assert!(!found.to_json().contains("hunter2"), "{found}");
    }
}

#[test]
fn a_line_that_is_no_yaml_shows_nothing_of_a_secret_either() {
    for wrong in [
        "headers: {request: {set: {authorization: Bearer hunter2: a}}}",
        "headers: {request: {set: {\"x-api-key\" : !secret hunter2}}}",
        "match: {cookies: {session: hunter2}, cookies: {x: *a}}",
        "match: {é: 1, headers: {x-token: \"hunter2\\q\"}}",
    ] {
        let text = format!("{HEAD}routes: [{{upstream: a, {wrong}}}]\n");
        let found = load_text(&text, "t.yaml").expect_err(wrong);
        assert!(!found.to_string().contains("hunter2"), "{found}");
        assert!(found.to_string().contains("routes: [{upstream: a, "), "{found}");
    }
}

#[test]
fn a_token_of_the_wrong_shape_or_under_a_misspelt_key_is_not_shown() {
    for wrong in [
        "admin: {token: [hunter2]}",
        "admin: {token: {value: hunter2}}",
        "admin: {tokn: x, token: {a: [hunter2]}}",
        "admin: {tokne: hunter2}",
        "admin: {to: hunter2, token: 5}",
        "admin: {secret: hunter2}",
        "defaults: {purge: {token: [hunter2]}}",
        "defaults: {purge: {tokens: hunter2}}",
        "defaults: {purge: {from: 5, token: hunter2}}",
        "upstreams: {b: {addresses: [\"b:80\"], sticky: {key: [hunter2]}}}",
        "upstreams: {b: {addresses: [\"b:80\"], sticky: {kex: x, key: hunter2}}}",
        "upstreams: {b: {addresses: [\"b:80\"], sticky: {keys: 5, secret_key: hunter2}}}",
    ] {
        let text = format!("{HEAD}{wrong}\nroutes: [{{upstream: a}}]\n");
        let found = load_text(&text, "t.yaml").expect_err(wrong);
        assert!(!found.to_string().contains("hunter2"), "{found}");
        assert!(!found.to_json().contains("hunter2"), "{found}");
    }
    for (wrong, shown) in [
        ("admin: {tokn_file: /run/token}", "/run/token"),
        ("admin: {token: [\"${TOKEN}\"]}", "${TOKEN}"),
        ("admin: {adress: \"127.0.0.1:1\"}", "127.0.0.1:1"),
    ] {
        let text = format!("{HEAD}{wrong}\nroutes: [{{upstream: a}}]\n");
        let found = load_text(&text, "t.yaml").expect_err(wrong).to_string();
        assert!(found.contains(shown), "{found}");
    }
}

#[test]
fn the_key_of_a_sticky_cookie_is_written_or_in_a_file_and_not_short() {
    let yaml = |key: &str| {
        let head = HEAD.replace("[\"a:80\"]", &format!("[\"a:80\"], sticky: {{{key}}}"));
        format!("{head}routes: [{{upstream: a}}]\n")
    };
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("edge.yaml");
    std::fs::write(folder.path().join("long.key"), "hunter2 and some more\n").expect("written");
    std::fs::write(folder.path().join("short.key"), "hunter2\n").expect("written");
    let load = |key: &str| {
        std::fs::write(&path, yaml(key)).expect("written");
        load(&path)
    };
    let mut numbers = ["key_file: long.key", "key: hunter2 and some more"].map(|key| {
        let loaded = load(key).unwrap_or_else(|found| panic!("{found}"));
        assert!(!show(&loaded.config).contains("hunter2"), "{}", show(&loaded.config));
        let sticky = loaded.plan.upstreams[0].sticky.clone().expect("it is");
        assert!(!format!("{sticky:?}").contains("hunter2"));
        sticky.number("a:80")
    });
    numbers.sort_unstable();
    assert_eq!(numbers[0], numbers[1], "the same key");
    for (key, part, place) in [
        ("key: hunter2", "less than 16 bytes", "upstreams.a.sticky.key"),
        ("key_file: short.key", "less than 16 bytes", "upstreams.a.sticky.key_file"),
        ("key_file: no.key", "cannot take a secret from no.key", "upstreams.a.sticky.key_file"),
        (
            "key: hunter2 and more, key_file: long.key",
            "`key` is there too",
            "upstreams.a.sticky.key_file",
        ),
        ("key: \"\"", "the secret is empty", "upstreams.a.sticky.key"),
    ] {
        let found = load(key).expect_err(key);
        let [problem] = found.all() else { panic!("{found}") };
        assert!(problem.message.contains(part), "{part}: {found}");
        assert_eq!(problem.path, place);
        assert!(!found.to_string().contains("hunter2"), "{found}");
    }
}

#[test]
fn what_is_no_secret_stays_in_the_picture() {
    let text = format!(
        "{HEAD}routes: [{{upstrem: a, match: {{headers: {{authorization: present, x-v: plain}}}}}}]\n"
    );
    let found = load_text(&text, "t.yaml").expect_err("a key is misspelt").to_string();
    assert!(found.contains("authorization: present, x-v: plain"), "{found}");

    let text = format!("{HEAD}routes: [{{upstrem: a, match: {{cookies: {{sid: \"${{S}}\"}}}}}}]\n");
    let found = load_text(&text, "t.yaml").expect_err("a key is misspelt").to_string();
    assert!(found.contains("sid: \"${S}\""), "{found}");

    let text = format!(
        "{HEAD}routes:\n  - match:\n      cookies:\n        session: |\n          hunter2\n          \
         hunter2\n      hedders: {{x-v: plain}}\n    upstream: a\n"
    );
    let found = load_text(&text, "t.yaml").expect_err("a key is misspelt").to_string();
    assert!(found.contains("hedders: {x-v: plain}"), "{found}");
}

#[test]
fn a_redirect_shows_no_password_and_no_token_and_variables_by_their_names() {
    let text = "listeners: [{address: \"127.0.0.1:80\"}]\nroutes:\n\
                \x20 - redirect: {to: \"https://h/?token=t0ken&page=1\"}\n\
                \x20 - redirect: {to: \"https://h/${HOME_HOST}?x=1\"}\n";
    let loaded = load_text(text, "t.yaml").unwrap_or_else(|found| panic!("{found}"));
    let shown = crate::config::shown(&loaded);
    for part in ["https://h/?token=***&page=1", "https://h/${HOME_HOST}?x=1"] {
        assert!(shown.contains(part), "no {part} in {shown}");
    }
    assert!(!shown.contains("t0ken") && !shown.contains("home.example"), "{shown}");
    // Nobody runs what was shown with its masks in it.
    let found = load_text(&shown, "shown").map(|_| ()).expect_err("masks are no secrets");
    assert_eq!(found.errors(), 1, "{found}");
}

#[test]
fn a_redirect_with_variables_loads_again_as_the_same() {
    let text = "listeners: [{address: \"127.0.0.1:80\"}]\nroutes:\n\
                \x20 - redirect: {to: \"https://${HOME_HOST}{path}?{query}\"}\n";
    let loaded = load_text(text, "t.yaml").unwrap_or_else(|found| panic!("{found}"));
    let shown = crate::config::shown(&loaded);
    assert!(shown.contains("https://${HOME_HOST}{path}?{query}"), "{shown}");
    let again = load_text(&shown, "shown").unwrap_or_else(|found| panic!("{found}\n{shown}"));
    assert_eq!(again.config.routes[0].redirect, loaded.config.routes[0].redirect);
}

#[test]
fn secrets_in_urls_and_commands_are_not_shown() {
    let text = "listeners: [{address: \"127.0.0.1:80\"}]\n\
                acme: {directory: \"https://u:SEKRET@h/dir?key=SEKRET\", challenge: dns-01, dns: {command: [/x, --token, SEKRET]}}\n\
                upstreams: {a: {addresses: [\"a:1\"], health: {path: \"/h?token=SEKRET\"}}}\nroutes:\n\
                \x20 - {match: {path: /r}, respond: {status: 302, headers: {location: \"/x?token=SEKRET\"}}}\n\
                \x20 - {match: {path: /s}, redirect: {to: \"/x#token=SEKRET\"}}\n\
                \x20 - {upstream: a, headers: {response: {set: {location: \"/x?token=SEKRET\"}}}}\n";
    match load_text(text, "t.yaml") {
        Ok(loaded) => {
            let shown = crate::config::shown(&loaded);
            assert!(!shown.contains("SEKRET"), "{shown}");
            assert!(shown.contains("https://***@h/dir?key=***"), "{shown}");
        }
        Err(found) => panic!("{found}"),
    }
}

#[test]
fn secrets_in_urls_are_not_in_pictures_of_their_lines() {
    for line in [
        "routes: [{redirect: {to: \"https://{nope}/?api_key=SEKRET\"}}]",
        "upstreams: {a: {addresses: [\"http://u:SEKRET@x\"]}}\nroutes: [{upstream: a}]",
        "upstreams: {a: {addresses: [\"http://x/?token=SEKRET\"]}}\nroutes: [{upstream: a}]",
    ] {
        let text = format!("listeners: [{{address: \"127.0.0.1:80\"}}]\n{line}\n");
        let found = load_text(&text, "t.yaml").expect_err("it is wrong").to_string();
        assert!(!found.contains("SEKRET"), "{found}");
    }
}

#[test]
fn names_and_tokens_have_no_control_characters() {
    for (text, place) in [
        (
            "listeners: [{name: \"a\\nb\", address: \"127.0.0.1:80\"}]\nroutes: [{respond: {status: 204}}]",
            "listeners[0].name",
        ),
        (
            "listeners: [{address: \"127.0.0.1:80\"}]\nroutes: [{name: \"a\\eb\", respond: {status: 204}}]",
            "routes[0].name",
        ),
        (
            "listeners: [{address: \"127.0.0.1:80\"}]\nroutes: [{respond: {status: 204}}]\n\
             admin: {token: \"a\\nb\"}",
            "admin.token",
        ),
    ] {
        let found = load_text(text, "t.yaml").map(|_| ()).expect_err(place);
        let said = found.to_string();
        assert!(said.contains(place) && said.contains("control character"), "{said}");
        assert!(!said.contains('\u{1b}'), "{said}");
    }
}

#[test]
fn a_variable_in_quotes_can_stand_for_a_number_or_a_switch() {
    let text = "listeners: [{address: \"127.0.0.1:80\", h2c: \"${NO_H2C:-true}\"}]\n\
                limits: {connections: \"${NO_N:-77}\"}\n\
                routes: [{respond: {status: 200, body: \"${NO_BODY:-17}\"}}]\n";
    let loaded = load_text(text, "t.yaml").unwrap_or_else(|found| panic!("{found}"));
    assert_eq!(loaded.config.limits.connections, 77);
    assert!(loaded.config.listeners[0].h2c);
    assert_eq!(loaded.config.routes[0].respond.as_ref().map(|one| one.body.as_str()), Some("17"));
    // Beside other text it is text.
    let text = text.replace("${NO_N:-77}", "7${NO_N:-7}");
    let found = load_text(&text, "t.yaml").map(|_| ()).expect_err("that is text").to_string();
    assert!(found.contains("limits.connections"), "{found}");
}

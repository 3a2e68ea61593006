//! What a scanner of others' making finds at a listener.

use crate::harness::Edge;
use crate::harness::Origin;
use crate::harness::clients::sslscan;
use crate::harness::ok;

/// What sslscan says of each thing of this kind: its attributes, as they stand there.
fn found<'a>(scan: &'a str, element: &str) -> Vec<&'a str> {
    let begin = format!("<{element} ");
    let lines = scan.lines().map(str::trim);
    lines.filter_map(|line| line.strip_prefix(&*begin)?.strip_suffix("/>")).collect()
}

fn value<'a>(attributes: &'a str, name: &str) -> &'a str {
    let begin = format!("{name}=\"");
    let rest = attributes.split_once(&*begin).unwrap_or_else(|| panic!("{name}: {attributes}")).1;
    rest.split_once('"').expect("attributes are quoted").0
}

#[test]
fn a_scanner_finds_sound_versions_and_suites_and_no_old_flaws() {
    let origin = Origin::always(ok("hello"));
    for (min_version, versions) in [("1.2", &["1.2", "1.3"][..]), ("1.3", &["1.3"])] {
        let edge = Edge::with(&format!(
            "listeners:\n  - name: https\n    address: \"127.0.0.1:0\"\n    tls: {{min_version: \"{min_version}\", \
             certificates: [{{hosts: [edge.test], internal: true}}]}}\n\
             upstreams: {{origin: {{addresses: [\"{}\"]}}}}\nroutes: [{{upstream: origin}}]\n",
            origin.address
        ));
        let scan = sslscan(edge.address("https"), "edge.test");
        assert!(scan.well, "{}", scan.text);
        let text = scan.text.as_str();

        let protocols = found(text, "protocol");
        assert_eq!(protocols.len(), 6, "{text}");
        let spoken = protocols.iter().filter(|one| value(one, "enabled") != "0");
        let spoken: Vec<(&str, &str)> =
            spoken.map(|one| (value(one, "type"), value(one, "version"))).collect();
        let expected: Vec<(&str, &str)> = versions.iter().map(|one| ("tls", *one)).collect();
        assert_eq!(spoken, expected, "{text}");

        let suites = found(text, "cipher");
        assert_eq!(suites.len(), 3 * versions.len(), "{text}");
        for suite in suites {
            // It calls those of TLS 1.3 acceptable, all of them.
            assert!(["strong", "acceptable"].contains(&value(suite, "strength")), "{suite}");
            let name = value(suite, "cipher");
            let is_sealed = name.contains("GCM")
                || name.contains("CHACHA20_POLY1305")
                || name.contains("CHACHA20-POLY1305");
            let is_forward = name.starts_with("TLS_") || name.starts_with("ECDHE-");
            assert!(is_sealed && is_forward, "{suite}");
        }
        for (flaw, attribute) in [
            ("heartbleed", "vulnerable"),
            ("renegotiation", "supported"),
            ("compression", "supported"),
        ] {
            let said = found(text, flaw);
            assert!(said.iter().all(|one| value(one, attribute) == "0"), "{flaw}: {text}");
            // Debian's OpenSSL has no compression, and then nothing is said of it.
            assert!(!said.is_empty() || flaw == "compression", "{flaw}: {text}");
        }
        for group in found(text, "group") {
            assert!(value(group, "bits").parse::<u32>().is_ok_and(|bits| bits >= 128), "{group}");
        }
    }
}

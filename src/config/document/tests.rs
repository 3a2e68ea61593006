use super::builder::MAX_DEPTH;
use super::*;
use proptest::prelude::*;

fn parse(text: &str) -> Document {
    let (document, problems) = Document::parse(text, "t.yaml").expect("this is YAML");
    assert!(problems.is_empty(), "{problems}");
    document
}

fn refuse(text: &str) -> Diagnostic {
    let problems = match Document::parse(text, "t.yaml") {
        Ok((_, problems)) | Err(problems) => problems,
    };
    problems.all().first().expect("something is wrong").clone()
}

fn path(keys: &[&str]) -> Path {
    keys.iter().fold(Path::root(), |path, key| match key.parse() {
        Ok(index) => path.index(index),
        Err(_) => path.key(*key),
    })
}

#[test]
fn every_value_knows_its_line_column_and_width() {
    let document = parse("a:\n  - b: one\n    c: \"two\"\n");
    let place = document.locate(&path(&["a", "0", "b"]));
    assert_eq!(place, Some(Place { line: 2, column: 7, width: 3, last_line: 2 }));
    let place = document.locate(&path(&["a", "0", "c"]));
    assert_eq!(place, Some(Place { line: 3, column: 7, width: 5, last_line: 3 }));
}

#[test]
fn a_missing_value_is_placed_at_the_nearest_thing_around_it() {
    let document = parse("a:\n  b: 1\n");
    let place = document.locate(&path(&["a", "x", "y"]));
    assert_eq!(place, Some(Place { line: 1, column: 0, width: 1, last_line: 1 }));
    assert_eq!(document.locate(&path(&["x"])), None);
}

#[test]
fn a_key_is_found_beside_its_value() {
    let document = parse("alpha: beta\n");
    let place = document.locate_key(&path(&["alpha"]));
    assert_eq!(place, Some(Place { line: 1, column: 0, width: 5, last_line: 1 }));
}

#[test]
fn a_key_written_twice_is_told_with_both_places_and_the_first_one_counts() {
    let text = "a:\n  k: 1\n  l: 2\n  k: 3\n";
    let (document, problems) = Document::parse(text, "t.yaml").expect("this is YAML");
    let problem = &problems.all()[0];
    assert_eq!(problem.message, "the key \"k\" is written twice");
    assert_eq!((problem.line, problem.column), (Some(4), Some(3)));
    assert_eq!(problem.path, "a.k");
    assert_eq!(problem.help.as_deref(), Some("it first stands on line 2, column 3"));
    let texts: Vec<&Value> = document.scalars().iter().map(|id| document.value(*id)).collect();
    assert!(!texts.contains(&&Value::Scalar { text: "3".into(), quoted: false }));
}

#[test]
fn the_same_key_in_two_mappings_is_no_duplicate() {
    parse("- {k: 1}\n- {k: 2}\n");
}

#[test]
fn broken_syntax_has_a_position() {
    let problem = refuse("a: [1, 2\nb: 3\n");
    assert!(problem.message.starts_with("this is not YAML"), "{}", problem.message);
    assert!(problem.line.is_some());
}

#[test]
fn a_variable_without_quotes_among_braces_is_advised_to_have_them() {
    let problem = refuse("process: {user: ${NAME}}\n");
    assert!(problem.help.unwrap_or_default().contains("\"${NAME}\""));
    let other = refuse("a: [1, 2\nb: 3\n").help.unwrap_or_default();
    assert!(other.starts_with("more may be wrong in `a`"), "{other}");
    let whole = refuse("[1, 2").help.unwrap_or_default();
    assert!(whole.starts_with("more may be wrong: "), "{whole}");
}

#[test]
fn a_section_that_is_no_yaml_is_told_and_the_others_are_read_on() {
    let text = "a: {k: 1}\nb: [1, 2\nc: {l: 2, l: 3}\nd:\n  - \"x\n  - y\ne: 1\n";
    let (document, problems) = Document::parse(text, "t.yaml").expect("the rest is YAML");
    let told: Vec<_> = problems.all().iter().map(|one| (one.path.as_str(), one.line)).collect();
    assert_eq!(told, [("b", Some(2)), ("d", Some(5)), ("c.l", Some(3))], "{problems}");
    let help = problems.all()[0].help.clone().unwrap_or_default();
    assert!(help.contains("more may be wrong in `b`"), "{help}");
    for (key, is_lost) in [("a", false), ("b", true), ("c", false), ("d", true), ("e", false)] {
        assert_eq!(document.is_lost(&path(&[key])), is_lost, "{key}");
        assert_eq!(document.exactly(&path(&[key])).is_none(), is_lost, "{key}");
    }
}

#[test]
fn an_alias_of_another_section_is_no_reason_to_leave_its_own_out() {
    let (document, problems) =
        Document::parse("a: &x {k: 1}\nb: [1, 2\nc: *x\n", "t.yaml").expect("the rest is YAML");
    assert_eq!(problems.all().len(), 1, "{problems}");
    assert!(document.exactly(&path(&["c", "k"])).is_some());
}

#[test]
fn an_alias_stands_for_a_copy_with_a_path_of_its_own() {
    let document = parse("a: &x {k: 1}\nb: *x\n");
    let id = document.find(path(&["b", "k"]).steps());
    assert_eq!(document.path(id).to_string(), "b.k");
    assert_eq!(document.place(id).line, 1);
}

#[test]
fn aliases_cannot_blow_up() {
    let mut text = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for n in 1..12 {
        let inner = format!("*a{}", n - 1);
        text.push_str(&format!("a{n}: &a{n} [{}]\n", vec![inner; 10].join(", ")));
    }
    assert!(refuse(&text).message.contains("more than"));
}

#[test]
fn an_alias_within_its_own_anchor_is_refused() {
    assert!(refuse("a: &x [1, *x]\n").message.contains("alias"));
}

#[test]
fn merge_keys_add_what_the_mapping_does_not_have() {
    let document = parse("base: &b {k: 1, l: 2}\nown: {<<: *b, k: 3}\n");
    let id = document.find(path(&["own", "k"]).steps());
    assert_eq!(document.value(id), &Value::Scalar { text: "3".into(), quoted: false });
    let id = document.find(path(&["own", "l"]).steps());
    assert_eq!(document.value(id), &Value::Scalar { text: "2".into(), quoted: false });
}

#[test]
fn a_quoted_merge_key_is_a_key() {
    let document = parse("own: {\"<<\": {k: 1}}\n");
    let id = document.find(path(&["own", "<<", "k"]).steps());
    assert_eq!(document.path(id).to_string(), "own[\"<<\"].k");
}

#[test]
fn nesting_ends_at_the_limit() {
    let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    parse(&nested(MAX_DEPTH));
    assert!(refuse(&nested(MAX_DEPTH + 1)).message.contains("levels deep"));
}

#[test]
fn a_file_may_be_four_mebibytes_and_not_a_byte_more() {
    let fits = format!("# {}\n", "x".repeat(MAX_BYTES - 3));
    assert_eq!(fits.len(), MAX_BYTES);
    parse(&fits);
    assert!(refuse(&format!("{fits}\n")).message.contains("larger than 4 MiB"));
}

#[test]
fn a_second_document_is_refused() {
    let problem = refuse("a: 1\n---\nb: 2\n");
    assert_eq!(problem.line, Some(2));
}

#[test]
fn tags_and_complex_keys_are_refused() {
    assert!(refuse("a: !secret x\n").message.contains("tags"));
    assert!(refuse("? [a, b]\n: c\n").message.contains("plain text"));
}

#[test]
fn an_empty_file_is_nothing_and_a_byte_order_mark_is_not_text() {
    assert_eq!(parse("").value(NodeId(0)), &Value::Null);
    let document = parse("\u{feff}a: 1\n");
    assert_eq!(document.locate(&path(&["a"])).map(|place| place.line), Some(1));
    assert!(
        matches!(document.value(document.root()), Value::Map(entries) if entries[0].key == "a")
    );
}

#[test]
fn a_quoted_null_is_text() {
    let document = parse("a: \"null\"\nb: null\n");
    assert_eq!(document.scalars().len(), 1);
}

#[test]
fn an_element_that_is_cut_leaves_its_siblings_their_numbers() {
    let mut document = parse("a: [x, y, z]\n");
    let id = document.find(path(&["a", "1"]).steps());
    assert!(document.cut(id));
    assert!(document.is_broken(&path(&["a", "1"])));
    assert!(!document.is_broken(&path(&["a", "2"])));
    assert_eq!(document.path(document.find(path(&["a", "2"]).steps())).to_string(), "a[2]");
    assert!(document.cut(id), "empty was wrong too");
    let text = |document: &Document, n: &str| match document
        .value(document.find(path(&["a", n]).steps()))
    {
        Value::Scalar { text, .. } => text.clone(),
        other => format!("{other:?}"),
    };
    assert_eq!(text(&document, "1"), "x", "it is as a sibling is");
    assert!(document.cut(id));
    assert_eq!(text(&document, "1"), "z", "and then as another is");
    assert!(document.cut(id), "there is none that is right");
    assert!(document.is_skipped(id));
    assert!(!document.cut(id), "nothing is left to take out");
}

#[test]
fn a_section_has_lost_a_key_when_it_was_wrong_or_one_that_nobody_knows_was_in_its_place() {
    let text = "a: {known: 1, strange: 2}\nb: {known: 1, strange: 2}\n";
    let mut document = parse(text);
    document.cut(document.find(path(&["a", "known"]).steps()));
    assert!(document.has_lost_key(&path(&["a"]), &["known"]));
    assert!(!document.has_lost_key(&path(&["a"]), &["other"]), "a known key is no misspelt one");
    document.cut_entry(document.find(path(&["b"]).steps()), 1);
    assert!(document.has_lost_key(&path(&["b"]), &["other"]), "it may be `other`, misspelt");
    assert!(!document.has_lost_key(&path(&["b"]), &["known"]), "that one is there");
    document.cut(document.find(path(&["b"]).steps()));
    assert!(document.has_lost_key(&path(&["b"]), &["known"]), "with all of the section");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn no_text_makes_the_parser_panic(text in "[-:?\\[\\]{}#&*!|>'\"%@` \n\ta-c0-9,<~]{0,80}") {
        if let Ok((document, _)) = Document::parse(&text, "t.yaml") {
            for id in document.scalars() {
                let path = document.path(id);
                prop_assert!(document.locate(&path).is_none_or(|place| place.line >= 1));
            }
        }
    }
}

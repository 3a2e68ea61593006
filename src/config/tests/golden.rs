//! Configurations and the exact words with which they are answered. `BLESS=1` writes them anew.

use std::path::PathBuf;

use super::load_text;
use crate::config::diagnostic::Style;

#[test]
fn every_mistake_is_answered_word_for_word() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let bless = std::env::var_os("BLESS").is_some_and(|value| value == "1");
    let mut wrong = Vec::new();
    let mut mute = Vec::new();
    let mut seen = 0;
    for entry in std::fs::read_dir(&folder).expect("the folder is there") {
        let path = entry.expect("readable").path();
        if path.extension().is_none_or(|extension| extension != "yaml") {
            continue;
        }
        seen += 1;
        let name = path.file_name().expect("a file has a name").to_string_lossy().into_owned();
        let text = std::fs::read_to_string(&path).expect("readable");
        let (found, end) = match load_text(&text, &name) {
            Ok(loaded) => (loaded.warnings, "accepted\n"),
            Err(found) => (found, ""),
        };
        let answer = found.render(Style::Plain) + end;
        let helpless = found.all().iter().filter(|one| one.help.is_none());
        mute.extend(helpless.map(|one| format!("{name}: {}", one.message)));
        let expected = path.with_extension("txt");
        if bless {
            std::fs::write(&expected, &answer).expect("writable");
        } else if std::fs::read_to_string(&expected).ok().as_deref() != Some(answer.as_str()) {
            wrong.push(format!("── {name} ──\n{answer}"));
        }
    }
    assert!(seen >= 20, "only {seen} golden files");
    assert!(mute.is_empty(), "nothing is said of what to do:\n{}", mute.join("\n"));
    assert!(wrong.is_empty(), "{}\n(BLESS=1 takes these over)", wrong.join("\n"));
}

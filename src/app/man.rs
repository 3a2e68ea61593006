//! The manual page.

use std::io;

use clap::Command;
use clap::CommandFactory;
use clap_mangen::Man;

use crate::app::cli::Cli;
use crate::app::cli::EXAMPLES;

/// The page, in the language of `man`.
pub(crate) fn page() -> io::Result<String> {
    let command = Cli::command();
    let man = Man::new(command.clone());
    let mut out = Vec::new();
    man.render_title(&mut out)?;
    man.render_name_section(&mut out)?;
    man.render_synopsis_section(&mut out)?;
    man.render_description_section(&mut out)?;
    man.render_options_section(&mut out)?;
    let mut page = String::from_utf8_lossy(&out).into_owned();
    page.push_str(&verbs(&command));
    page.push_str(&sections(EXAMPLES));
    Ok(page)
}

/// What may be done. There is one page for all of it, and so no reference to others.
fn verbs(command: &Command) -> String {
    let mut out =
        String::from(".SH COMMANDS\nEach has help of its own: edgeproxy COMMAND \\-\\-help\n");
    for verb in command.get_subcommands() {
        let about = verb.get_about().map(ToString::to_string).unwrap_or_default();
        out.push_str(&format!(".TP\n\\fB{}\\fR\n{}\n", verb.get_name(), line(&about)));
    }
    out
}

/// Sections with a title each, as they stand: their columns mean something.
fn sections(text: &str) -> String {
    let mut out = String::new();
    for section in text.split("\n\n") {
        let (title, body) = section.split_once('\n').unwrap_or((section, ""));
        let title = title.trim_end_matches(':').to_uppercase();
        out.push_str(&format!(".SH \"{title}\"\n.EX\n"));
        for each in body.lines() {
            out.push_str(&line(each));
            out.push('\n');
        }
        out.push_str(".EE\n");
    }
    out
}

/// One line of text in which nothing is a command of `man`, and hyphens can be copied.
fn line(text: &str) -> String {
    let escaped = text.replace('\\', "\\e").replace('-', "\\-");
    if escaped.starts_with(['.', '\'']) { format!("\\&{escaped}") } else { escaped }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn examples_keep_their_columns() {
        let out = sections("Examples:\n  a -b   one\n.c\n\nExit codes:\n  0 fine");
        let expected = ".SH \"EXAMPLES\"\n.EX\n  a \\-b   one\n\\&.c\n.EE\n\
                        .SH \"EXIT CODES\"\n.EX\n  0 fine\n.EE\n";
        assert_eq!(out, expected);
    }

    #[test]
    fn a_line_is_never_a_command() {
        assert_eq!(line("'a\\b"), "\\&'a\\eb");
    }
}

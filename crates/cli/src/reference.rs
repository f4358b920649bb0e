//! The reference of the command line, `docs/cli.md`, made of the help texts; a test keeps the file
//! as it would be made today.

use std::fmt::Write as _;

use clap::{Command, CommandFactory};

use crate::args::Cli;

/// Columns of a help text.
const WIDTH: usize = 100;

fn reference() -> String {
    let mut root = Cli::command().term_width(WIDTH).disable_help_subcommand(true);
    root.build();
    let mut text = String::from(
        "# The command line\n\nMade of the help texts. After a change of them, \
         `UPDATE_CLI_REFERENCE=1 cargo nextest run -p lacewing reference` writes this file again.\n",
    );
    section(&mut root, &mut text);
    let mut verbs: Vec<Command> = root.get_subcommands().cloned().collect();
    for verb in verbs.iter_mut().filter(|verb| !verb.is_hide_set()) {
        // The option of every command is told once, with the root.
        let mut own = verb.clone().term_width(WIDTH).mut_arg("output", |arg| arg.hide(true));
        section(&mut own, &mut text);
    }
    text
}

fn section(command: &mut Command, text: &mut String) {
    let name = command.get_bin_name().unwrap_or_else(|| command.get_name()).to_owned();
    let help = command.render_long_help().to_string();
    let lines: Vec<&str> = help.lines().map(str::trim_end).collect();
    let help = lines.join("\n");
    writeln!(text, "\n## `{name}`\n\n```text\n{}\n```", help.trim_end())
        .expect("writing to a string cannot fail");
}

#[test]
fn the_reference_is_up_to_date() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/cli.md");
    let made = reference();
    if std::env::var_os("UPDATE_CLI_REFERENCE").is_some() {
        std::fs::write(path, &made).unwrap();
    }
    let kept = std::fs::read_to_string(path).unwrap_or_default();
    assert!(kept == made, "docs/cli.md is out of date: UPDATE_CLI_REFERENCE=1 makes it anew");
}

#[test]
fn the_command_line_is_consistent() {
    Cli::command().debug_assert();
}

//! What commands print: results on stdout, as text for people or as JSON for programs.
//!
//! Nothing else in this crate writes to stdout. Progress is for stderr, and only when that is a
//! terminal.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use comfy_table::{ContentArrangement, Table, presets};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

use crate::error::{Error, Result};

/// How results are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// For people.
    Text,
    /// One JSON document, or one a line where results come one by one.
    Json,
}

/// The printer of one command.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Output {
    pub(crate) format: Format,
}

impl Output {
    /// Prints `value` as JSON, or what `text` makes of it.
    pub(crate) fn show<T: Serialize>(
        self,
        value: &T,
        text: impl FnOnce(&T) -> String,
    ) -> Result<()> {
        let printed = match self.format {
            Format::Json => serde_json::to_string_pretty(value)
                .map_err(|error| Error::bug("cannot write a result as JSON").caused_by(&error))?,
            Format::Text => text(value),
        };
        self.line(&printed)
    }

    /// Prints one of many results: a line of JSON, or of text.
    pub(crate) fn row<T: Serialize>(
        self,
        value: &T,
        text: impl FnOnce(&T) -> String,
    ) -> Result<()> {
        let printed = match self.format {
            Format::Json => serde_json::to_string(value)
                .map_err(|error| Error::bug("cannot write a result as JSON").caused_by(&error))?,
            Format::Text => text(value),
        };
        self.line(&printed)
    }

    /// Prints a line; nothing when `text` is empty.
    pub(crate) fn line(self, text: &str) -> Result<()> {
        if text.is_empty() {
            return Ok(());
        }
        let mut stdout = anstream::stdout();
        stdout.write_all(text.trim_end_matches('\n').as_bytes())?;
        stdout.write_all(b"\n")?;
        Ok(stdout.flush()?)
    }

    /// Writes bytes as they are, and a line feed when a person looks on.
    pub(crate) fn bytes(self, bytes: &[u8]) -> Result<()> {
        let mut stdout = std::io::stdout();
        stdout.write_all(bytes)?;
        if stdout.is_terminal() && !bytes.ends_with(b"\n") {
            stdout.write_all(b"\n")?;
        }
        Ok(stdout.flush()?)
    }

    /// Writes a part of something at once, as it is.
    pub(crate) fn piece(self, bytes: &[u8]) -> Result<()> {
        let mut stdout = std::io::stdout();
        stdout.write_all(bytes)?;
        Ok(stdout.flush()?)
    }

    /// Says something to the person at the terminal, beside the result.
    pub(crate) fn note(self, text: &str) {
        let _unwritable = writeln!(anstream::stderr(), "{text}");
    }

    /// A bar over `total` bytes on stderr; invisible when that is no terminal.
    pub(crate) fn bytes_bar(self, what: &'static str, total: u64) -> ProgressBar {
        let style = ProgressStyle::with_template("{msg:10} {bar:30} {bytes}/{total_bytes}")
            .expect("the template is valid");
        let bar = ProgressBar::with_draw_target(Some(total), draw_target()).with_style(style);
        bar.set_message(what);
        bar
    }

    /// A spinner on stderr; invisible when that is no terminal.
    pub(crate) fn spinner(self, what: impl Into<String>) -> ProgressBar {
        let bar = ProgressBar::with_draw_target(None, draw_target());
        bar.set_message(what.into());
        bar.enable_steady_tick(Duration::from_millis(100));
        bar
    }
}

fn draw_target() -> ProgressDrawTarget {
    if std::io::stderr().is_terminal() {
        ProgressDrawTarget::stderr()
    } else {
        ProgressDrawTarget::hidden()
    }
}

/// A plain table: a head, and columns apart by spaces.
pub(crate) fn table<const N: usize>(head: [&str; N], rows: Vec<[String; N]>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(head);
    table.add_rows(rows);
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_a_head_and_aligned_columns() {
        let rows = vec![["hello".to_owned(), "1".to_owned()], ["a".to_owned(), "22".to_owned()]];
        assert_eq!(table(["NAME", "N"], rows), "NAME   N\nhello  1\na      22");
    }
}

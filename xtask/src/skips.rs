//! What the Rust tests left out on this machine, and why, from the report that nextest writes: for
//! cargo such a test has passed, and nobody reads the output of a test that passed.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::process::{say, target};

fn report() -> Result<PathBuf> {
    Ok(target()?.join("tests.xml"))
}

/// Writes the configuration that makes nextest report what passing tests print, and gives the
/// argument for it. It lies beside the report, outside the clone.
pub(crate) fn reporting() -> Result<String> {
    let config = target()?.join("tests.toml");
    let report = serde_json::to_string(&report()?)?;
    let text = format!("[profile.ci.junit]\npath = {report}\nstore-success-output = true\n");
    std::fs::write(&config, text).with_context(|| config.display().to_string())?;
    Ok(format!("--tool-config-file=xtask:{}", config.display()))
}

/// Prints each reason and how many tests gave it.
pub(crate) fn tell() -> Result<()> {
    let path = report()?;
    let report = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let skips = skips(&report);
    say(&format!("=== Rust tests left out on this machine: {}", skips.values().sum::<u32>()));
    for (why, number) in skips {
        say(&format!("SKIPPED [{number}] {why}"));
    }
    Ok(())
}

/// The reasons that tests printed as `skipped: REASON`.
fn skips(report: &str) -> BTreeMap<String, u32> {
    let mut skips = BTreeMap::new();
    for line in report.lines() {
        if let Some((_, why)) = line.split_once("skipped: ") {
            let why = why.split("</system-").next().unwrap_or(why);
            *skips.entry(plain(why)).or_default() += 1;
        }
    }
    skips
}

/// Text of XML as it was; the ampersand comes last, for it makes no other entity.
fn plain(text: &str) -> String {
    let entities =
        [("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&apos;", "'"), ("&amp;", "&")];
    entities.iter().fold(text.to_owned(), |text, (entity, it)| text.replace(entity, it))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_counted_as_they_were_printed() {
        let report = "<testcase name=\"a\"><system-out>running 1 test\n\
                      test a ... skipped: no &quot;ip&quot; &amp; no root\nok</system-out>\n\
                      <system-err></system-err></testcase>\n\
                      <testcase name=\"b\"><system-out></system-out>\n\
                      <system-err>skipped: no &quot;ip&quot; &amp; no root</system-err></testcase>\n\
                      <testcase name=\"skipped\"><system-out>test skipped ... ok</system-out>";
        let expected = BTreeMap::from([("no \"ip\" & no root".to_owned(), 2)]);
        assert_eq!(skips(report), expected);
    }
}

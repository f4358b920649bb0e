//! `lacewing env`

use std::collections::BTreeMap;

use crate::args::Remote;
use crate::connection::{self, Connection, process_environment};
use crate::error::{Error, Result};
use crate::output::Output;

/// Variables that would win over those that are set here
/// (<https://docs.aws.amazon.com/sdkref/latest/guide/settings-reference.html>).
const IN_THE_WAY: [&str; 8] = [
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_PROFILE",
    "AWS_DEFAULT_PROFILE",
    "AWS_ENDPOINT_URL_LAMBDA",
    "AWS_ENDPOINT_URL_STS",
    "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS",
];

/// Print what points the AWS tools at the server
///
/// For example: `eval "$(lacewing env)"`, then `aws lambda list-functions`
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Whose syntax to print
    #[arg(long, value_enum, default_value_t = Shell::Bash, value_name = "SHELL")]
    shell: Shell,
    #[command(flatten)]
    remote: Remote,
}

/// A shell's syntax.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Shell {
    /// bash, zsh, sh and their like
    Bash,
    /// fish
    Fish,
}

#[derive(Debug)]
struct Variables {
    set: Vec<(&'static str, String)>,
    unset: Vec<&'static str>,
}

pub(crate) fn run(args: &Args, output: Output) -> Result<()> {
    let dir = connection::data_directory(&args.remote)
        .ok_or_else(|| Error::user("no data directory was found").hint("give --data-dir"))?;
    let dir = std::path::absolute(&dir)
        .map_err(|error| Error::user("the data directory is no path").caused_by(&error))?;
    let of_directory = Remote { data_dir: Some(dir.clone()), ..args.remote.clone() };
    let left = |name: &str| process_environment(name).filter(|_| !IN_THE_WAY.contains(&name));
    let found = Connection::find(&of_directory, &left)?;
    let region = found.region.to_string();
    let file = lacewing_node::data_dir::credentials_file(&dir).display().to_string();
    let mut set = vec![
        ("AWS_SHARED_CREDENTIALS_FILE", file),
        ("AWS_ENDPOINT_URL", found.endpoint),
        ("AWS_REGION", region.clone()),
        ("AWS_DEFAULT_REGION", region),
    ];
    set.extend(args.remote.profile.clone().map(|profile| ("AWS_PROFILE", profile)));
    let variables = Variables {
        set,
        unset: IN_THE_WAY.into_iter().filter(|name| process_environment(name).is_some()).collect(),
    };
    let document: BTreeMap<_, _> = variables.set.iter().cloned().collect();
    output.show(&document, |_| text(&variables, args.shell))
}

fn text(variables: &Variables, shell: Shell) -> String {
    let unset = variables.unset.iter().map(|name| match shell {
        Shell::Bash => format!("unset {name}"),
        Shell::Fish => format!("set -e {name}"),
    });
    let set = variables.set.iter().map(|(name, value)| match shell {
        Shell::Bash => format!("export {name}={}", quoted(value, "'\\''")),
        Shell::Fish => format!("set -gx {name} {}", quoted(&value.replace('\\', "\\\\"), "\\'")),
    });
    unset.chain(set).collect::<Vec<_>>().join("\n")
}

fn quoted(value: &str, apostrophe: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/:.-_".contains(c);
    if value.chars().all(plain) {
        return value.to_owned();
    }
    format!("'{}'", value.replace('\'', apostrophe))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_quoted_for_the_shell() {
        let variables = Variables {
            set: vec![("A", "/it's".to_owned()), ("B", "/x".to_owned())],
            unset: vec!["C"],
        };
        assert_eq!(text(&variables, Shell::Bash), "unset C\nexport A='/it'\\''s'\nexport B=/x");
        assert_eq!(text(&variables, Shell::Fish), "set -e C\nset -gx A '/it\\'s'\nset -gx B /x");
    }
}

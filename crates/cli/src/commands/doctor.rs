//! `lacewing doctor`

use lacewing_node::{Config, Settings, probe};
use serde_json::{Value, json};

use crate::args::Remote;
use crate::client::Client;
use crate::commands::{runtimes, serve};
use crate::error::{Error, Result};
use crate::output::{Output, table};

/// Say what isolation is in force, what is missing, and what to do about it
///
/// Asks the server; when none answers it looks for itself at what this host and this user can give.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Look for yourself, even when a server answers
    #[arg(long, conflicts_with_all = ["endpoint", "region", "profile"])]
    here: bool,
    #[command(flatten)]
    remote: Remote,
}

pub(crate) async fn run(args: Args, output: Output) -> Result<()> {
    let (source, mut document) = if args.here {
        ("this host, without a server".to_owned(), looked(&args.remote)?)
    } else {
        match asked(&args.remote).await {
            Ok((endpoint, document)) => (format!("the server at {endpoint}"), document),
            Err(error) => {
                output.note(&format!("no server was asked: {}", error.message));
                ("this host, without a server".to_owned(), looked(&args.remote)?)
            }
        }
    };
    document["source"] = source.into();
    output.show(&document, text)
}

async fn asked(remote: &Remote) -> Result<(String, Value)> {
    let client = Client::find(remote)?;
    let document = client.admin("doctor").await?;
    Ok((client.endpoint().to_owned(), document))
}

fn looked(remote: &Remote) -> Result<Value> {
    let config = Config { data_dir: remote.data_dir.clone(), ..Config::default() };
    let settings = Settings::check(&config).map_err(|error| Error::usage(error.to_string()))?;
    let doctor = probe(&settings, &serve::this_program()?)
        .map_err(|error| Error::server("cannot look at this host").caused_by(&error))?;
    Ok(json!(doctor))
}

fn text(document: &Value) -> String {
    let report = &document["report"];
    let features = report["features"].as_array().map(Vec::as_slice).unwrap_or_default();
    let word =
        |feature: &Value| match (feature["in_force"].as_bool(), feature["required"].as_bool()) {
            (Some(true), _) => "yes",
            (_, Some(true)) => "NO",
            _ => "no",
        };
    let member = |value: &Value, name: &str| value[name].as_str().unwrap_or_default().to_owned();
    let rows = features.iter().map(|feature| {
        [member(feature, "name"), word(feature).to_owned(), member(feature, "detail")]
    });
    let names = |member: &str| {
        let names = document[member].as_array().map(Vec::as_slice).unwrap_or_default();
        names.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(", ")
    };
    let mut verdict = match (document["full"].as_bool(), names("lacks")) {
        (Some(true), _) => "full".to_owned(),
        (_, lacks) if lacks.is_empty() => "partial: it needs root".to_owned(),
        (_, lacks) => format!("partial: it lacks {lacks}"),
    };
    let without = names("without");
    if !without.is_empty() {
        verdict.push_str(&format!(", without {without}"));
    }
    let mut sections = vec![
        format!("isolation: {verdict}"),
        format!("source:    {}", member(document, "source")),
        format!("cgroups:   {}", member(report, "cgroup")),
        String::new(),
        table(["PART", "IN FORCE", "DETAIL"], rows.collect()),
    ];
    let remedies = features.iter().filter(|feature| feature["in_force"] == false);
    let remedies: Vec<String> = remedies
        .filter_map(|feature| Some((feature["name"].as_str()?, feature["remedy"].as_str()?)))
        .map(|(name, remedy)| format!("  {name}: {remedy}"))
        .collect();
    if !remedies.is_empty() {
        sections.push(format!("\nwhat to do:\n{}", remedies.join("\n")));
    }
    let found = document["runtimes"].as_array().map(Vec::as_slice).unwrap_or_default();
    sections.push(format!("\n{}", runtimes::text(found)));
    let began = document["interpreters"].as_array().map(Vec::as_slice).unwrap_or_default();
    let started: Vec<String> = began
        .iter()
        .filter_map(|one| Some((one["runtime"].as_str()?, one["why"].as_str()?)))
        .map(|(runtime, why)| format!("  {runtime}: {why}"))
        .collect();
    if !started.is_empty() {
        let title = "not copied from a warm interpreter, but started each time:";
        sections.push(format!("\n{title}\n{}", started.join("\n")));
    }
    sections.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_said_with_its_remedy() {
        let document = json!({
            "full": false,
            "lacks": ["memory limit"],
            "without": ["landlock"],
            "source": "this host",
            "report": {"cgroup": "none", "root": true, "features": [
                {"name": "namespaces", "in_force": true, "required": true, "detail": "all seven"},
                {"name": "memory limit", "in_force": false, "required": true,
                 "detail": "no cgroup", "remedy": "mount cgroup2"},
            ]},
            "runtimes": [],
            "interpreters": [
                {"runtime": "python3.12", "forked": true, "why": null},
                {"runtime": "nodejs22.x", "forked": false, "why": "somebody else than root can change /opt"},
            ],
        });
        insta::assert_snapshot!(text(&document).trim_end(), @r"
        isolation: partial: it lacks memory limit, without landlock
        source:    this host
        cgroups:   none

        PART          IN FORCE  DETAIL
        namespaces    yes       all seven
        memory limit  NO        no cgroup

        what to do:
          memory limit: mount cgroup2



        not copied from a warm interpreter, but started each time:
          nodejs22.x: somebody else than root can change /opt
        ");
    }
}

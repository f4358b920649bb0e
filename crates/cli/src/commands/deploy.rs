//! `lacewing deploy`

use std::path::PathBuf;

use lacewing_model::{FunctionConfig, Network};
use serde_json::{Map, Value, json};

use crate::args::Remote;
use crate::client::Client;
use crate::error::{Error, Result};
use crate::output::Output;
use crate::project::{Detected, Language, Manifest, Project};

/// What a failed update has changed.
const NOTHING: &str = "nothing was changed";
const OLD_CODE: &str =
    "the configuration was changed, but the code is the old; `lacewing deploy` again does the rest";

/// Create or update a function from a directory, a zip archive or a single file
///
/// Runtime and handler are found by looking: a Python file with `lambda_handler` or `handler`, a
/// JavaScript file that exports `handler`, an executable `bootstrap`. A file `lacewing.toml` in the
/// directory says it better, with the keys name, runtime, handler, role, description, memory, timeout,
/// ephemeral_storage, network, snap_start, concurrency_per_instance and the table `[environment]`; flags
/// win over it.
///
/// Of a directory these stay behind: .git, .hg, .svn, .idea, .vscode, .DS_Store, __pycache__, *.pyc,
/// .venv, venv, .tox, .pytest_cache, .mypy_cache, .ruff_cache, .npm, .aws, .env, .gitignore,
/// .lacewingignore, and at its top *.zip and lacewing.toml. A file `.lacewingignore` in the syntax of
/// .gitignore names more, and takes one of these back with `!name`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// What to deploy
    #[arg(default_value = ".", value_name = "DIR|ZIP|FILE")]
    path: PathBuf,
    /// Name of the function [else: the name of the directory or file]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Runtime identifier [else: the newest of the language that the server offers]
    #[arg(long, value_name = "ID")]
    runtime: Option<String>,
    /// Where the handler is, for example app.handler
    #[arg(long, value_name = "MODULE.NAME")]
    handler: Option<String>,
    /// ARN or name of the role that the function runs as [else: lambda]
    #[arg(long, value_name = "ROLE")]
    role: Option<String>,
    /// Free text
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,
    /// Memory in MB
    #[arg(long, value_name = "MB")]
    memory: Option<u32>,
    /// Seconds that one invocation may take
    #[arg(long, value_name = "SECONDS")]
    timeout: Option<u32>,
    /// Size of /tmp in MB
    #[arg(long, value_name = "MB")]
    ephemeral_storage: Option<u32>,
    /// What it may reach: `none`, or `egress` for what the server lets functions reach; kept in the
    /// variable LACEWING_NETWORK
    #[arg(long, value_name = "none|egress", value_parser = network)]
    network: Option<Network>,
    /// Whether `$LATEST` is initialised once and its instances go on from there: Python 3.12 or later;
    /// kept in the variable LACEWING_SNAP_START
    #[arg(long, value_name = "none|latest", value_parser = ["none", "latest"], hide_possible_values = true)]
    snap_start: Option<String>,
    /// How many invocations one instance of a custom runtime or Node.js serves at a time [else: 1];
    /// kept in the variable LACEWING_CONCURRENCY_PER_INSTANCE
    #[arg(long, value_name = "N")]
    concurrency_per_instance: Option<u32>,
    /// An environment variable; all that are given replace those of the manifest
    #[arg(long, value_name = "NAME=VALUE", value_parser = variable)]
    env: Vec<(String, String)>,
    #[command(flatten)]
    remote: Remote,
}

pub(crate) async fn run(args: Args, output: Output) -> Result<()> {
    let project = Project::open(&args.path)?;
    let client = Client::find(&args.remote)?;
    let wanted = wanted(args, &project.manifest);
    let name = wanted.name.clone().unwrap_or_else(|| project.name.clone());
    let existing = client.configuration(&name).await?;
    let settings = settings(&client, &wanted, &project.detected, existing.as_ref()).await?;
    let zip = project.pack(output)?;
    let upload = |total| output.bytes_bar("uploading", total);
    let is_new = existing.is_none();
    match existing {
        Some(existing) => {
            client.quiet(&name).await?;
            let is_reconfigured = reconfigure(&client, &name, settings, &existing).await?;
            let replaced = client.update_code(&name, &zip, upload).await;
            let changed = if is_reconfigured { OLD_CODE } else { NOTHING };
            replaced.map_err(|error| error.hint(changed))?;
        }
        None => {
            let mut settings = settings;
            settings.insert("FunctionName".to_owned(), name.clone().into());
            client.create_function(settings.into(), &zip, upload).await?;
        }
    }
    let spinner = output.spinner("waiting until it is active");
    let configuration = client.settled(&name).await?;
    spinner.finish_and_clear();
    output.show(&configuration, |configuration| text(configuration, is_new))
}

/// Changes the settings that differ, before the code: they are what is refused most. Whether there
/// were any.
async fn reconfigure(
    client: &Client,
    name: &str,
    mut settings: Map<String, Value>,
    existing: &Value,
) -> Result<bool> {
    settings.retain(|member, value| existing[member.as_str()] != *value);
    if settings.is_empty() {
        return Ok(false);
    }
    let changed = client.update_configuration(name, &settings.into()).await;
    changed.map_err(|error| error.hint(NOTHING))?;
    let settled = client.settled(name).await;
    settled.map_err(|error| error.hint(OLD_CODE))?;
    Ok(true)
}

fn text(configuration: &Value, is_new: bool) -> String {
    let member = |name: &str| configuration[name].as_str().unwrap_or_default();
    let name = member("FunctionName");
    format!(
        "{} {name} ({}, {})\n{}\ntry: lacewing invoke {name} --log",
        if is_new { "created" } else { "updated" },
        member("Runtime"),
        member("Handler"),
        member("FunctionArn"),
    )
}

/// What flags and manifest say together.
fn wanted(args: Args, manifest: &Manifest) -> Manifest {
    let manifest = manifest.clone();
    let environment = (!args.env.is_empty()).then(|| args.env.into_iter().collect());
    Manifest {
        name: args.name.or(manifest.name),
        runtime: args.runtime.or(manifest.runtime),
        handler: args.handler.or(manifest.handler),
        role: args.role.or(manifest.role),
        description: args.description.or(manifest.description),
        memory: args.memory.or(manifest.memory),
        timeout: args.timeout.or(manifest.timeout),
        ephemeral_storage: args.ephemeral_storage.or(manifest.ephemeral_storage),
        network: args.network.or(manifest.network),
        snap_start: args.snap_start.or(manifest.snap_start),
        concurrency_per_instance: args
            .concurrency_per_instance
            .or(manifest.concurrency_per_instance),
        environment: environment.or(manifest.environment),
    }
}

/// Settings for a create, or for an update of `existing`: what nobody chose is left as it is.
async fn settings(
    client: &Client,
    wanted: &Manifest,
    detected: &Result<Detected, String>,
    existing: Option<&Value>,
) -> Result<Map<String, Value>> {
    let known = existing.map(|existing| {
        let member = |name: &str| existing[name].as_str().map(str::to_owned);
        (member("Runtime"), member("Handler"))
    });
    // What the files do not say is kept only if the author says the other half.
    let is_said = wanted.runtime.is_some() || wanted.handler.is_some();
    let (old_runtime, old_handler) =
        known.filter(|_| detected.is_ok() || is_said).unwrap_or_default();
    let found = detected.as_ref().ok();
    let unclear = |what: &str| {
        let reason = detected.as_ref().err().cloned().unwrap_or_default();
        Error::user(reason).hint(format!("give --{what}, or write it into lacewing.toml"))
    };
    let handler = wanted.handler.clone().or_else(|| found.map(|found| found.handler.clone()));
    let handler = handler.or(old_handler).ok_or_else(|| unclear("handler and --runtime"))?;
    let runtime = match (&wanted.runtime, found) {
        (Some(runtime), _) => runtime.clone(),
        (None, Some(found)) => match old_runtime.filter(|old| speaks(old, found.language)) {
            Some(old) => old,
            None => newest(client, found.language).await?,
        },
        (None, None) => old_runtime.ok_or_else(|| unclear("runtime"))?,
    };
    let mut settings = Map::new();
    let mut set = |name: &str, value: Value| drop(settings.insert(name.to_owned(), value));
    set("Runtime", runtime.into());
    set("Handler", handler.into());
    if existing.is_none() || wanted.role.is_some() {
        set("Role", role(client, wanted.role.as_deref().unwrap_or("lambda")).await?.into());
    }
    let optional = [
        ("Description", wanted.description.clone().map(Value::from)),
        ("MemorySize", wanted.memory.map(Value::from)),
        ("Timeout", wanted.timeout.map(Value::from)),
        ("EphemeralStorage", wanted.ephemeral_storage.map(|mb| json!({ "Size": mb }))),
        ("Environment", environment(wanted, existing).map(|all| json!({ "Variables": all }))),
    ];
    for (name, value) in optional {
        if let Some(value) = value {
            set(name, value);
        }
    }
    Ok(settings)
}

/// What is chosen by a variable, and how it was chosen now.
fn choices(wanted: &Manifest) -> [(&'static str, Option<String>); 3] {
    let concurrency = wanted.concurrency_per_instance;
    [
        (Network::VARIABLE, wanted.network.map(|network| network.to_string())),
        (FunctionConfig::SNAP_START, wanted.snap_start.clone()),
        (FunctionConfig::CONCURRENCY_PER_INSTANCE, concurrency.map(|number| number.to_string())),
    ]
}

/// The variables, with the choices among them: those that were made now, else those that were made
/// before.
fn environment(wanted: &Manifest, existing: Option<&Value>) -> Option<Map<String, Value>> {
    let old = existing.and_then(|it| it["Environment"]["Variables"].as_object());
    let given = wanted.environment.as_ref().map(|given| {
        given.iter().map(|(name, value)| (name.clone(), Value::from(value.as_str()))).collect()
    });
    let choices = choices(wanted);
    let is_chosen = choices.iter().any(|(_, chosen)| chosen.is_some());
    let mut variables: Map<String, Value> = match given {
        Some(given) => given,
        None if is_chosen => old.cloned().unwrap_or_default(),
        None => return None,
    };
    for (name, chosen) in choices {
        if let Some(chosen) = chosen {
            variables.insert(name.to_owned(), chosen.into());
        } else if let Some(before) = old.and_then(|old| old.get(name)) {
            variables.entry(name).or_insert_with(|| before.clone());
        }
    }
    Some(variables)
}

fn speaks(runtime: &str, language: Language) -> bool {
    match language {
        Language::Python { minor: Some(minor) } => runtime == format!("python3.{minor}"),
        Language::Python { minor: None } => runtime.starts_with("python"),
        Language::Node => runtime.starts_with("nodejs"),
        Language::Custom => runtime.starts_with("provided"),
    }
}

/// The newest runtime of the language that the server offers.
async fn newest(client: &Client, language: Language) -> Result<String> {
    if language == Language::Custom {
        return Ok("provided.al2023".to_owned());
    }
    if let Language::Python { minor: Some(minor) } = language {
        return Ok(format!("python3.{minor}"));
    }
    let offered = super::runtimes::offered(client).await?;
    // The list is in order of language and version.
    offered.into_iter().rfind(|runtime| speaks(runtime, language)).ok_or_else(|| {
        Error::user("the server has no interpreter for this language").hint(
            "`lacewing runtimes` lists what it has; [runtimes] in its configuration adds more",
        )
    })
}

/// A role's ARN from its name.
async fn role(client: &Client, role: &str) -> Result<String> {
    if role.starts_with("arn:") {
        return Ok(role.to_owned());
    }
    let info = client.admin("info").await?;
    let account = info["account"]
        .as_str()
        .ok_or_else(|| Error::server("the server does not say which account this is"))?;
    Ok(format!("arn:aws:iam::{account}:role/{role}"))
}

fn network(text: &str) -> Result<Network, String> {
    text.parse().map_err(|_| "expected none or egress".to_owned())
}

fn variable(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("expected NAME=VALUE".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn args() -> Args {
        Args {
            path: ".".into(),
            name: None,
            runtime: None,
            handler: None,
            role: None,
            description: None,
            memory: None,
            timeout: None,
            ephemeral_storage: None,
            network: None,
            snap_start: None,
            concurrency_per_instance: None,
            env: Vec::new(),
            remote: Remote::default(),
        }
    }

    #[test]
    fn a_flag_wins_over_the_manifest() {
        let manifest = Manifest {
            name: Some("from-file".into()),
            memory: Some(256),
            environment: Some(BTreeMap::from([("A".into(), "1".into())])),
            ..Manifest::default()
        };
        let args =
            Args { name: Some("flag".into()), env: vec![("B".into(), "2".into())], ..args() };
        let wanted = wanted(args, &manifest);
        assert_eq!(wanted.name.as_deref(), Some("flag"));
        assert_eq!(wanted.memory, Some(256));
        assert_eq!(wanted.environment, Some(BTreeMap::from([("B".into(), "2".into())])));
    }

    #[test]
    fn a_choice_is_kept_until_another_is_made() {
        let old = json!({"Environment": {"Variables": {"A": "1", "LACEWING_NETWORK": "none"}}});
        let variables = |manifest: Manifest, existing: Option<&Value>| {
            environment(&manifest, existing).map(Value::from)
        };
        let none = Manifest { network: Some(Network::None), ..Manifest::default() };
        let made = json!({"LACEWING_NETWORK": "none"});
        assert_eq!(variables(none.clone(), None), Some(made));
        assert_eq!(variables(Manifest::default(), Some(&old)), None);
        let environment = Some(BTreeMap::from([("B".to_owned(), "2".to_owned())]));
        let other = Manifest { environment, ..Manifest::default() };
        let kept = json!({"B": "2", "LACEWING_NETWORK": "none"});
        assert_eq!(variables(other, Some(&old)), Some(kept));
        let egress = Manifest { network: Some(Network::Egress), ..Manifest::default() };
        let changed = variables(egress, Some(&old)).unwrap_or_default();
        assert_eq!(changed["A"], "1");
        assert_eq!(changed["LACEWING_NETWORK"], "egress");
        let latest = Manifest { snap_start: Some("latest".into()), ..Manifest::default() };
        let both = json!({"A": "1", "LACEWING_NETWORK": "none", "LACEWING_SNAP_START": "latest"});
        assert_eq!(variables(latest, Some(&old)), Some(both));
    }

    #[test]
    fn an_environment_variable_may_hold_an_equals_sign() {
        assert_eq!(variable("A=b=c"), Ok(("A".to_owned(), "b=c".to_owned())));
        assert!(variable("A").is_err() && variable("=b").is_err());
    }

    #[test]
    fn compiled_modules_pin_the_runtime() {
        let language = Language::Python { minor: Some(11) };
        assert!(speaks("python3.11", language) && !speaks("python3.12", language));
    }
}

//! Where the server is and which key to use: flags, then `AWS_*` variables, then the data directory.
//!
//! A flag wins over every variable. Real AWS credentials in `~/.aws` are looked at only when
//! `AWS_PROFILE` or `--profile` asks for them, so that nothing is ever signed with them by accident.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use lacewing_model::{Credentials, Region, Secret};
use lacewing_node::data_dir;

use crate::args::Remote;
use crate::error::{Error, Result};

/// Where a server listens unless it was told otherwise.
const DEFAULT_ENDPOINT: &str = "http://127.0.0.1:9000";
/// The region when nothing names one.
const DEFAULT_REGION: &str = "us-east-1";
/// What is said of an endpoint that nothing names.
const NOWHERE: &str = "the default";
/// The profile when nothing names one.
const DEFAULT_PROFILE: &str = "default";

/// What to do when a profile is not what it should be.
const PROFILE: &str = "--profile and AWS_PROFILE choose a profile of that file; without them the key \
                       is that of the server's data directory";

/// What it takes to talk to a server.
#[derive(Clone, Debug)]
pub(crate) struct Connection {
    /// URL of the server, without a path.
    pub(crate) endpoint: String,
    /// The region to sign for.
    pub(crate) region: Region,
    /// The key to sign with.
    pub(crate) credentials: Credentials,
    /// Where the endpoint and the key were found, for hints.
    pub(crate) origin: Origin,
}

/// Where parts of a connection were found.
#[derive(Clone, Debug)]
pub(crate) struct Origin {
    pub(crate) endpoint: String,
    pub(crate) key: String,
}

/// The process's environment, or what a test puts in its place.
pub(crate) type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

/// A variable of this process; an empty one counts as none.
pub(crate) fn process_environment(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

impl Connection {
    /// Finds the server and the key.
    pub(crate) fn find(remote: &Remote, environment: Environment<'_>) -> Result<Self> {
        let (endpoint, endpoint_origin) = endpoint(remote, environment);
        let key = key(remote, environment, &endpoint_origin)?;
        let region = remote
            .region
            .clone()
            .or_else(|| environment("AWS_REGION"))
            .or_else(|| environment("AWS_DEFAULT_REGION"))
            .or(key.region)
            .unwrap_or_else(|| DEFAULT_REGION.to_owned());
        let region = Region::new(&region).map_err(|error| Error::usage(error.public()))?;
        let origin = Origin { endpoint: endpoint_origin, key: key.origin };
        Ok(Self { endpoint, region, credentials: key.credentials, origin })
    }
}

/// The data directory that the command is about.
pub(crate) fn data_directory(remote: &Remote) -> Option<PathBuf> {
    remote.data_dir.clone().or_else(data_dir::default)
}

/// URL of the server, and where it was found.
pub(crate) fn endpoint(remote: &Remote, environment: Environment<'_>) -> (String, String) {
    if let Some(url) = &remote.endpoint {
        return (url.clone(), "--endpoint".to_owned());
    }
    if remote.data_dir.is_none() {
        for name in ["AWS_ENDPOINT_URL_LAMBDA", "AWS_ENDPOINT_URL"] {
            if let Some(url) = environment(name) {
                return (url, name.to_owned());
            }
        }
    }
    let noted = data_directory(remote).and_then(|dir| Some((data_dir::address(&dir)?, dir)));
    match noted {
        Some((mut address, dir)) => {
            if address.ip().is_unspecified() {
                let loopback = if address.is_ipv4() { "127.0.0.1" } else { "::1" };
                address.set_ip(loopback.parse().expect("a loopback address"));
            }
            (format!("http://{address}"), dir.join("address").display().to_string())
        }
        None => (DEFAULT_ENDPOINT.to_owned(), NOWHERE.to_owned()),
    }
}

struct Key {
    credentials: Credentials,
    region: Option<String>,
    origin: String,
}

fn key(remote: &Remote, environment: Environment<'_>, endpoint_origin: &str) -> Result<Key> {
    if remote.data_dir.is_none()
        && remote.profile.is_none()
        && let Some(key) = key_from_variables(environment)?
    {
        return Ok(key);
    }
    let profile = remote.profile.clone().or_else(|| environment("AWS_PROFILE"));
    let named = remote.data_dir.is_none().then(|| environment("AWS_SHARED_CREDENTIALS_FILE"));
    if let Some(file) = named.flatten() {
        return key_from_file(Path::new(&file), profile.as_deref());
    }
    if let (Some(profile), None) = (&profile, &remote.data_dir) {
        let home = environment("HOME").ok_or_else(|| {
            Error::user(format!("no home directory to look for profile '{profile}' in"))
        })?;
        return key_from_file(&Path::new(&home).join(".aws/credentials"), Some(profile));
    }
    let dir = data_directory(remote)
        .ok_or_else(|| Error::user("no key was found").hint("give --data-dir"))?;
    let file = data_dir::credentials_file(&dir);
    if endpoint_origin == NOWHERE && !file.exists() {
        return Err(Error::server(format!("no server has run on {}", dir.display()))
            .hint("start one with `lacewing serve`, or name its directory with --data-dir"));
    }
    key_from_file(&file, profile.as_deref())
}

fn key_from_variables(environment: Environment<'_>) -> Result<Option<Key>> {
    let Some(access_key_id) = environment("AWS_ACCESS_KEY_ID") else { return Ok(None) };
    let secret = environment("AWS_SECRET_ACCESS_KEY")
        .ok_or_else(|| Error::user("AWS_ACCESS_KEY_ID is set, but AWS_SECRET_ACCESS_KEY is not"))?;
    let session_token = environment("AWS_SESSION_TOKEN").map(Secret::new);
    let credentials = Credentials {
        access_key_id,
        secret_access_key: Secret::new(secret),
        session_token,
        expires: None,
    };
    Ok(Some(Key { credentials, region: None, origin: "AWS_ACCESS_KEY_ID".to_owned() }))
}

fn key_from_file(path: &Path, profile: Option<&str>) -> Result<Key> {
    let origin = path.display().to_string();
    let text = std::fs::read_to_string(path).map_err(|error| match profile {
        Some(profile) => Error::user(format!("no profile '{profile}': cannot read {origin}"))
            .caused_by(&error)
            .hint(PROFILE),
        None => Error::user(format!("no key: cannot read {origin}")).caused_by(&error).hint(
            "the server writes it at its first start: run `lacewing serve`, or name its directory \
             with --data-dir",
        ),
    })?;
    let profile = profile.unwrap_or(DEFAULT_PROFILE);
    let mut section = section(&text, profile)
        .ok_or_else(|| Error::user(format!("{origin} has no profile '{profile}'")).hint(PROFILE))?;
    let mut take = |key: &str| {
        section.remove(key).ok_or_else(|| {
            Error::user(format!("profile '{profile}' in {origin} has no {key}")).hint(PROFILE)
        })
    };
    let access_key_id = take("aws_access_key_id")?;
    let secret_access_key = Secret::new(take("aws_secret_access_key")?);
    let session_token = take("aws_session_token").ok().map(Secret::new);
    let region = take("region").ok();
    let credentials =
        Credentials { access_key_id, secret_access_key, session_token, expires: None };
    Ok(Key { credentials, region, origin })
}

/// The settings of `[name]` in a file of the AWS shared-credentials format
/// (<https://docs.aws.amazon.com/sdkref/latest/guide/file-format.html>).
fn section(text: &str, name: &str) -> Option<BTreeMap<String, String>> {
    let mut found = None;
    let mut inside = false;
    for line in text.lines().map(str::trim) {
        if line.is_empty() || line.starts_with(['#', ';']) {
            continue;
        }
        if let Some(head) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            inside = head.trim() == name;
            if inside {
                found.get_or_insert_with(BTreeMap::new);
            }
        } else if let (true, Some((key, value)), Some(settings)) =
            (inside, line.split_once('='), found.as_mut())
        {
            settings.insert(key.trim().to_ascii_lowercase(), value.trim().to_owned());
        }
    }
    found
}

#[cfg(test)]
mod tests;

//! What AWS has no call for: `/_lacewing/v1/...`, JSON, signed for the service `lacewing`.
//!
//! `docs/openapi.json` describes it; a test keeps the two the same.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderValue};
use http::request::Parts;
use http::{Method, Response};
use lacewing_model::{AccountId, Error, FunctionKey, Kind, Result, Timestamp, Version, VersionKey};
use lacewing_services::{LogQuery, UsageQuery};
use serde_json::Value;

use crate::body::{self, Body};
use crate::gateway::{Answer, Call, Inner};
use crate::lambda::name;
use crate::query;

/// Where all of it is.
pub(crate) const PREFIX: &str = "/_lacewing/v1";
/// Every route: method and path.
#[cfg(test)]
pub(crate) const ROUTES: [(&str, &str); 7] = [
    ("get", "/_lacewing/v1/info"),
    ("get", "/_lacewing/v1/doctor"),
    ("get", "/_lacewing/v1/runtimes"),
    ("get", "/_lacewing/v1/functions/{name}/logs"),
    ("get", "/_lacewing/v1/usage"),
    ("get", "/_lacewing/v1/usage/totals"),
    ("get", "/_lacewing/v1/code/{account}/{function}"),
];
/// Most log events of one answer, and how many there are when nothing is said.
const LOG_EVENTS: (usize, usize) = (10_000, 1_000);
/// The same of usage records.
const USAGE_RECORDS: (usize, usize) = (10_000, 1_000);
/// Longest time to wait for the first log event.
const LOG_WAIT: Duration = Duration::from_secs(20);

/// Gives a JSON document each time it is asked.
pub type JsonSource = Arc<dyn Fn() -> Value + Send + Sync>;

/// The documents that others of the node know the content of.
#[derive(Clone)]
pub struct AdminInfo {
    /// Version, region, account and counts of the node.
    pub info: JsonSource,
    /// What isolation is in force, and what is missing.
    pub doctor: JsonSource,
    /// The language runtimes on this machine.
    pub runtimes: JsonSource,
}

impl fmt::Debug for AdminInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AdminInfo").finish_non_exhaustive()
    }
}

/// What an admin request is for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Route {
    Info,
    Doctor,
    Runtimes,
    Logs { name: String },
    Usage { totals: bool },
    Code { account: String, function: String },
}

/// The route of a request, if there is one.
pub(crate) fn route(parts: &Parts) -> Result<Option<Route>> {
    let Some(path) = parts.uri.path().strip_prefix(PREFIX) else { return Ok(None) };
    if !matches!(parts.method, Method::GET | Method::HEAD) {
        return Ok(None);
    }
    let segments: Vec<&str> = path.trim_end_matches('/').split('/').skip(1).collect();
    Ok(Some(match segments.as_slice() {
        ["info"] => Route::Info,
        ["doctor"] => Route::Doctor,
        ["runtimes"] => Route::Runtimes,
        ["functions", name, "logs"] => Route::Logs { name: query::decode(name)?.into_owned() },
        ["usage"] => Route::Usage { totals: false },
        ["usage", "totals"] => Route::Usage { totals: true },
        ["code", account, function] => Route::Code {
            account: query::decode(account)?.into_owned(),
            function: query::decode(function)?.into_owned(),
        },
        _ => return Ok(None),
    }))
}

/// The path and query under which a version's package can be fetched.
pub(crate) fn code_path(key: &VersionKey) -> String {
    let FunctionKey { account, name, .. } = &key.function;
    match key.version {
        Version::Latest => format!("{PREFIX}/code/{account}/{name}"),
        Version::Published(number) => format!("{PREFIX}/code/{account}/{name}?Qualifier={number}"),
    }
}

/// Answers an admin request.
pub(crate) async fn handle(inner: &Inner, call: Call, route: Route) -> Answer {
    match route {
        Route::Info => node_document(inner, &call, "lacewing:GetInfo", &inner.admin.info),
        Route::Doctor => node_document(inner, &call, "lacewing:GetDoctor", &inner.admin.doctor),
        Route::Runtimes => {
            node_document(inner, &call, "lacewing:ListRuntimes", &inner.admin.runtimes)
        }
        Route::Logs { name } => logs(inner, &call, &name).await,
        Route::Usage { totals } => usage(inner, &call, totals).await,
        Route::Code { account, function } => code(inner, &call, &account, &function).await,
    }
}

fn node_document(inner: &Inner, call: &Call, action: &str, source: &JsonSource) -> Answer {
    inner.services.identity.authorize(&call.caller.principal, action, "*")?;
    Ok(json(&source()))
}

async fn logs(inner: &Inner, call: &Call, name: &str) -> Answer {
    let action = "logs:FilterLogEvents";
    let target = name::resolve(inner, call, action, name)?;
    let arn = format!(
        "arn:aws:logs:{}:{}:log-group:/aws/lambda/{}",
        target.key.region, target.key.account, target.key.name
    );
    inner.services.identity.authorize(&call.caller.principal, action, &arn)?;
    if let Ok(invoker) = inner.invoker() {
        invoker.logs_kept().await;
    }
    // A log outlives its function.
    if let Err(missing) = inner.services.functions.get(&target.key)
        && !inner.services.logs.has_any(&target.key).await?
    {
        return Err(missing.into());
    }
    let page = inner.services.logs.read(&target.key, log_query(call)?).await?;
    let document = serde_json::to_value(page)
        .map_err(|error| Error::internal("cannot write a page of log events", error))?;
    Ok(json(&document))
}

fn log_query(call: &Call) -> Result<LogQuery> {
    let query = call.parts.uri.query();
    let since = moment(query, "since")?;
    let cursor = query::parameter(query, "cursor")?.map(|cursor| cursor.parse()).transpose()?;
    let limit = limit(query, LOG_EVENTS)?;
    let wait = Duration::from_secs(number(query, "wait")?.unwrap_or(0)).min(LOG_WAIT);
    let stream = query::parameter(query, "stream")?.map(Into::into);
    Ok(LogQuery { since, cursor, stream, limit, wait })
}

async fn usage(inner: &Inner, call: &Call, totals: bool) -> Answer {
    let principal = &call.caller.principal;
    inner.services.identity.authorize(principal, "lacewing:GetUsage", "*")?;
    let query = usage_query(inner, call)?;
    // What was answered before now is in the answer.
    if let Ok(invoker) = inner.invoker() {
        invoker.usage_kept().await?;
    }
    let (usage, region) = (&inner.services.usage, &inner.options.region);
    let page = if totals {
        serde_json::to_value(usage.totals(&principal.account, region, &query).await?)
    } else {
        serde_json::to_value(usage.read(&principal.account, region, &query).await?)
    };
    let page = page.map_err(|error| Error::internal("cannot write a page of usage", error))?;
    Ok(json(&page))
}

fn usage_query(inner: &Inner, call: &Call) -> Result<UsageQuery> {
    let query = call.parts.uri.query();
    let function = match query::parameter(query, "function")? {
        Some(name) => Some(name::resolve(inner, call, "lacewing:GetUsage", &name)?.key.name),
        None => None,
    };
    let (since, cursor) = (moment(query, "since")?, number(query, "cursor")?);
    Ok(UsageQuery { function, since, cursor, limit: limit(query, USAGE_RECORDS)? })
}

/// A moment in milliseconds.
fn moment(query: Option<&str>, name: &str) -> Result<Option<Timestamp>> {
    let millis = number(query, name)?.map(|millis| i64::try_from(millis).unwrap_or(i64::MAX));
    Ok(millis.map(Timestamp::from_millis))
}

/// How many there may be in an answer.
fn limit(query: Option<&str>, (most, default): (usize, usize)) -> Result<usize> {
    Ok(match number(query, "limit")? {
        None => default,
        Some(limit) => usize::try_from(limit).unwrap_or(most).clamp(1, most),
    })
}

fn number(query: Option<&str>, name: &str) -> Result<Option<u64>> {
    let Some(text) = query::parameter(query, name)? else { return Ok(None) };
    let number = text.parse();
    number.map(Some).map_err(|_| {
        Error::new(Kind::Invalid, format!("'{name}' must be a whole number, not '{text}'."))
    })
}

async fn code(inner: &Inner, call: &Call, account: &str, function: &str) -> Answer {
    let account = AccountId::new(account)?;
    let target = name::resolve(inner, call, "lambda:GetFunction", function)?;
    if account != target.key.account {
        return Err(Error::new(Kind::Forbidden, "The package belongs to another account.").into());
    }
    let arn = target.arn();
    inner.services.identity.authorize(&call.caller.principal, "lambda:GetFunction", &arn)?;
    let package = inner.services.functions.code(&target.key, target.qualifier.as_ref()).await?;
    let mut response = Response::new(body::stream(package.bytes));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/zip"));
    headers.insert(CONTENT_LENGTH, package.code.size.into());
    Ok(response)
}

fn json(document: &Value) -> Response<Body> {
    let mut response = Response::new(body::full(document.to_string()));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

#[cfg(test)]
mod tests;

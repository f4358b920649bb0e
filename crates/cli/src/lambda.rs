//! The calls of the public Lambda API that the commands make.
//!
//! Source: "Lambda API actions", <https://docs.aws.amazon.com/lambda/latest/api/API_Operations.html>.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderName, Method, StatusCode};
use indicatif::ProgressBar;
use lacewing_model::FunctionRef;
use serde_json::{Value, json};

use crate::client::{Answer, Call, Client, Events, LAMBDA};
use crate::error::{Error, Result};

/// How often a changing function is looked at.
const POLL: Duration = Duration::from_millis(50);
/// How long a change may take.
const SETTLE: Duration = Duration::from_secs(120);
/// Functions of one page of the list.
const PAGE: usize = 50;

/// A function's name or ARN as part of a path; refused when it could not be one.
pub(crate) fn path_of(name: &str) -> Result<String> {
    let checked: Result<FunctionRef, _> = name.parse();
    checked.map_err(|error| {
        Error::user(error.public())
            .hint("a name is of letters, digits, - and _; `lacewing functions` lists what there is")
    })?;
    Ok(format!("/2015-03-31/functions/{name}"))
}

/// What an invocation answered.
#[derive(Debug)]
pub(crate) struct Invoked {
    pub(crate) status: StatusCode,
    pub(crate) payload: Bytes,
    pub(crate) function_error: Option<String>,
    pub(crate) executed_version: Option<String>,
    pub(crate) request_id: Option<String>,
    /// The end of the log, when it was asked for.
    pub(crate) log: Option<String>,
    /// Where the time went, when it was asked for.
    pub(crate) timeline: Option<Value>,
}

/// How to invoke.
#[derive(Clone, Copy, Debug)]
pub(crate) struct InvokeOptions<'a> {
    pub(crate) qualifier: Option<&'a str>,
    /// Leave the event and do not wait for the answer.
    pub(crate) is_async: bool,
    pub(crate) wants_log: bool,
    pub(crate) wants_timeline: bool,
}

impl Client {
    /// A function's configuration; `None` when there is no such function.
    pub(crate) async fn configuration(&self, name: &str) -> Result<Option<Value>> {
        let target = format!("{}/configuration", path_of(name)?);
        let answer = self.send(Call::get(LAMBDA, &target)).await?;
        if answer.status == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        self.accept(answer)?.json().map(Some)
    }

    /// All functions of the account.
    pub(crate) async fn functions(&self) -> Result<Vec<Value>> {
        let mut functions = Vec::new();
        let mut marker = String::new();
        loop {
            let target = format!("/2015-03-31/functions/?MaxItems={PAGE}{marker}");
            let mut page = self.json(Call::get(LAMBDA, &target)).await?;
            if let Some(Value::Array(items)) = page.get_mut("Functions").map(Value::take) {
                functions.extend(items);
            }
            match page.get("NextMarker").and_then(Value::as_str) {
                Some(next) if !next.is_empty() => marker = format!("&Marker={}", encode(next)),
                _ => return Ok(functions),
            }
        }
    }

    /// Creates a function: `settings` without code, and its archive.
    pub(crate) async fn create_function(
        &self,
        mut settings: Value,
        zip: &[u8],
        progress: impl FnOnce(u64) -> ProgressBar,
    ) -> Result<Value> {
        settings["Code"] = json!({ "ZipFile": STANDARD.encode(zip) });
        self.upload(Method::POST, "/2015-03-31/functions", &settings, progress).await
    }

    /// Replaces a function's code.
    pub(crate) async fn update_code(
        &self,
        name: &str,
        zip: &[u8],
        progress: impl FnOnce(u64) -> ProgressBar,
    ) -> Result<Value> {
        let body = json!({ "ZipFile": STANDARD.encode(zip) });
        let target = format!("{}/code", path_of(name)?);
        self.upload(Method::PUT, &target, &body, progress).await
    }

    /// Changes the settings that are given.
    pub(crate) async fn update_configuration(&self, name: &str, settings: &Value) -> Result<Value> {
        let target = format!("{}/configuration", path_of(name)?);
        self.json(Call::new(LAMBDA, Method::PUT, &target, settings.to_string())).await
    }

    /// Waits until a function is active and its last change is done.
    pub(crate) async fn settled(&self, name: &str) -> Result<Value> {
        let configuration = self.quiet(name).await?;
        if configuration["State"] == "Failed" || configuration["LastUpdateStatus"] == "Failed" {
            return Err(failed(name, &configuration));
        }
        Ok(configuration)
    }

    /// Waits until nothing is being changed of a function, whatever came of it.
    pub(crate) async fn quiet(&self, name: &str) -> Result<Value> {
        let waiting = async {
            loop {
                let configuration = self
                    .configuration(name)
                    .await?
                    .ok_or_else(|| Error::user(format!("function {name} was deleted meanwhile")))?;
                let is = |member: &str, value: &str| configuration[member] == value;
                if !is("State", "Pending") && !is("LastUpdateStatus", "InProgress") {
                    return Ok(configuration);
                }
                tokio::time::sleep(POLL).await;
            }
        };
        let in_time = tokio::time::timeout(SETTLE, waiting).await;
        in_time.map_err(|_| Error::server(format!("function {name} did not become active")))?
    }

    /// Deletes a function.
    pub(crate) async fn delete_function(&self, name: &str) -> Result<()> {
        let target = path_of(name)?;
        let call = Call::new(LAMBDA, Method::DELETE, &target, Bytes::new());
        self.accept(self.send(call).await?)?;
        Ok(())
    }

    /// Invokes a function.
    pub(crate) async fn invoke(
        &self,
        name: &str,
        payload: Bytes,
        options: InvokeOptions<'_>,
    ) -> Result<Invoked> {
        let target = with_qualifier(format!("{}/invocations", path_of(name)?), options);
        let call = invocation(&target, payload, options);
        let answer = self.accept(self.send(call).await?)?;
        invoked(&answer)
    }

    /// Invokes a function for an answer that is taken as it comes.
    pub(crate) async fn stream(
        &self,
        name: &str,
        payload: Bytes,
        options: InvokeOptions<'_>,
    ) -> Result<Events> {
        path_of(name)?;
        let path = format!("/2021-11-15/functions/{name}/response-streaming-invocations");
        self.events(invocation(&with_qualifier(path, options), payload, options)).await
    }

    async fn upload(
        &self,
        method: Method,
        target: &str,
        body: &Value,
        progress: impl FnOnce(u64) -> ProgressBar,
    ) -> Result<Value> {
        let body = body.to_string();
        let bar = progress(body.len() as u64);
        let mut call = Call::new(LAMBDA, method, target, body);
        call.progress = Some(bar.clone());
        let answer = self.json(call).await;
        bar.finish_and_clear();
        answer
    }
}

fn with_qualifier(path: String, options: InvokeOptions<'_>) -> String {
    match options.qualifier {
        Some(qualifier) => format!("{path}?Qualifier={}", encode(qualifier)),
        None => path,
    }
}

fn invocation<'a>(target: &'a str, payload: Bytes, options: InvokeOptions<'_>) -> Call<'a> {
    let mut call = Call::new(LAMBDA, Method::POST, target, payload);
    let kind = if options.is_async { "Event" } else { "RequestResponse" };
    let header = HeaderName::from_static;
    call.headers.push((header("x-amz-invocation-type"), kind.to_owned()));
    if options.wants_log {
        call.headers.push((header("x-amz-log-type"), "Tail".to_owned()));
    }
    if options.wants_timeline {
        call.headers.push((header("x-lacewing-timeline"), "Whole".to_owned()));
    }
    call
}

/// The log's end out of its base64.
pub(crate) fn log_text(encoded: &str) -> Result<String> {
    let log = STANDARD.decode(encoded);
    let log = log.map_err(|error| Error::server("the log is no base64").caused_by(&error))?;
    Ok(String::from_utf8_lossy(&log).into_owned())
}

/// A timeline out of its JSON.
pub(crate) fn timeline(text: &str) -> Result<Value> {
    serde_json::from_str(text)
        .map_err(|error| Error::server("the timeline is no JSON").caused_by(&error))
}

fn invoked(answer: &Answer) -> Result<Invoked> {
    let text = |name: &str| answer.header(name).map(str::to_owned);
    Ok(Invoked {
        status: answer.status,
        payload: answer.body.clone(),
        function_error: text("x-amz-function-error"),
        executed_version: text("x-amz-executed-version"),
        request_id: text("x-amzn-requestid"),
        log: answer.header("x-amz-log-result").map(log_text).transpose()?,
        timeline: answer.header("x-lacewing-timeline").map(timeline).transpose()?,
    })
}

fn failed(name: &str, configuration: &Value) -> Error {
    let reason = |member: &str| configuration[member].as_str().map(str::to_owned);
    let reason = reason("LastUpdateStatusReason").or_else(|| reason("StateReason"));
    Error::user(format!("function {name} failed: {}", reason.unwrap_or_default()))
}

/// Encodes a value for a query.
pub(crate) fn encode(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
    text.bytes().fold(String::new(), |mut encoded, byte| {
        if plain(byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
        encoded
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_function_names_become_paths() {
        assert_eq!(path_of("hello").unwrap(), "/2015-03-31/functions/hello");
        assert!(path_of("arn:aws:lambda:us-east-1:000000000000:function:x:$LATEST").is_ok());
        for hostile in ["", "a/b", "..", "a?b", "a b", "a%2f"] {
            assert!(path_of(hostile).is_err(), "{hostile} was accepted");
        }
    }

    #[test]
    fn queries_are_encoded() {
        assert_eq!(encode("$LATEST a/b"), "%24LATEST%20a%2Fb");
    }
}

//! The compiled function of `lacewing demo`: this program itself, run as a function's `bootstrap`.
//!
//! It speaks the Lambda Runtime API as any custom runtime does
//! (<https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html>), and knows nothing of Lacewing.

use std::process::ExitCode;

use anyhow::{Context, Result};
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};

/// Where Lambda says that the API is.
const API: &str = "AWS_LAMBDA_RUNTIME_API";
/// Most bytes of an event.
const EVENT: usize = 6 << 20;

/// Whether this process is a function's `bootstrap`.
pub(crate) fn is_wanted() -> bool {
    let is_bootstrap = std::env::args_os()
        .next()
        .is_some_and(|program| std::path::Path::new(&program).ends_with("bootstrap"));
    is_bootstrap && std::env::var_os(API).is_some()
}

/// Serves events until the environment ends.
pub(crate) fn main() -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let served = runtime.context("cannot start a timer").and_then(|runtime| {
        let api = std::env::var(API).context("the runtime API's address is no text")?;
        runtime.block_on(serve(&api))
    });
    match served {
        Ok(never) => match never {},
        Err(error) => {
            crate::error::Error::bug(format!("{error:#}")).print();
            ExitCode::FAILURE
        }
    }
}

async fn serve(api: &str) -> Result<std::convert::Infallible> {
    let base = format!("http://{api}/2018-06-01/runtime/invocation");
    let http: Client<HttpConnector, Full<Bytes>> =
        Client::builder(TokioExecutor::new()).build_http();
    loop {
        let (id, event) = next(&http, &base).await?;
        let answer = handle(&event).to_string();
        let request = Request::post(format!("{base}/{id}/response")).body(Full::from(answer))?;
        http.request(request).await.context("cannot send the response")?;
    }
}

#[expect(clippy::disallowed_methods, reason = "the body is wrapped in Limited")]
async fn next(http: &Client<HttpConnector, Full<Bytes>>, base: &str) -> Result<(String, Bytes)> {
    let request = Request::get(format!("{base}/next")).body(Full::default())?;
    let (parts, body) = http.request(request).await.context("cannot get an event")?.into_parts();
    let id = parts.headers.get("lambda-runtime-aws-request-id").context("an event without id")?;
    let event = Limited::new(body, EVENT).collect().await.map_err(anyhow::Error::from_boxed)?;
    Ok((id.to_str()?.to_owned(), event.to_bytes()))
}

fn handle(event: &[u8]) -> Value {
    let event: Value = serde_json::from_slice(event).unwrap_or_default();
    let name = event["name"].as_str().unwrap_or("world");
    json!({ "message": format!("Hello, {name}, from Rust") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_function_greets() {
        assert_eq!(handle(b"{\"name\":\"you\"}")["message"], "Hello, you, from Rust");
        assert_eq!(handle(b"")["message"], "Hello, world, from Rust");
    }

    #[test]
    fn a_test_program_is_no_bootstrap() {
        assert!(!is_wanted());
    }
}

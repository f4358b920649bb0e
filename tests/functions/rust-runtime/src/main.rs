//! A function for the end-to-end tests, written on the official `lambda_runtime` client.

use std::io::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use lambda_runtime::streaming::{Body, Response, channel};
use lambda_runtime::{Error, FunctionResponse, LambdaEvent, service_fn};
use serde_json::{Value, json};

/// Invocations in the handler.
static INSIDE: AtomicU64 = AtomicU64::new(0);

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    // With several invocations at a time if the platform says so, else as `run`.
    lambda_runtime::run_concurrent(service_fn(answer)).await
}

#[expect(clippy::exit, reason = "a test wants to see what becomes of the others")]
async fn answer(event: LambdaEvent<Value>) -> Result<FunctionResponse<Value, Body>, Error> {
    let inside = INSIDE.fetch_add(1, Ordering::SeqCst) + 1;
    if event.payload["print"] == true {
        writeln!(std::io::stdout(), "printed {}", event.context.request_id)?;
    }
    if let Some(millis) = event.payload["sleep_ms"].as_u64() {
        tokio::time::sleep(Duration::from_millis(millis)).await;
    }
    if let Some(wanted) = event.payload["together"].as_u64() {
        while INSIDE.load(Ordering::SeqCst) < wanted {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    if event.payload["exit"] == true {
        std::process::exit(3);
    }
    if event.payload["stay"] != true {
        INSIDE.fetch_sub(1, Ordering::SeqCst);
    }
    if event.payload["fail"] == true {
        return Err("asked to fail".into());
    }
    if let Some(parts) = event.payload["stream"].as_u64() {
        let pause = Duration::from_millis(event.payload["pause_ms"].as_u64().unwrap_or_default());
        return Ok(FunctionResponse::StreamingResponse(stream(parts, pause)));
    }
    let mut echo = json!({ "echo": event.payload, "id": event.context.request_id });
    if event.payload["where"] == true {
        echo["stream"] = event.context.env_config.log_stream.clone().into();
        echo["concurrency"] = std::env::var("AWS_LAMBDA_MAX_CONCURRENCY").ok().into();
        echo["inside"] = inside.into();
    }
    Ok(FunctionResponse::BufferedResponse(echo))
}

/// So many parts, with a pause before each.
#[expect(clippy::disallowed_methods, reason = "a function has no tracker of tasks")]
fn stream(parts: u64, pause: Duration) -> Response<Body> {
    let (mut sender, body) = channel();
    tokio::spawn(async move {
        for number in 1..=parts {
            tokio::time::sleep(pause).await;
            if sender.send_data(format!("part {number}\n").into()).await.is_err() {
                return;
            }
        }
    });
    Response::from(body)
}

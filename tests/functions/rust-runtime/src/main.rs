//! A function for the end-to-end tests, written on the official `lambda_runtime` client.

use std::time::Duration;

use lambda_runtime::streaming::{Body, Response, channel};
use lambda_runtime::{Error, FunctionResponse, LambdaEvent, service_fn};
use serde_json::{Value, json};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    lambda_runtime::run(service_fn(answer)).await
}

async fn answer(event: LambdaEvent<Value>) -> Result<FunctionResponse<Value, Body>, Error> {
    if event.payload["fail"] == true {
        return Err("asked to fail".into());
    }
    if let Some(parts) = event.payload["stream"].as_u64() {
        let pause = Duration::from_millis(event.payload["pause_ms"].as_u64().unwrap_or_default());
        return Ok(FunctionResponse::StreamingResponse(stream(parts, pause)));
    }
    let echo = json!({ "echo": event.payload, "id": event.context.request_id });
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

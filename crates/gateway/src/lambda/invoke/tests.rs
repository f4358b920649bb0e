//! Headers and payloads of invocations, in and out.

use bytes::Bytes;
use lacewing_model::FunctionError;

use super::*;

fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
    let pairs = pairs.iter().map(|(name, value)| {
        (HeaderName::from_static(name), HeaderValue::from_str(value).expect("a value"))
    });
    pairs.collect()
}

#[test]
fn types_are_read_and_others_are_refused_with_the_choice() {
    let read = |value| mode(&headers(&[("x-amz-invocation-type", value)]));
    assert_eq!(mode(&HeaderMap::new()).expect("the default"), Mode::RequestResponse);
    assert_eq!(read("Event").expect("known"), Mode::Event);
    assert_eq!(read("DryRun").expect("known"), Mode::DryRun);
    let error = read("event").expect_err("case matters");
    assert_eq!(error.kind(), Kind::Constraint);
    assert!(error.public().contains("[Event, RequestResponse, DryRun]"));
    assert!(wants_log_tail(&headers(&[("x-amz-log-type", "Tail")])).expect("known"));
    assert!(wants_log_tail(&headers(&[("x-amz-log-type", "All")])).is_err());
}

#[test]
fn a_client_context_is_an_object_of_bounded_size() {
    let read = |text: &str| client_context(&headers(&[("x-amz-client-context", text)]));
    let encode = |text: &str| BASE64_STANDARD.encode(text);
    assert_eq!(read(&encode("{\"a\": 1}")).expect("valid").as_deref(), Some("{\"a\": 1}"));
    for bad in ["{}", "!", &encode("[]"), &encode("{"), ""] {
        let error = read(bad).expect_err("no object in base64");
        assert_eq!(error.kind(), Kind::InvalidContent, "{bad}");
    }
    let long = encode(&format!("{{\"a\": \"{}\"}}", "x".repeat(2_676)));
    assert_eq!(long.len(), 3_580);
    assert!(read(&long).is_ok());
    assert!(read(&format!("{long}====")).expect_err("too long").public().contains("3583"));
}

#[test]
fn a_trace_is_passed_on_or_made() {
    let id = RequestId::random();
    let now = Timestamp::from_seconds(1_795_251_210);
    let given = "Root=1-5759e988-bd862e3fe1be46a994272793;Sampled=1";
    assert_eq!(trace(&headers(&[("x-amzn-trace-id", given)]), id, now), given);
    let made = trace(&HeaderMap::new(), id, now);
    assert!(made.starts_with("Root=1-6b015c0a-"), "{made}");
    assert!(made.ends_with(";Sampled=0"), "{made}");
}

#[test]
fn a_failure_of_the_function_is_a_success_of_the_call() {
    let reply = Reply {
        outcome: Outcome::Failed(FunctionError::of_platform("Runtime.ExitError", "gone")),
        executed_version: "$LATEST".into(),
        log_tail: Some(Bytes::from_static(b"END")),
        timeline: Timeline::default(),
    };
    let response = respond(reply, "Root=1").expect("an answer");
    assert_eq!(response.status(), StatusCode::OK);
    let header = |name: &str| response.headers()[name].to_str().expect("ASCII");
    assert_eq!(header("x-amz-function-error"), "Unhandled");
    assert_eq!(header("x-amz-executed-version"), "$LATEST");
    assert_eq!(header("x-amz-log-result"), "RU5E");
    assert_eq!(header("x-amzn-trace-id"), "Root=1");
    let reply = Reply {
        outcome: Outcome::Returned(Bytes::from_static(b"null")),
        executed_version: "$LATEST".into(),
        log_tail: None,
        timeline: Timeline::default(),
    };
    let response = respond(reply, "Root=1").expect("an answer");
    assert!(!response.headers().contains_key("x-amz-function-error"));
    assert!(!response.headers().contains_key("x-amz-log-result"));
}

#[test]
fn a_timeline_is_asked_for_by_name() {
    let asked = |value| wants_timeline(&headers(&[("x-lacewing-timeline", value)]));
    assert!(!wants_timeline(&HeaderMap::new()).expect("nothing said"));
    assert!(!asked("None").expect("refused by the client") && asked("Whole").expect("asked for"));
    assert!(asked("yes").expect_err("no such value").public().contains("None, Whole"));
    let text = timeline_text(&Timeline { queued_us: 7, ..Timeline::default() }).expect("JSON");
    assert!(text.starts_with(r#"{"queued_us":7,"placed_us":0,"#), "{text}");
}

//! What the ways of proving who one is are good for: links, bodies that are not signed, and the
//! sessions that functions have.

use lacewing_model::function::{Code, State, UpdateStatus};
use lacewing_model::time::ManualClock;
use lacewing_model::{
    Digest, Function, FunctionConfig, FunctionKey, FunctionName, Timestamp, Version,
};

use super::*;

const HOUR: Duration = Duration::from_secs(3_600);

/// A server whose clock the test moves.
async fn manual() -> (Server, Arc<ManualClock>) {
    let clock = Arc::new(ManualClock::new(Timestamp::from_seconds(1_800_000_000)));
    (Server::start_at(Arc::clone(&clock) as Arc<dyn Clock>, |_| {}).await, clock)
}

impl Server {
    /// A request without a body whose proof is in its query.
    fn presigned(&self, service: &str, target: &str, valid_for: Duration) -> String {
        let uri = format!("http://{}{target}", self.address);
        let request = Request::get(uri).body(()).expect("a request");
        let (mut parts, ()) = request.into_parts();
        let region = Region::new("us-east-1").expect("valid");
        let signer = Signer { credentials: &self.key, region: &region, service };
        signer.presign(&mut parts, self.clock.now(), valid_for).expect("signs");
        parts.uri.to_string()
    }

    async fn fetch(&self, link: &str) -> Reply {
        self.send(Request::get(link).body(Full::default()).expect("a request")).await
    }

    /// The same server, asked by a function of an account.
    async fn asked_by(self, account: &str) -> Self {
        let session = self.gateway.0.services.identity.session(&function(account));
        Self { key: session.expect("started"), ..self }
    }
}

fn function(account: &str) -> Function {
    let account = AccountId::new(account).expect("valid");
    let role = format!("arn:aws:iam::{account}:role/lambda");
    Function {
        key: FunctionKey {
            account,
            region: Region::new("us-east-1").expect("valid"),
            name: FunctionName::new("caller").expect("valid"),
        },
        version: Version::Latest,
        lineage: uuid::Uuid::nil(),
        config: FunctionConfig::new("python3.13".parse().expect("valid"), "app.handler", role),
        code: Code { digest: Digest::new([0; 32]), size: 1 },
        state: State::Active,
        last_update: UpdateStatus::Successful,
        before: None,
        state_reason: None,
        revision_id: uuid::Uuid::nil(),
        last_modified: Timestamp::default(),
        generation: 1,
    }
}

#[tokio::test]
async fn a_presigned_request_is_answered_until_it_expires() {
    let (server, clock) = manual().await;
    let link = server.presigned("lambda", "/2015-03-31/functions?MaxItems=5", HOUR);
    assert_eq!(server.fetch(&link).await.json(), json!({"Functions": []}));
    let changed = server.fetch(&link.replace("MaxItems=5", "MaxItems=6")).await;
    assert_eq!(changed.error(), "InvalidSignatureException");
    clock.advance(HOUR);
    assert_eq!(server.fetch(&link).await.status, StatusCode::OK);
    clock.advance(Duration::from_secs(1));
    let late = server.fetch(&link).await;
    assert_eq!((late.status, late.error()), (StatusCode::FORBIDDEN, "InvalidSignatureException"));
    let message = late.json()["message"].as_str().expect("text").to_owned();
    assert!(message.starts_with("Signature expired: "), "{message}");
    server.end().await;
}

#[tokio::test]
async fn a_link_to_code_ends_after_ten_minutes() {
    let (server, clock) = manual().await;
    assert_eq!(server.create("hello").await.status, StatusCode::CREATED);
    server.wait_active("hello").await;
    let found = server.call(Method::GET, "/2015-03-31/functions/hello", &Value::Null).await.json();
    let link = found["Code"]["Location"].as_str().expect("a link");
    let other = server.fetch(&link.replace("/hello?", "/other?")).await;
    assert_eq!(other.error(), "InvalidSignatureException");
    clock.advance(Duration::from_secs(600));
    assert_eq!(server.fetch(link).await.body, package());
    clock.advance(Duration::from_secs(1));
    assert_eq!(server.fetch(link).await.error(), "InvalidSignatureException");
    server.end().await;
}

#[tokio::test]
async fn a_body_that_is_not_signed_is_taken_as_it_comes() {
    let (server, clock) = manual().await;
    assert_eq!(server.create("hello").await.status, StatusCode::CREATED);
    server.wait_active("hello").await;
    let target = "/2015-03-31/functions/hello/configuration";
    let uri = format!("http://{}{target}", server.address);
    let request = Request::put(uri).body(()).expect("a request");
    let (mut parts, ()) = request.into_parts();
    let region = Region::new("us-east-1").expect("valid");
    let signer = Signer { credentials: &server.key, region: &region, service: "lambda" };
    signer.sign(&mut parts, Payload::Unsigned, clock.now()).expect("signs");
    let with = |body: &'static str| Request::from_parts(parts.clone(), Full::from(body));
    assert_eq!(server.send(with(r#"{"Timeout": 7}"#)).await.json()["Timeout"], 7);
    server.wait_active("hello").await;
    assert_eq!(server.send(with(r#"{"Timeout": 8}"#)).await.json()["Timeout"], 8);
    let mut forged = with("{}");
    *forged.method_mut() = Method::POST;
    assert_eq!(server.send(forged).await.error(), "InvalidSignatureException");
    clock.advance(Duration::from_secs(301));
    assert_eq!(server.send(with("{}")).await.error(), "InvalidSignatureException");
    server.end().await;
}

#[tokio::test]
async fn a_functions_session_uses_its_account_and_changes_and_reads_nothing() {
    let server = Server::start(|_| {}).await;
    assert_eq!(server.create("hello").await.status, StatusCode::CREATED);
    let server = server.asked_by("000000000000").await;
    let ask = async |target: &str| {
        server.send(server.signed_for("lacewing", Method::GET, target, b"")).await
    };
    for name in ["info", "doctor", "runtimes"] {
        let reply = ask(&format!("/_lacewing/v1/{name}")).await;
        assert_eq!((reply.status, reply.error()), (StatusCode::FORBIDDEN, "AccessDeniedException"));
    }
    let reply = ask("/_lacewing/v1/functions/hello/logs").await;
    assert_eq!(reply.status, StatusCode::FORBIDDEN);
    let hello = "/2015-03-31/functions/hello";
    for (method, target) in [
        (Method::GET, hello.to_owned()),
        (Method::GET, format!("{hello}/configuration")),
        (Method::PUT, format!("{hello}/configuration")),
        (Method::DELETE, hello.to_owned()),
    ] {
        let reply = server.call(method, &target, &json!({})).await;
        assert_eq!((reply.status, reply.error()), (StatusCode::FORBIDDEN, "AccessDeniedException"));
    }
    let settings = "/2016-08-19/account-settings";
    let found = server.call(Method::GET, settings, &Value::Null).await;
    assert_eq!(found.status, StatusCode::OK);
    server.end().await;
}

#[tokio::test]
async fn a_session_of_another_account_reaches_nothing_of_this_one() {
    let server = Server::start(|_| {}).await;
    assert_eq!(server.create("hello").await.status, StatusCode::CREATED);
    let server = server.asked_by("111111111111").await;
    let arn = "arn%3Aaws%3Alambda%3Aus-east-1%3A000000000000%3Afunction%3Ahello";
    let functions = "/2015-03-31/functions";
    for (method, target) in [
        (Method::GET, format!("{functions}/{arn}")),
        (Method::GET, format!("{functions}/000000000000%3Ahello/configuration")),
        (Method::PUT, format!("{functions}/{arn}/configuration")),
        (Method::PUT, format!("{functions}/{arn}/code")),
        (Method::DELETE, format!("{functions}/{arn}")),
        (Method::POST, format!("{functions}/{arn}/invocations")),
    ] {
        let reply = server.call(method.clone(), &target, &json!({})).await;
        assert_eq!(reply.status, StatusCode::FORBIDDEN, "{method} {target}: {:?}", reply.body);
    }
    for target in [
        format!("/_lacewing/v1/functions/{arn}/logs"),
        format!("/_lacewing/v1/code/000000000000/{arn}"),
        "/_lacewing/v1/code/000000000000/hello".to_owned(),
    ] {
        let reply = server.send(server.signed_for("lacewing", Method::GET, &target, b"")).await;
        assert_eq!(reply.status, StatusCode::FORBIDDEN, "{target}: {:?}", reply.body);
    }
    let create = json!({
        "FunctionName": "arn:aws:lambda:us-east-1:000000000000:function:planted",
        "Runtime": "python3.13",
        "Role": "arn:aws:iam::000000000000:role/lambda",
        "Handler": "app.handler",
        "Code": {"ZipFile": BASE64_STANDARD.encode(package())},
    });
    let reply = server.call(Method::POST, functions, &create).await;
    assert_eq!(reply.error(), "AccessDeniedException");
    let listed = server.call(Method::GET, functions, &Value::Null).await;
    assert_eq!(listed.error(), "AccessDeniedException");
    server.end().await;
}

//! The control plane over real services on the memory store, by a real HTTP client.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http::header::HOST;
use http::{Method, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use lacewing_model::{Credentials, RuntimeVersion, Secret, SystemClock};
use lacewing_services::Serving;
use lacewing_store::seal::{Sealer, TokenSealer};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_util::task::TaskTracker;

use super::*;
use crate::sigv4::{Payload, Signer};

/// An archive with one file, `app.py`.
fn package() -> Vec<u8> {
    use std::io::Write;
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    zip.start_file("app.py", zip::write::SimpleFileOptions::default()).expect("starts");
    zip.write_all(b"def handler(event, context):\n    return event\n").expect("writes");
    zip.finish().expect("ends").into_inner()
}

struct Server {
    address: std::net::SocketAddr,
    clock: Arc<dyn Clock>,
    key: Credentials,
    gateway: Gateway,
    stop: CancellationToken,
    tasks: TaskTracker,
    _directory: tempfile::TempDir,
}

struct Reply {
    status: StatusCode,
    headers: http::HeaderMap,
    body: Bytes,
}

impl Reply {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("a JSON document")
    }

    fn error(&self) -> &str {
        self.headers["x-amzn-errortype"].to_str().expect("ASCII")
    }
}

impl Server {
    async fn start(change: impl FnOnce(&mut Options)) -> Self {
        Self::start_at(Arc::new(SystemClock), change).await
    }

    async fn start_at(clock: Arc<dyn Clock>, change: impl FnOnce(&mut Options)) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let region = Region::new("us-east-1").expect("valid");
        let account = AccountId::new("000000000000").expect("valid");
        let store = lacewing_store::memory::open(Arc::clone(&clock));
        let services = Services::open(
            lacewing_services::Options::new(
                region.clone(),
                account.clone(),
                directory.path().to_owned(),
            ),
            store,
            Arc::new(Sealer::new([7; 32])),
            Arc::new(TokenSealer::new(&[8; 32])),
            Arc::clone(&clock),
            Arc::new(|runtime| {
                let version = RuntimeVersion::new(runtime, "3.13.0");
                Ok(Serving { version, note: None })
            }),
        )
        .await
        .expect("services open");
        let document = |name: &'static str| -> crate::JsonSource { Arc::new(move || json!(name)) };
        let admin = AdminInfo {
            info: document("info"),
            doctor: document("doctor"),
            runtimes: document("runtimes"),
        };
        let mut options = Options::new(region, account);
        change(&mut options);
        let key = services.identity.root();
        let gateway = Gateway::assemble(options, services.clone(), None, admin, Arc::clone(&clock));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        tasks.spawn(services.run(stop.clone()));
        tasks.spawn(gateway.clone().serve(listener, None, stop.clone(), Duration::from_secs(5)));
        Self { address, clock, key, gateway, stop, tasks, _directory: directory }
    }

    fn request(&self, method: Method, target: &str, body: &[u8]) -> Request<Full<Bytes>> {
        self.signed_for("lambda", method, target, body)
    }

    fn signed_for(
        &self,
        service: &str,
        method: Method,
        target: &str,
        body: &[u8],
    ) -> Request<Full<Bytes>> {
        let uri = format!("http://{}{target}", self.address);
        let request = Request::builder().method(method).uri(uri).body(()).expect("a request");
        let (mut parts, ()) = request.into_parts();
        let region = Region::new("us-east-1").expect("valid");
        let signer = Signer { credentials: &self.key, region: &region, service };
        signer.sign(&mut parts, Payload::Bytes(body), self.clock.now()).expect("signs");
        Request::from_parts(parts, Full::new(Bytes::copy_from_slice(body)))
    }

    async fn send(&self, request: Request<Full<Bytes>>) -> Reply {
        self.send_by(false, request).await
    }

    async fn send_by(&self, http2: bool, request: Request<Full<Bytes>>) -> Reply {
        let client = Client::builder(TokioExecutor::new()).http2_only(http2).build_http();
        let response = client.request(request).await.expect("an answer");
        let (parts, body) = response.into_parts();
        #[expect(clippy::disallowed_methods, reason = "the body is limited")]
        let body = Limited::new(body, 1 << 20).collect().await.expect("a body").to_bytes();
        Reply { status: parts.status, headers: parts.headers, body }
    }

    async fn call(&self, method: Method, target: &str, body: &Value) -> Reply {
        let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        self.send(self.request(method, target, &body)).await
    }

    async fn create(&self, name: &str) -> Reply {
        let input = json!({
            "FunctionName": name,
            "Runtime": "python3.13",
            "Role": "arn:aws:iam::000000000000:role/lambda",
            "Handler": "app.handler",
            "Code": {"ZipFile": BASE64_STANDARD.encode(package())},
            "Environment": {"Variables": {"COLOUR": "blue"}},
            "Tags": {"team": "one"},
        });
        self.call(Method::POST, "/2015-03-31/functions", &input).await
    }

    async fn wait_active(&self, name: &str) -> Value {
        let target = format!("/2015-03-31/functions/{name}/configuration");
        for _attempt in 0..100 {
            let found = self.call(Method::GET, &target, &Value::Null).await.json();
            if found["State"] == "Active" && found["LastUpdateStatus"] == "Successful" {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("{name} did not become active");
    }

    async fn end(self) {
        self.stop.cancel();
        self.tasks.close();
        let ended = tokio::time::timeout(Duration::from_secs(10), self.tasks.wait()).await;
        assert!(ended.is_ok(), "the server did not stop");
    }
}

#[tokio::test]
async fn a_function_lives_through_the_whole_control_plane() {
    let server = Server::start(|_| {}).await;
    let created = server.create("hello").await;
    assert_eq!(created.status, StatusCode::CREATED, "{:?}", created.body);
    let document = created.json();
    assert_eq!(document["State"], "Pending");
    assert_eq!(document["StateReasonCode"], "Creating");
    insta::assert_json_snapshot!("created", document, {
        ".LastModified" => "[time]", ".RevisionId" => "[uuid]", ".CodeSha256" => "[digest]",
    });
    assert_eq!(server.create("hello").await.error(), "ResourceConflictException");
    let active = server.wait_active("hello").await;
    assert_eq!(active["FunctionArn"], "arn:aws:lambda:us-east-1:000000000000:function:hello");

    let by_arn = "/2015-03-31/functions/arn%3Aaws%3Alambda%3Aus-east-1%3A000000000000%3Afunction\
                  %3Ahello?Qualifier=%24LATEST";
    let found = server.call(Method::GET, by_arn, &Value::Null).await.json();
    let arn = found["Configuration"]["FunctionArn"].as_str().expect("an ARN");
    assert!(arn.ends_with(":function:hello:$LATEST"), "{arn}");
    assert_eq!(found["Tags"], json!({"team": "one"}));
    let link = found["Code"]["Location"].as_str().expect("a link");
    let fetched = Request::get(link).body(Full::default()).expect("a request");
    let fetched = server.send(fetched).await;
    assert_eq!((fetched.status, fetched.body.as_ref()), (StatusCode::OK, package().as_slice()));

    let update = json!({"Timeout": 9, "Environment": {}});
    let target = "/2015-03-31/functions/hello/configuration";
    let updated = server.call(Method::PUT, target, &update).await.json();
    assert_eq!(
        (&updated["Timeout"], &updated["LastUpdateStatus"]),
        (&json!(9), &json!("InProgress"))
    );
    assert_eq!(updated.get("Environment"), None);
    server.wait_active("hello").await;

    let deleted = server.call(Method::DELETE, "/2015-03-31/functions/hello", &Value::Null).await;
    assert_eq!((deleted.status, deleted.body.len()), (StatusCode::NO_CONTENT, 0));
    let gone = server.call(Method::GET, "/2015-03-31/functions/hello", &Value::Null).await;
    assert_eq!((gone.status, gone.error()), (StatusCode::NOT_FOUND, "ResourceNotFoundException"));
    assert_eq!(gone.json()["Type"], "User");
    server.end().await;
}

#[tokio::test]
async fn functions_are_listed_by_pages() {
    let server = Server::start(|_| {}).await;
    for name in ["a", "b", "c"] {
        assert_eq!(server.create(name).await.status, StatusCode::CREATED);
    }
    let mut target = "/2015-03-31/functions/?MaxItems=2&FunctionVersion=ALL".to_owned();
    let first = server.call(Method::GET, &target, &Value::Null).await.json();
    let names = |page: &Value| -> Vec<String> {
        let functions = page["Functions"].as_array().expect("a list");
        functions.iter().map(|f| f["FunctionArn"].as_str().expect("text").to_owned()).collect()
    };
    assert_eq!(names(&first).len(), 2);
    assert!(names(&first)[0].ends_with(":function:a:$LATEST"));
    target.push_str("&Marker=");
    target.push_str(first["NextMarker"].as_str().expect("another page"));
    let second = server.call(Method::GET, &target, &Value::Null).await.json();
    assert_eq!(names(&second).len(), 1);
    assert_eq!(second.get("NextMarker"), None);
    assert_eq!(second["Functions"][0].get("State"), None);
    server.end().await;
}

#[tokio::test]
async fn what_is_not_supported_is_refused_by_name() {
    let server = Server::start(|_| {}).await;
    let input = json!({
        "FunctionName": "x", "Runtime": "python3.13", "Role": "r", "Handler": "h",
        "Code": {"S3Bucket": "bucket", "S3Key": "key"}, "Layers": ["arn"],
    });
    let reply = server.call(Method::POST, "/2015-03-31/functions", &input).await;
    assert_eq!(reply.error(), "InvalidParameterValueException");
    assert!(reply.json()["message"].as_str().expect("text").contains("Layers"));
    let reply = server
        .call(Method::POST, "/2021-10-31/functions/x/url", &json!({"AuthType": "NONE"}))
        .await;
    assert_eq!(reply.status, StatusCode::NOT_IMPLEMENTED);
    assert_eq!(reply.error(), "NotImplementedException");
    assert!(reply.json()["message"].as_str().expect("text").contains("CreateFunctionUrlConfig"));
    let reply = server.call(Method::GET, "/2015-03-31/nothing", &Value::Null).await;
    assert_eq!((reply.status, reply.error()), (StatusCode::NOT_FOUND, "UnknownOperationException"));
    server.end().await;
}

#[tokio::test]
async fn all_that_a_create_request_violates_is_named_at_once() {
    let server = Server::start(|_| {}).await;
    let refused = async |input: Value| {
        let reply = server.call(Method::POST, "/2015-03-31/functions", &input).await;
        assert_eq!((reply.status, reply.error()), (StatusCode::BAD_REQUEST, "ValidationException"));
        reply.json()["message"].as_str().expect("text").to_owned()
    };
    assert_eq!(
        refused(json!({"FunctionName": "x"})).await,
        "2 validation errors detected: Value null at 'code' failed to satisfy constraint: Member \
         must not be null; Value null at 'role' failed to satisfy constraint: Member must not be \
         null"
    );
    let message = refused(json!({
        "FunctionName": "a b", "Runtime": "python3.13", "Handler": "h", "Role": "x", "Timeout": 0,
        "MemorySize": 1, "EphemeralStorage": {"Size": -1}, "Code": {"ZipFile": ""},
    }))
    .await;
    assert!(message.starts_with("5 validation errors detected: Value 'a b' at"), "{message}");
    for path in ["functionName", "role", "timeout", "memorySize", "ephemeralStorage.size"] {
        assert_eq!(message.matches(&format!("at '{path}'")).count(), 1, "{path}: {message}");
    }
    assert!(refused(json!({})).await.starts_with("3 validation errors detected: "));
    server.end().await;
}

#[tokio::test]
async fn names_of_other_places_are_refused_as_aws_does() {
    let server = Server::start(|_| {}).await;
    let ask = async |name: &str| {
        let target = format!("/2015-03-31/functions/{}", name.replace(':', "%3A"));
        let reply = server.call(Method::GET, &target, &Value::Null).await;
        let document = reply.json();
        let message = document.get("Message").or_else(|| document.get("message"));
        (reply.error().to_owned(), message.and_then(Value::as_str).expect("text").to_owned())
    };
    let mut answers = Vec::new();
    for name in [
        "missing",
        "missing:$LATEST",
        "missing:7",
        "arn:aws:lambda:eu-west-1:000000000000:function:x",
        "arn:aws:lambda:us-east-1:111111111111:function:x",
        "a/b",
        "x:live?Qualifier=dead",
    ] {
        answers.push((name, ask(name).await));
    }
    insta::assert_json_snapshot!("names", answers);
    server.end().await;
}

#[tokio::test]
async fn without_a_valid_signature_nothing_is_answered() {
    let server = Server::start(|_| {}).await;
    let uri = format!("http://{}/2015-03-31/functions", server.address);
    let bare = Request::get(&uri).body(Full::default()).expect("a request");
    let reply = server.send(bare).await;
    assert_eq!(reply.status, StatusCode::FORBIDDEN);
    assert_eq!(reply.error(), "MissingAuthenticationTokenException");
    assert_eq!(reply.json(), json!({"message": "Missing Authentication Token"}));

    let mut forger = Server { key: server.key.clone(), ..Server::start(|_| {}).await };
    forger.address = server.address;
    forger.key.secret_access_key = Secret::new("wrong".into());
    let reply = forger.call(Method::GET, "/2015-03-31/functions", &Value::Null).await;
    assert_eq!(reply.error(), "InvalidSignatureException");
    forger.key.access_key_id = "AKIASTRANGER".into();
    let reply = forger.call(Method::GET, "/2015-03-31/functions", &Value::Null).await;
    assert_eq!(reply.error(), "UnrecognizedClientException");
    let request = forger.signed_for("sts", Method::POST, "/", b"Action=GetCallerIdentity");
    let reply = forger.send(request).await;
    let text = std::str::from_utf8(&reply.body).expect("XML");
    assert!(text.contains("<Code>InvalidClientTokenId</Code>"), "{text}");
    forger.end().await;
    server.end().await;
}

#[tokio::test]
async fn the_caller_is_told_who_it_is() {
    let server = Server::start(|_| {}).await;
    let form = b"Action=GetCallerIdentity&Version=2011-06-15";
    let reply = server.send(server.signed_for("sts", Method::POST, "/", form)).await;
    let text = std::str::from_utf8(&reply.body).expect("XML");
    assert!(text.contains("<Arn>arn:aws:iam::000000000000:root</Arn>"), "{text}");
    assert!(text.contains("<UserId>000000000000</UserId><Account>000000000000</Account>"));
    let other = server.signed_for("sts", Method::POST, "/", b"Action=AssumeRole");
    let refused = server.send(other).await;
    let text = std::str::from_utf8(&refused.body).expect("XML");
    assert_eq!(refused.status, StatusCode::BAD_REQUEST);
    assert!(text.contains("<Code>InvalidAction</Code>"), "{text}");
    server.end().await;
}

#[tokio::test]
async fn the_nodes_own_documents_need_a_key_and_health_does_not() {
    let server = Server::start(|_| {}).await;
    for name in ["info", "doctor", "runtimes"] {
        let target = format!("/_lacewing/v1/{name}");
        let reply = server.send(server.signed_for("lacewing", Method::GET, &target, b"")).await;
        assert_eq!(reply.json(), json!(name));
    }
    let uri = format!("http://{}/health", server.address);
    let reply = server.send(Request::get(&uri).body(Full::default()).expect("valid")).await;
    assert_eq!((reply.status, reply.json()), (StatusCode::OK, json!({"status": "ok"})));
    let reply = server.send(server.request(Method::GET, "/_lacewing/v1/info", b"")).await;
    assert_eq!(reply.status, StatusCode::NOT_FOUND);
    server.end().await;
}

#[tokio::test]
async fn an_oversize_payload_is_refused_and_the_answer_is_read() {
    let server = Server::start(|_| {}).await;
    let body = vec![b' '; 6 * 1024 * 1024 + 1];
    let target = "/2015-03-31/functions/hello/invocations";
    let reply = server.send(server.request(Method::POST, target, &body)).await;
    assert_eq!(reply.status, StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(reply.error(), "RequestTooLargeException");
    let message = "Request must be smaller than 6291456 bytes for the InvokeFunction operation";
    assert_eq!(reply.json(), json!({"Type": "User", "message": message}));
    let reply = server.send(server.request(Method::POST, "/2015-03-31/functions", b"{")).await;
    assert_eq!(reply.error(), "InvalidRequestContentException");
    server.end().await;
}

#[tokio::test]
async fn a_client_that_never_finishes_its_headers_is_disconnected() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let server =
        Server::start(|options| options.header_patience = Duration::from_millis(200)).await;
    for sent in [&b""[..], b"P", b"PO", b"POST / HTTP/1.1\r\nHost: x\r\nX-Slow:"] {
        let mut stream = TcpStream::connect(server.address).await.expect("connects");
        stream.write_all(sent).await.expect("writes");
        let mut answer = Vec::new();
        let closed =
            tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut answer)).await;
        assert!(closed.is_ok(), "the connection stayed open after {sent:?}");
    }
    server.end().await;
}

#[tokio::test]
async fn a_stopping_server_finishes_what_it_has_begun() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let server = Server::start(|_| {}).await;
    let request = server.request(Method::GET, "/2015-03-31/functions", b"");
    let mut text = "GET /2015-03-31/functions HTTP/1.1\r\n".to_owned();
    for (name, value) in request.headers() {
        text.push_str(&format!("{name}: {}\r\n", value.to_str().expect("ASCII")));
    }
    assert!(request.headers().contains_key(HOST));
    text.push_str("Content-Length: 1\r\n\r\n");
    let mut stream = TcpStream::connect(server.address).await.expect("connects");
    stream.write_all(text.as_bytes()).await.expect("writes");
    tokio::time::sleep(Duration::from_millis(100)).await;
    server.stop.cancel();
    tokio::time::sleep(Duration::from_millis(100)).await;
    stream.write_all(b"x").await.expect("the connection is still there");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("an answer");
    // The byte was not what was signed: the point is that it is answered.
    assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
    server.end().await;
}

#[tokio::test]
async fn both_versions_of_http_are_spoken_on_one_port() {
    let server = Server::start(|_| {}).await;
    for http2 in [false, true] {
        let request = server.request(Method::GET, "/2016-08-19/account-settings", b"");
        let reply = server.send_by(http2, request).await;
        assert_eq!(reply.status, StatusCode::OK, "{:?}", reply.body);
        assert_eq!(reply.json()["AccountLimit"]["ConcurrentExecutions"], 1_000);
        assert_eq!(reply.headers["x-amzn-requestid"].len(), 36);
    }
    server.end().await;
}

#[tokio::test]
async fn a_refused_client_that_waits_for_a_go_ahead_is_not_told_to_send() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let server = Server::start(|_| {}).await;
    let mut stream = TcpStream::connect(server.address).await.expect("connects");
    let head = "POST /2015-03-31/functions HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n\
                Content-Length: 50000000\r\n\r\n";
    stream.write_all(head.as_bytes()).await.expect("writes");
    let mut answer = vec![0; 12];
    stream.read_exact(&mut answer).await.expect("an answer");
    assert_eq!(answer, b"HTTP/1.1 403");
    server.end().await;
}

#[tokio::test]
async fn an_endpoint_inside_a_sandbox_serves_the_same_until_it_is_closed() {
    let server = Server::start(|_| {}).await;
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let closed = CancellationToken::new();
    server.tasks.spawn(server.gateway.clone().serve_endpoint(listener, closed.clone()));
    let inside = |uri: &str| Request::get(uri).body(Full::default()).expect("a request");
    let health = format!("http://{address}/health");
    assert_eq!(server.send(inside(&health)).await.status, StatusCode::OK);
    closed.cancel();
    for _attempt in 0..100 {
        if TcpStream::connect(address).await.is_err() {
            server.end().await;
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the endpoint was not closed");
}

mod access;
mod slow;

//! A launcher, a store and a starter in a temporary directory, and functions made from text.

use std::collections::BTreeMap;
use std::io::Cursor;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use tempfile::TempDir;
use uuid::Uuid;

use lacewing_model::function::{Architecture, Code, Environment, State, UpdateStatus};
use lacewing_model::usage::Trigger;
use lacewing_model::{
    AccountId, Credentials, Family, Function, FunctionConfig, FunctionKey, FunctionName,
    Invocation, Logging, Outcome, Region, RequestId, RuntimeId, Secret, SystemClock, Timestamp,
    Version,
};
use lacewing_runtime::{
    Completion, EndpointListeners, Instance, Interpreter, LogReceiver, Options, Premises, Runtimes,
    StartRequest, Starter,
};
use lacewing_sandbox::{Cpu, Isolation, Launcher, LauncherOptions, ScratchOptions};
use lacewing_store::Store;

/// Everything that an Instance needs.
pub(crate) struct Bed {
    pub(crate) starter: Starter,
    pub(crate) logs: LogReceiver,
    pub(crate) endpoints: EndpointListeners,
    pub(crate) runtimes: Arc<Runtimes>,
    store: Store,
    launcher: Launcher,
    _directory: TempDir,
}

/// What runs a function: a test that needs a language means something with any version of it.
#[derive(Clone, Copy)]
pub(crate) enum Wanted {
    Newest(Family),
    This(RuntimeId),
}

/// A function in the making.
pub(crate) struct Source {
    pub(crate) runtime: Wanted,
    pub(crate) handler: &'static str,
    pub(crate) files: Vec<(&'static str, Vec<u8>, u32)>,
    pub(crate) timeout_seconds: u32,
    pub(crate) memory_mb: u32,
    pub(crate) environment: Vec<(&'static str, &'static str)>,
}

impl Source {
    pub(crate) fn python(code: &str) -> Self {
        Self::of(Wanted::Newest(Family::Python), "app.handler", "app.py", code, 0o644)
    }

    pub(crate) fn node(code: &str) -> Self {
        Self::of(Wanted::Newest(Family::Node), "index.handler", "index.js", code, 0o644)
    }

    pub(crate) fn custom(bootstrap: &str) -> Self {
        let runtime = "provided.al2023".parse().expect("known");
        Self::of(Wanted::This(runtime), "main", "bootstrap", bootstrap, 0o755)
    }

    fn of(
        runtime: Wanted,
        handler: &'static str,
        file: &'static str,
        code: &str,
        mode: u32,
    ) -> Self {
        Self {
            runtime,
            handler,
            files: vec![(file, code.as_bytes().to_vec(), mode)],
            timeout_seconds: 3,
            memory_mb: 256,
            environment: Vec::new(),
        }
    }
}

impl Bed {
    /// Makes one, or says why not.
    pub(crate) fn new() -> Option<Self> {
        Self::with_blanks(0, false)
    }

    /// Makes one where functions of that language can run, or says why not.
    pub(crate) fn offering(family: Family) -> Option<Self> {
        Self::new()?.if_offered(family)
    }

    /// None, and a word about it, where the machine lacks the language.
    pub(crate) fn if_offered(self, family: Family) -> Option<Self> {
        let there = self.newest(family).is_some();
        if !there {
            skip(&format!("no {family:?} on this machine"));
        }
        there.then_some(self)
    }

    /// The same, where so many blank Instances wait once [`Starter::keep_blanks`] runs, forked or started.
    pub(crate) fn with_blanks(blanks: usize, forks: bool) -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            skip("sandboxes are tested as root");
            return None;
        }
        let directory = tempfile::tempdir().expect("a directory");
        let clock = Arc::new(SystemClock);
        let store = lacewing_store::memory::open(clock.clone());
        let path = std::env::var_os("PATH");
        let runtimes = Runtimes::discover(&BTreeMap::new(), path.as_deref()).expect("found");
        let runtimes = Arc::new(runtimes);
        let options = Options {
            code_dir: directory.path().join("code"),
            run_dir: directory.path().join("run"),
            network: lacewing_model::NetworkBounds::default(),
            endpoint_port: 9002,
            region: Region::new("us-east-1").expect("valid"),
            forks,
            has_own_root: false,
            blanks,
        };
        let premises = Premises::prepare(options, Arc::clone(&runtimes)).expect("premises");
        let options = LauncherOptions {
            owner: Uuid::new_v4().simple().to_string(),
            isolation: Isolation::BestEffort,
            cpu: Cpu::Fair,
            uid_base: 700_000,
            uid_count: 1_000,
            cgroup_parent: None,
            root: None,
            sources: premises.sources(),
            shared: Some(premises.shared().to_owned()),
            origins: premises.origins(),
            scratch: Some(ScratchOptions {
                dir: directory.path().to_owned(),
                expected: lacewing_runtime::tmp_of(512),
                most_bytes: u64::MAX,
            }),
            network: lacewing_sandbox::NetworkOptions::none(),
            empty: 2,
        };
        let exe = PathBuf::from(env!("CARGO_BIN_EXE_lacewing-runtime-launcher"));
        let launcher = Launcher::start(&exe, &options).expect("a launcher");
        let made = Starter::new(premises, launcher.clone(), store.blobs.clone(), clock);
        let (starter, endpoints, logs) = made.expect("a starter");
        Some(Self { starter, logs, endpoints, runtimes, store, launcher, _directory: directory })
    }

    /// The newest version of the language that this machine has.
    pub(crate) fn newest(&self, family: Family) -> Option<Interpreter> {
        let mut offered = self.runtimes.list().into_iter();
        offered.rfind(|interpreter| interpreter.runtime.family == family)
    }

    /// How the first record of a function of the newest version begins, up to the patch.
    pub(crate) fn init_start(&self, family: Family) -> String {
        let runtime = self.newest(family).expect("offered").runtime;
        let (language, version) = match (family, runtime.version) {
            (Family::Python, (major, minor)) => ("python", format!("{major}.{minor}")),
            (_, (major, _)) => ("nodejs", major.to_string()),
        };
        format!("INIT_START Runtime Version: {language}:{version}.v")
    }

    pub(crate) async fn function(&self, source: &Source) -> Function {
        let code = self.upload(source).await;
        let runtime = match source.runtime {
            Wanted::Newest(family) => self.newest(family).expect("offered").runtime,
            Wanted::This(runtime) => runtime,
        };
        let environment = source
            .environment
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect();
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        Function {
            key: FunctionKey {
                account: account(),
                region: Region::new("us-east-1").expect("valid"),
                name: FunctionName::new(&format!("function-{number}")).expect("valid"),
            },
            version: Version::Latest,
            lineage: Uuid::nil(),
            config: FunctionConfig {
                runtime,
                handler: source.handler.to_owned(),
                role: "arn:aws:iam::000000000000:role/lambda".to_owned(),
                description: String::new(),
                timeout_seconds: source.timeout_seconds,
                memory_mb: source.memory_mb,
                ephemeral_mb: 512,
                architecture: Architecture::HOST,
                logging: Logging::default(),
                snap_start: false,
                environment: Some(Environment(environment)),
                tags: BTreeMap::new(),
            },
            code,
            state: State::Active,
            last_update: UpdateStatus::Successful,
            before: None,
            state_reason: None,
            revision_id: Uuid::new_v4(),
            last_modified: Timestamp::default(),
            generation: 7,
        }
    }

    async fn upload(&self, source: &Source) -> Code {
        let directory = tempfile::tempdir().expect("a directory");
        let mut names = Vec::new();
        for (name, content, mode) in &source.files {
            let path = directory.path().join(name);
            std::fs::create_dir_all(path.parent().expect("a parent")).expect("directories");
            std::fs::write(&path, content).expect("a file");
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(*mode))
                .expect("a mode");
            names.push(PathBuf::from(name));
        }
        let mut archive = Cursor::new(Vec::new());
        lacewing_archive::pack(directory.path(), &names, &mut archive, &mut |_| {})
            .expect("an archive");
        let bytes = Bytes::from(archive.into_inner());
        let size = bytes.len() as u64;
        let stream = stream::once(async move { Ok(bytes) }).boxed();
        let (digest, _) = self.store.blobs.put(&account(), stream).await.expect("stored");
        Code { digest, size }
    }

    pub(crate) async fn start(&self, source: &Source) -> Instance {
        self.start_function(self.function(source).await).await
    }

    pub(crate) async fn start_function(&self, function: Function) -> Instance {
        let request = Self::request(function);
        self.starter.start(request).await.expect("no fault of the platform")
    }

    pub(crate) fn request(function: Function) -> StartRequest {
        StartRequest {
            function: Arc::new(function),
            credentials: Credentials {
                access_key_id: "ASIATEST".to_owned(),
                secret_access_key: Secret::new("secret".to_owned()),
                session_token: Some(Secret::new("token".to_owned())),
                expires: None,
            },
            substitute: false,
            provisioned: false,
        }
    }

    /// The lines that are in the channel now, with ids and numbers as they are.
    pub(crate) async fn lines(&mut self) -> Vec<String> {
        let mut lines = Vec::new();
        let patience = Duration::from_millis(50);
        while let Ok(Some(batch)) = tokio::time::timeout(patience, self.logs.next()).await {
            assert!(batch.stream.contains("/[$LATEST]"), "{}", batch.stream);
            let text =
                |line: &lacewing_runtime::LogLine| String::from_utf8_lossy(&line.text).into_owned();
            lines.extend(batch.lines.iter().map(text));
        }
        lines
    }

    /// Ends everything and checks that nothing is left.
    pub(crate) async fn close(self, instances: Vec<Instance>) {
        for instance in instances {
            instance.retire().await;
        }
        self.starter.stopped().await;
        let launcher = self.launcher.clone();
        tokio::task::spawn_blocking(move || launcher.stop()).await.expect("stopped");
    }
}

/// Says why a test cannot be run here; where LACEWING_NO_SKIP is set that is a failure.
#[expect(clippy::print_stdout, reason = "a skipped test says why")]
fn skip(reason: &str) {
    assert!(std::env::var_os("LACEWING_NO_SKIP").is_none(), "skipped: {reason}");
    println!("skipped: {reason}");
}

/// Waits until something is so.
pub(crate) async fn eventually(what: &str, is_so: impl Fn() -> bool) {
    let becomes_so = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let patience = Duration::from_secs(20);
    assert!(tokio::time::timeout(patience, becomes_so).await.is_ok(), "never: {what}");
}

pub(crate) fn account() -> AccountId {
    AccountId::new("000000000000").expect("valid")
}

pub(crate) fn call(payload: impl Into<Bytes>) -> Invocation {
    Invocation {
        request_id: RequestId::random(),
        function: FunctionKey {
            account: account(),
            region: Region::new("us-east-1").expect("valid"),
            name: FunctionName::new("called").expect("valid"),
        },
        qualifier: None,
        payload: payload.into(),
        client_context: None,
        trace: Some("Root=1-5759e988-bd862e3fe1be46a994272793;Sampled=0".to_owned()),
        wants_log_tail: true,
        trigger: Trigger::Sync,
    }
}

/// What the handler returned.
pub(crate) fn returned(completion: &Completion) -> String {
    match &completion.outcome {
        Ok(Outcome::Returned(payload)) => String::from_utf8_lossy(payload).into_owned(),
        failed => panic!("{failed:?} {:?}", completion.log_tail),
    }
}

/// The error document that the caller got.
pub(crate) fn failed(completion: &Completion) -> serde_json::Value {
    match &completion.outcome {
        Ok(Outcome::Failed(error)) => serde_json::from_slice(&error.payload).expect("JSON"),
        other => panic!("{other:?}"),
    }
}

/// The log tail as text.
pub(crate) fn tail(completion: &Completion) -> String {
    String::from_utf8_lossy(completion.log_tail.as_deref().expect("a tail")).into_owned()
}

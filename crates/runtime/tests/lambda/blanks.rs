//! Functions that start in blank Instances see what they would see in any other.

use std::time::Duration;

use lacewing_model::{Family, Function};
use lacewing_runtime::{Instance, Starter};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use crate::bed::{Bed, Source, call, failed, returned};

/// What there is to see from inside; what differs between any two Instances is left out.
const PYTHON_WORLD: &str = "
import logging, os, resource, subprocess, sys, threading, time
def handler(event, context):
    env = {k: v for k, v in os.environ.items() if k != 'AWS_LAMBDA_LOG_STREAM_NAME'}
    shell = subprocess.run(['/bin/sh', '-c', 'pwd; echo $GREETING; stat -f -c %b /dev/shm /tmp'],
                           capture_output=True, text=True)
    logging.getLogger().warning('seen')
    mounts = sorted(line.split()[4:6] for line in open('/proc/self/mountinfo'))
    status = [line for line in open('/proc/self/status')
              if line.split(':')[0] in ('CapEff', 'CapPrm', 'CapBnd', 'Seccomp', 'NoNewPrivs', 'Uid', 'Gid')]
    init = [line for line in open('/proc/1/status')
            if line.split(':')[0] in ('CapEff', 'CapPrm', 'CapBnd', 'Seccomp', 'NoNewPrivs', 'Uid', 'Gid')]
    limits = [resource.getrlimit(n) for n in range(16)]
    return dict(env=env, argv=sys.argv, path=sys.path, cwd=os.getcwd(), name=__name__, shell=shell.stdout,
                fds=sorted(os.listdir('/proc/self/fd'))[:5], mounts=mounts, status=status, init=init,
                limits=limits, zone=time.tzname, handlers=len(logging.root.handlers),
                entropy=sys.flags.hash_randomization, umask=os.umask(0o22), ctypes='ctypes' in sys.modules,
                native=threading.main_thread().native_id == threading.get_native_id(), meta=len(sys.meta_path), exe=[sys.executable, sys.prefix, sys.base_prefix, sys.exec_prefix],
                copied=open('/proc/self/cmdline').read().endswith('origin\\0'))
";
const NODE_WORLD: &str = "
const fs = require('fs');
const { execSync } = require('child_process');
exports.handler = async () => {
  const env = { ...process.env };
  delete env.AWS_LAMBDA_LOG_STREAM_NAME;
  console.log('seen');
  return { env, argv: process.argv, exe: process.execPath, title: process.title, cwd: process.cwd(), execArgv: process.execArgv,
    zone: new Intl.DateTimeFormat().resolvedOptions().timeZone, hour: new Date(0).getHours(),
    heap: require('v8').getHeapStatistics().heap_size_limit, paths: module.paths,
    fds: fs.readdirSync('/proc/self/fd').slice(0, 5), pid: process.pid === Number(fs.readlinkSync('/proc/self')),
    copied: fs.readFileSync('/proc/self/cmdline', 'latin1').endsWith('origin\\0'), umask: process.umask(), listeners: process.eventNames().map(String).sort(),
    shell: execSync('pwd; echo $GREETING; stat -f -c %b /dev/shm /tmp').toString() };
};
";

/// A bed whose blank Instances are made in the background.
struct Blanks {
    bed: Bed,
    _stop: DropGuard,
}

impl Blanks {
    /// None where the machine lacks what the test needs.
    fn new(count: usize, family: Family) -> Option<Self> {
        Self::of(count, family, true)
    }

    /// The same, forked from an origin or not.
    fn of(count: usize, family: Family, forks: bool) -> Option<Self> {
        let bed = Bed::with_blanks(count, forks)?.if_offered(family)?;
        let (stop, starter) = (CancellationToken::new(), bed.starter.clone());
        let stopped = stop.clone();
        let keeper = TaskTracker::new();
        keeper.spawn(async move { starter.keep_blanks(&stopped).await });
        Some(Self { bed, _stop: stop.drop_guard() })
    }

    /// Starts a function in one that was made for it.
    async fn start(&self, function: Function) -> Instance {
        self.bed.starter.expect(&function, false);
        wait_for(&self.bed.starter, |count| count > 0).await;
        let before = self.bed.starter.blanks().used;
        let instance = self.bed.start_function(function).await;
        assert_eq!(self.bed.starter.blanks().used, before + 1, "it was taken");
        instance
    }
}

async fn wait_for(starter: &Starter, is_so: impl Fn(usize) -> bool) {
    for _ in 0..1_000 {
        if is_so(starter.blanks().waiting) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("never: {:?}", starter.blanks());
}

async fn worlds(family: Family, source: impl Fn() -> Source) {
    for forks in [true, false] {
        worlds_of(family, source(), forks).await;
    }
}

async fn worlds_of(family: Family, source: Source, forks: bool) {
    let Some(blanks) = Blanks::of(1, family, forks) else { return };
    let source = Source {
        environment: vec![
            ("GREETING", "hello = \u{e4}"),
            ("TZ", "Europe/Berlin"),
            ("AWS_LAMBDA_LOG_LEVEL", "DEBUG"),
        ],
        ..source
    };
    let function = blanks.bed.function(&source).await;
    let mut furnished = blanks.start(function.clone()).await;
    let other = Bed::new().expect("root");
    let mut plain = {
        let mut same = other.function(&source).await;
        same.key = function.key;
        other.start_function(same).await
    };
    let (one, two) = (furnished.invoke(&call("{}")).await, plain.invoke(&call("{}")).await);
    let (one, two) = (returned(&one), returned(&two));
    let world = |text: &str| -> serde_json::Value { serde_json::from_str(text).expect("JSON") };
    let (one, two) = (world(&one), world(&two));
    for (name, value) in two.as_object().expect("an object") {
        if name != "copied" {
            assert_eq!(one[name], *value, "{name}");
        }
    }
    assert_eq!(one["copied"], forks && cfg!(target_arch = "x86_64"));
    assert!(one["env"]["GREETING"] == "hello = \u{e4}" && one["cwd"] == "/var/task");
    blanks.bed.close(vec![furnished]).await;
    other.close(vec![plain]).await;
}

#[tokio::test]
async fn a_python_function_sees_what_it_would_see_in_any_other() {
    worlds(Family::Python, || Source::python(PYTHON_WORLD)).await;
}

#[tokio::test]
async fn a_node_function_sees_what_it_would_see_in_any_other() {
    worlds(Family::Node, || Source::node(NODE_WORLD)).await;
}

#[tokio::test]
async fn the_log_of_the_first_invocation_is_the_same() {
    let Some(mut blanks) = Blanks::new(1, Family::Python) else { return };
    let code = "import logging\nprint('loading')\n\
                def handler(event, context):\n    logging.warning('careful')\n    return 1\n";
    let source =
        Source { environment: vec![("AWS_LAMBDA_LOG_FORMAT", "JSON")], ..Source::python(code) };
    let function = blanks.bed.function(&source).await;
    let mut instance = blanks.start(function).await;
    let answer = instance.invoke(&call("{}")).await;
    assert!(answer.init.is_some(), "it was a cold start");
    let lines = blanks.bed.lines().await;
    assert!(lines[0].starts_with(&blanks.bed.init_start(Family::Python)), "{lines:?}");
    assert_eq!(lines[1], "loading");
    assert!(lines[2].starts_with("START RequestId: "), "{lines:?}");
    let record: serde_json::Value = serde_json::from_str(&lines[3]).expect("JSON");
    assert_eq!((&record["level"], &record["message"]), (&"WARNING".into(), &"careful".into()));
    assert!(lines[5].contains(" MB\tInit Duration: "), "{lines:?}");
    blanks.bed.close(vec![instance]).await;
}

#[tokio::test]
async fn an_error_of_init_is_told_as_ever() {
    let Some(blanks) = Blanks::new(1, Family::Python) else { return };
    let function = blanks.bed.function(&Source::python("import nowhere")).await;
    let mut instance = blanks.start(function).await;
    let answer = instance.invoke(&call("{}")).await;
    assert_eq!(failed(&answer)["errorType"], "Runtime.ImportModuleError");
    blanks.bed.close(vec![instance]).await;
}

#[tokio::test]
async fn what_is_read_at_start_makes_a_start_of_its_own() {
    let Some(blanks) = Blanks::new(1, Family::Python) else { return };
    let code = "import os\ndef handler(event, context): return os.environ['LD_BIND_NOW']\n";
    let source = Source { environment: vec![("LD_BIND_NOW", "1")], ..Source::python(code) };
    let function = blanks.bed.function(&source).await;
    blanks.bed.starter.expect(&function, false);
    wait_for(&blanks.bed.starter, |count| count == 1).await;
    let mut instance = blanks.bed.start_function(function).await;
    assert_eq!(blanks.bed.starter.blanks().used, 0, "it was not taken");
    assert_eq!(returned(&instance.invoke(&call("{}")).await), "\"1\"");
    blanks.bed.close(vec![instance]).await;
}

#[tokio::test]
async fn used_ones_are_replaced_and_all_end_with_the_keeper() {
    let Some(blanks) = Blanks::new(4, Family::Python) else { return };
    let code = "def handler(event, context): return 1\n";
    let mut instances = Vec::new();
    for _ in 0..4 {
        let function = blanks.bed.function(&Source::python(code)).await;
        instances.push(blanks.start(function).await);
    }
    wait_for(&blanks.bed.starter, |count| count == 2).await;
    let Blanks { bed, _stop } = blanks;
    drop(_stop);
    wait_for(&bed.starter, |count| count == 0).await;
    bed.close(instances).await;
}

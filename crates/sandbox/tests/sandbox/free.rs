//! Programs that are held while they wait for whatever, with connections to servers of their sandbox.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use lacewing_sandbox::{Event, Launcher, Role, Spec, Stance};

use crate::snapshot::{Running, able, begin, python, verdict};
use crate::support::{finish, ready};

const PORT: u16 = 9001;

/// Has two connections, waits at the first for an answer and in threads for other things; then tells what it
/// got, from where, and what its threads have heard.
const CLIENT: &str = "
import os, select, signal, socket, threading, time
def connect():
    return socket.create_connection(('127.0.0.1', 9001))
first, second = connect(), connect()
second.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
first.sendall(b'question')
heard, (reader, writer), (one, other) = [], os.pipe(), socket.socketpair()
twin, another, poller = os.dup(second.fileno()), one.dup(), select.epoll()
same = select.epoll.fromfd(os.dup(poller.fileno()))
same.register(other, select.EPOLLIN)
def reads():
    heard.append(os.read(reader, 9))
def sleeps():
    time.sleep(0.1)
    heard.append('slept')
    select.poll().poll(600_000)
threads = [threading.Thread(target=target, daemon=True) for target in (reads, sleeps)]
[thread.start() for thread in threads]
time.sleep(0.3)
MORE
print('initialised', flush=True)
got = first.recv(99)
os.write(writer, b'written')
threads[0].join(10)
while len(os.listdir('/proc/self/task')) > 2: time.sleep(0.01)
os.write(twin, b'more')
another.sendall(b'over')
ready = same.poll(10) == poller.poll(10) == [(other.fileno(), select.EPOLLIN)] and other.recv(9) == b'over'
print(got, heard, ready, second.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0, first.gettimeout(),
      len(os.listdir('/proc/self/task')), sorted(os.listdir('/proc/self/fd'))[:4], flush=True)
";

fn client(more: &str) -> Spec {
    let mut wanted = python(&CLIENT.replace("MORE", more));
    wanted.listeners = vec![PORT];
    wanted.role = Role::Snapshot;
    wanted
}

/// Two connections, the one with the question first.
fn accept(listener: &TcpListener) -> [TcpStream; 2] {
    // It comes as what an event loop wants.
    listener.set_nonblocking(false).unwrap();
    [(); 2].map(|()| {
        let (stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        stream
    })
}

/// A client that stands unless it cannot, with its connections.
fn held(launcher: &Launcher, more: &str) -> (Running, [TcpStream; 2], Result<(), String>) {
    let mut running = begin(&client(more), |spec, fds| launcher.spawn(spec, fds));
    let listeners = ready(&running.sandbox);
    let mut connections = accept(&listeners[0]);
    let mut question = [0; 8];
    connections[0].read_exact(&mut question).unwrap();
    assert_eq!(&question, b"question");
    connections[1].write_all(if more.contains("ANSWER") { b"answer" } else { b"" }).unwrap();
    assert_eq!(running.line(), "initialised");
    let verdict = verdict(&running.sandbox, Stance::Free);
    (running, connections, verdict)
}

#[test]
fn each_copy_goes_on_with_connections_from_the_same_ports() {
    let Some(launcher) = able() else { return };
    let (snapshot, connections, verdict) = held(&launcher, "");
    verdict.unwrap();
    let ports = connections.each_ref().map(|one| one.peer_addr().unwrap().port());
    for answer in ["one", "two"] {
        let wanted = Spec { role: Role::Program, ..client("") };
        let mut copy = begin(&wanted, |spec, fds| launcher.restore(&snapshot.sandbox, spec, fds));
        let listeners = ready(&copy.sandbox);
        let mut anew = accept(&listeners[0]);
        anew.sort_by_key(|one| one.peer_addr().unwrap().port() != ports[0]);
        assert_eq!(anew.each_ref().map(|one| one.peer_addr().unwrap().port()), ports);
        anew[0].write_all(answer.as_bytes()).unwrap();
        let mut more = [0; 4];
        anew[1].read_exact(&mut more).unwrap();
        assert_eq!(&more, b"more");
        let said = copy.line();
        let wanted = format!("b'{answer}' ['slept', b'written'] True True None 2 ");
        assert!(said.starts_with(&wanted), "{said}");
    }
    let [mut first, mut second] = connections;
    first.set_nonblocking(true).unwrap();
    second.set_nonblocking(true).unwrap();
    let nothing = |stream: &mut TcpStream| stream.read(&mut [0; 9]).unwrap_err().kind();
    assert_eq!(nothing(&mut first), std::io::ErrorKind::WouldBlock, "it is a copy's no more");
    assert_eq!(nothing(&mut second), std::io::ErrorKind::WouldBlock);
}

/// What a client does beside, and the reason why it is not held then.
const UNFIT: [(&str, &str); 20] = [
    ("select.select([second], [], [], 30)  # ANSWER", "open files or connections: socket:"),
    ("another.close(); one.close()", "open files or connections: socket:"),
    ("one.sendall(b'x')", "open files or connections: socket:"),
    ("one.shutdown(socket.SHUT_RDWR)", "open files or connections: socket:"),
    ("one.shutdown(socket.SHUT_WR)", "open files or connections: socket:"),
    ("other.shutdown(socket.SHUT_WR)", "open files or connections: socket:"),
    ("other.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, bytes([9] + 15 * [0]))", "socket:"),
    ("more = socket.socketpair(type=socket.SOCK_DGRAM); more[0].send(b'')", "socket:"),
    ("more = socket.socketpair(type=socket.SOCK_DGRAM); more[1].send(b'')", "socket:"),
    ("more = socket.create_server(('127.0.0.1', 9003))", "open files or connections: socket:"),
    (
        "more = socket.create_server(('127.0.0.1', 9003)); own = socket.create_connection(('127.0.0.1', 9003))",
        "open files or connections: socket:",
    ),
    ("second.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, bytes([9] + 15 * [0]))", "socket:"),
    ("second.shutdown(socket.SHUT_WR)", "open files or connections: socket:"),
    ("many = [os.dup(0) for _ in range(40)]", "open files or connections: 5"),
    (
        "null = os.open('/dev/null', os.O_WRONLY); os.dup2(null, 2)",
        "descriptor 2 is not what it was given",
    ),
    ("os.dup2(twin, 0)", "descriptor 0 is not /dev/null"),
    ("import resource; signal.setitimer(signal.ITIMER_REAL, 99)", "it has timers"),
    (
        "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1]); signal.pthread_kill(threading.get_ident(), signal.SIGUSR1)",
        "signals wait for it",
    ),
    (
        "r, w = os.pipe(); kept = os.dup(r); poller.register(r, select.EPOLLIN); os.dup2(one.fileno(), r)",
        "more than can be made anew",
    ),
    (
        "many = [os.pipe() for _ in range(6)]; [os.write(w, bytes(1000)) for _, w in many]",
        "more than can be made",
    ),
];

#[test]
fn what_cannot_be_made_anew_is_not_held() {
    let Some(launcher) = able() else { return };
    for (more, reason) in UNFIT {
        let (_snapshot, _connections, verdict) = held(&launcher, more);
        let why = verdict.unwrap_err();
        assert!(why.contains(reason), "{more}: {why}");
    }
}

/// A thread that waits with another mode of rounding than all others, and with a name that is no text.
const ROUNDING: &str = "
import ctypes, os, threading
libm, libc, go = ctypes.CDLL('libm.so.6'), ctypes.CDLL(None), threading.Event()
def one():
    libc.prctl(15, b'\\xff\\xfe odd', 0, 0, 0)
    libm.fesetround(0x800)
    go.wait()
    name = open(f'/proc/self/task/{threading.get_native_id()}/comm', 'rb').read()
    print(libm.fegetround() == 0x800, name == b'\\xff\\xfe odd\\n', flush=True)
threading.Thread(target=one, daemon=True).start()
import time; time.sleep(0.2)
libc.prctl(15, b'\\xfe first', 0, 0, 0)
";

#[test]
fn threads_keep_their_modes_and_names() {
    let Some(launcher) = able() else { return };
    let wanted = Spec { role: Role::Snapshot, ..python(ROUNDING) };
    let mut snapshot = begin(&wanted, |spec, fds| launcher.spawn(spec, fds));
    ready(&snapshot.sandbox);
    assert_eq!(snapshot.line(), "initialised");
    verdict(&snapshot.sandbox, Stance::Framed).unwrap();
    let mut copy = begin(&python(""), |spec, fds| launcher.restore(&snapshot.sandbox, spec, fds));
    ready(&copy.sandbox);
    assert_eq!(copy.says("libm.fegetround(), go.set()"), "(0, None)");
    assert_eq!(copy.line(), "True True");
}

/// Ends as soon as its first thread goes on, under a name that is no text, while others still stand.
const HASTY: &str = "
import ctypes, os, threading
libc = ctypes.CDLL(None)
for _ in range(40):
    threading.Thread(target=threading.Event().wait, daemon=True).start()
import time; time.sleep(0.2)
print('initialised', flush=True)
os.read(3, 9)
open('/proc/self/comm', 'wb').write(b'\\xff\\xfe')
os._exit(9)
";

#[test]
fn who_ends_at_once_leaves_its_keeper_alone() {
    let Some(launcher) = able() else { return };
    let wanted = |role: Role| {
        let mut wanted = python(HASTY);
        (wanted.limits.pids, wanted.role) = (64, role);
        wanted
    };
    let mut snapshot = begin(&wanted(Role::Snapshot), |spec, fds| launcher.spawn(spec, fds));
    ready(&snapshot.sandbox);
    assert_eq!(snapshot.line(), "initialised");
    verdict(&snapshot.sandbox, Stance::Framed).unwrap();
    for _ in 0..10 {
        let spec = wanted(Role::Program);
        let mut copy = begin(&spec, |spec, fds| launcher.restore(&snapshot.sandbox, spec, fds));
        copy.frames.write_all(b"go").unwrap();
        ready(&copy.sandbox);
        let (events, _) = finish(&copy.sandbox);
        assert!(matches!(events[..], [Event::Exited { code: 9 }]), "{events:?}");
    }
}

#[test]
fn who_does_not_wait_is_not_held() {
    let Some(launcher) = able() else { return };
    let busy =
        "def spin():\n    while True: pass\nthreading.Thread(target=spin, daemon=True).start()";
    let (_snapshot, _connections, verdict) = held(&launcher, busy);
    let why = verdict.unwrap_err();
    assert!(why.contains("does not wait"), "{why}");
}

/// As many threads as may be, each with a name, a mask and a stack of its own; all of them say that they are there.
const CROWD: &str = "
import ctypes, os, signal, socket, threading
libc, begun, go, said = ctypes.CDLL(None), threading.Barrier(65), threading.Event(), []
gone = threading.Barrier(65)
def one(number):
    libc.prctl(15, b'thread-%d' % number, 0, 0, 0)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGRTMIN + number % 20})
    begun.wait()
    go.wait()
    mask = {int(it) - signal.SIGRTMIN for it in signal.pthread_sigmask(signal.SIG_BLOCK, [])}
    name = open(f'/proc/self/task/{threading.get_native_id()}/comm').read().strip()
    said.append((name, number % 20 in mask))
    gone.wait()
threads = [threading.Thread(target=one, args=[number], daemon=True) for number in range(64)]
[thread.start() for thread in threads]
begun.wait()
import time; time.sleep(0.3)
connection = socket.create_connection(('127.0.0.1', 9001))
print('initialised', flush=True)
connection.recv(9)
go.set()
gone.wait()
print(sorted(said) == sorted((f'thread-{number}', True) for number in range(64)), flush=True)
";

#[test]
fn as_many_threads_as_may_be_go_on() {
    let Some(launcher) = able() else { return };
    let wanted = |role: Role| {
        let mut wanted = python(CROWD);
        (wanted.listeners, wanted.limits.pids, wanted.role) = (vec![PORT], 128, role);
        wanted
    };
    let mut snapshot = begin(&wanted(Role::Snapshot), |spec, fds| launcher.spawn(spec, fds));
    let _listeners = ready(&snapshot.sandbox);
    assert_eq!(snapshot.line(), "initialised");
    verdict(&snapshot.sandbox, Stance::Free).unwrap();
    for _ in 0..2 {
        let restore = |spec: &Spec, fds: crate::support::Passed| {
            launcher.restore(&snapshot.sandbox, spec, fds)
        };
        let mut copy = begin(&wanted(Role::Program), restore);
        let listeners = ready(&copy.sandbox);
        listeners[0].set_nonblocking(false).unwrap();
        listeners[0].accept().unwrap().0.write_all(b"go").unwrap();
        assert_eq!(copy.line(), "True");
    }
}

//! What the way out costs: run by `make bench`. Ratios and medians of one run; nothing is judged.

use std::fs::File;
use std::io::Read;
use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use lacewing_sandbox::{Launcher, LauncherOptions, Network, NetworkOptions, Spec};

use crate::support::{PROBE, finish, launcher_with, options, probe, ready, shell, start};
use crate::world::World;

const ROUNDS: usize = 5;
const POURING: Duration = Duration::from_secs(2);

/// Takes one connection and reads for a while; gives bytes a second.
fn drain(listener: &TcpListener) -> f64 {
    let (mut stream, _) = listener.accept().unwrap();
    let mut buffer = vec![0; 1 << 20];
    let (started, mut bytes) = (Instant::now(), 0);
    while started.elapsed() < POURING {
        bytes += stream.read(&mut buffer).unwrap();
    }
    #[expect(clippy::cast_precision_loss, reason = "a rate to print")]
    let bytes = bytes as f64;
    bytes / started.elapsed().as_secs_f64()
}

fn listener(world: &World, namespace: &File) -> TcpListener {
    world.inside(namespace, || TcpListener::bind("[::]:0").unwrap())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn open() -> Option<Launcher> {
    launcher_with(&LauncherOptions { network: NetworkOptions::egress(), ..options() })
}

#[test]
#[ignore = "a bench, run by make bench"]
fn bench_throughput() {
    let Some(world) = World::new() else { return };
    let Some(launcher) = open() else { return };
    for server in ["203.0.113.10", "[2001:db8:2::10]"] {
        let (mut bare, mut ours) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            let sink = listener(&world, &world.internet);
            let address = format!("{server}:{}", sink.local_addr().unwrap().port());
            let mut direct =
                Command::new(PROBE).args(["pour", &address]).stdout(Stdio::null()).spawn().unwrap();
            bare.push(drain(&sink));
            direct.wait().unwrap();
            let spec = Spec { network: Network::Egress, ..probe(&["pour", &address]) };
            let (sandbox, _output) = start(&launcher, &spec);
            ours.push(drain(&sink));
            sandbox.kill();
            finish(&sandbox);
        }
        let (bare, ours) = (median(bare), median(ours));
        println!(
            "egress to {server}: {:.2} Gbit/s, a bare veth pair {:.2} Gbit/s, ratio {:.2}",
            ours * 8e-9,
            bare * 8e-9,
            ours / bare
        );
    }
}

#[test]
#[ignore = "a bench, run by make bench"]
fn bench_start() {
    let Some(_world) = World::new() else { return };
    let Some(launcher) = open() else { return };
    for network in [Network::None, Network::Egress] {
        for pause in [Duration::from_millis(50), Duration::ZERO] {
            let times = (0..100).map(|_| {
                std::thread::sleep(pause);
                let wanted = Spec { network, ..shell("exit 0") };
                let started = Instant::now();
                let sandbox = launcher.spawn(&wanted, Vec::new()).unwrap();
                ready(&sandbox);
                let time = started.elapsed();
                finish(&sandbox);
                time.as_secs_f64() * 1e3
            });
            let p50 = median(times.collect());
            println!("a sandbox with {network:?}, pause {pause:?}: ready after {p50:.2} ms (p50)");
        }
    }
}

//! `make test-vm`: the suites of the sandbox on another kind of host: Debian's kernel with cgroup v2
//! only, under qemu's software emulation, as root and as an ordinary user with a delegated cgroup.
//!
//! The machine sees the directories of this host that it needs, read-only and at the same paths, so
//! nothing is packed or installed; of the sources and of what was built it sees a copy, so that work
//! on them may go on. It is slow (a processor in software): what asserts times is left
//! out, and it is no part of `ci`. What it runs is in [`suites`].

mod machine;
mod outcome;
mod suites;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, bail, ensure};
use clap::Parser;
use serde_json::Value;

use crate::process::{cache, command, root, say, step, target};

use outcome::Outcome;
use suites::{Kind, Suite};

/// Programs of tests: name of the target, and its file.
type Programs = Vec<(String, PathBuf)>;

/// What the tests start, beside themselves.
const PROGRAMS: [&str; 3] = ["lacewing", "lacewing-sandbox-probe", "lacewing-test-rust-runtime"];

/// Options of `cargo xtask vm`.
#[derive(Debug, Parser)]
pub(crate) struct Args {
    /// Only the suites whose name contains one of these words.
    only: Vec<String>,
    /// Of the end-to-end suites only the tests that this chooses, as `-k` of pytest.
    #[arg(long)]
    tests: Option<String>,
    /// Of the end-to-end suites only these files, as `limits,attacks`.
    #[arg(long, value_delimiter = ',')]
    files: Vec<String>,
    /// How many times longer than on a real processor everything may take; more on a busy host.
    #[arg(long, default_value_t = suites::SLOWNESS, value_parser = clap::value_parser!(u32).range(1..=15))]
    slowness: u32,
}

impl Args {
    /// A bound for a suite on this host, of one that is right for the usual slowness.
    fn at_most(&self, seconds: u64) -> u64 {
        (seconds * u64::from(self.slowness)).div_ceil(u64::from(suites::SLOWNESS))
    }
}

/// Builds everything, runs the suites in the machine and tells how they ended.
///
/// # Errors
/// If something cannot be built, the machine does not end in time, or a suite failed or did not run.
pub(crate) fn run(args: &Args) -> Result<()> {
    step("build", &mut cargo(&["build", "--workspace", "--locked"])?)?;
    parse_profile()?;
    let programs = test_programs()?;
    let wanted = |suite: &Suite| {
        let name = suite.name();
        args.only.is_empty() || args.only.iter().any(|word| name.contains(word.as_str()))
    };
    let mut suites = suites::all(&programs, args)?;
    suites.retain(wanted);
    ensure!(!suites.is_empty(), "no suite is called so");
    let (mut boots_bad, mut outcomes) = (0, Vec::new());
    for kind in Kind::ALL {
        let (here, rest): (Vec<Suite>, Vec<Suite>) =
            suites.into_iter().partition(|it| it.kind == kind);
        suites = rest;
        if !here.is_empty() {
            let directory = target()?.join("vm").join(kind.name());
            if let Err(error) = boot(&directory, kind, &here, &programs) {
                say(&format!("{error:#}"));
                boots_bad += 1;
            }
            outcomes.extend(read(&directory, &here));
        }
    }
    tell(&outcomes)?;
    let bad = boots_bad + outcomes.iter().filter(|it| !it.is_good()).count();
    ensure!(bad == 0, "not everything passed in the virtual machine");
    Ok(())
}

/// The AppArmor profile is one: a parser of the release that it is for takes it, without a warning.
fn parse_profile() -> Result<()> {
    let mut parser = command(cache()?.join("vm/apparmor_parser"))?;
    parser.args(["--skip-kernel-load", "--skip-cache", "--warn=all", "--Werror"]);
    step("parse the AppArmor profile", parser.arg("dist/apparmor/lacewing"))
}

/// How the suites of one boot ended.
fn read(directory: &Path, suites: &[Suite]) -> Vec<Outcome> {
    let text = |name| fs::read_to_string(directory.join(name)).unwrap_or_default();
    let (results, console) = (text("results"), text("console.log"));
    suites.iter().map(|suite| Outcome::of(suite, &results, &console)).collect()
}

/// Says how everything ended, and what was left out and why.
fn tell(outcomes: &[Outcome]) -> Result<()> {
    say("=== summary of the virtual machine: tests passed/failed/left out; ! where it is not good");
    outcome::table(outcomes).iter().for_each(|line| say(line));
    for outcome in outcomes {
        outcome.remarks.iter().for_each(|line| say(&format!("{}: {line}", outcome.name)));
    }
    suites::LEFT_OUT.iter().for_each(|(what, why)| say(&format!("left out: {what}: {why}")));
    say(&format!("all that was said: {}/*/console.log", target()?.join("vm").display()));
    Ok(())
}

fn boot(directory: &Path, kind: Kind, suites: &[Suite], programs: &Programs) -> Result<()> {
    if directory.exists() {
        fs::remove_dir_all(directory).context("remove what an earlier run left")?;
    }
    fs::create_dir_all(directory).context("make the directory of the run")?;
    let lines: String = suites.iter().map(Suite::line).collect();
    fs::write(directory.join("suites"), lines)?;
    fs::write(directory.join("kind"), kind.name())?;
    compile_probe(&directory.join("probe"))?;
    fs::write(directory.join("guest"), path(&root().join("scripts/vm/guest"))?)?;
    let (tree, built) = (directory.join("tree"), directory.join("debug"));
    copy_tree(&tree)?;
    keep_programs(&built, programs)?;
    let mut shares = shares()?;
    shares.extend([(tree, root()), (built, target()?.join("debug"))]);
    // By its own clock the machine ends what takes too long; this is for one that hangs, and that
    // clock may be slower than ours where the host does other work.
    machine::boot(directory, kind.kernel(), &shares, suites::time(suites) * 4)
}

/// A copy of the files that git knows or would add: they may be edited while the machine runs.
fn copy_tree(tree: &Path) -> Result<()> {
    let mut git = command("git")?;
    git.args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]);
    let output = git.output().context("ask git for the files of the tree")?;
    ensure!(output.status.success(), "git does not list the files of the tree");
    for name in String::from_utf8(output.stdout)?.split_terminator('\0') {
        let (from, to) = (root().join(name), tree.join(name));
        // One that was deleted and not committed is listed, too.
        if from.exists() {
            fs::create_dir_all(to.parent().context("a file lies in a directory")?)?;
            fs::copy(&from, &to).with_context(|| from.display().to_string())?;
        }
    }
    Ok(())
}

/// Second names of what was built: the next build makes new files under the first ones.
fn keep_programs(built: &Path, programs: &Programs) -> Result<()> {
    let debug = target()?.join("debug");
    let mut names: Vec<PathBuf> = programs.iter().map(|(_, program)| program.clone()).collect();
    names.extend(PROGRAMS.map(|name| debug.join(name)));
    for from in names {
        let to = built.join(from.strip_prefix(&debug).context("a program lies elsewhere")?);
        fs::create_dir_all(to.parent().context("a program lies in a directory")?)?;
        fs::hard_link(&from, &to).with_context(|| from.display().to_string())?;
    }
    Ok(())
}

/// The static program that the attack tests put into functions; the machine has no compiler.
fn compile_probe(program: &Path) -> Result<()> {
    let mut rustc = command("rustc")?;
    rustc
        .args(["--edition=2021", "-O", "-Ctarget-feature=+crt-static", "-Cstrip=symbols"])
        .args(["tests/functions/probe/bootstrap.rs", "-o"])
        .arg(program);
    step("compile the probe", &mut rustc)
}

/// Directories of this host that the machine needs, and where they are in it.
fn shares() -> Result<Vec<(PathBuf, PathBuf)>> {
    let venv = fs::canonicalize(cache()?.join("venv")).context("there is no test virtualenv")?;
    let prefix = python_prefix(&venv)?;
    let other = snapshots_python(&prefix);
    let mut wanted: Vec<PathBuf> = ["/usr".into(), prefix, venv].into_iter().chain(other).collect();
    // A directory below a shared one is there already.
    let all = wanted.clone();
    wanted.retain(|dir| !all.iter().any(|other| dir != other && dir.starts_with(other)));
    let mut shares: Vec<_> = wanted.into_iter().map(|dir| (dir.clone(), dir)).collect();
    // The name that the tests know is a link.
    let packages = cache()?.join("workloads");
    shares.push((fs::canonicalize(&packages).context("there are no test packages")?, packages));
    shares.push(("/etc".into(), "/vm/etc".into()));
    Ok(shares)
}

/// Where the virtualenv's interpreter itself is.
fn python_prefix(venv: &Path) -> Result<PathBuf> {
    let output = command(venv.join("bin/python"))?
        .args(["-c", "import sys; print(sys.base_prefix, end='')"])
        .output()
        .context("ask the virtualenv's python")?;
    ensure!(output.status.success(), "the virtualenv's python does not run");
    Ok(PathBuf::from(String::from_utf8(output.stdout)?))
}

/// An interpreter of SnapStart's, where pyenv has one beside that of the tests.
fn snapshots_python(prefix: &Path) -> Option<PathBuf> {
    let versions = prefix.parent().filter(|it| it.ends_with(".pyenv/versions"))?;
    let names = fs::read_dir(versions).ok()?.filter_map(|entry| Some(entry.ok()?.file_name()));
    let found = names.filter(|name| name.to_string_lossy().starts_with("3.12.")).min()?;
    Some(versions.join(found)).filter(|it| it != prefix)
}

/// Builds the test programs of the sandbox.
fn test_programs() -> Result<Programs> {
    // With the features that the whole workspace has, so that nothing is compiled twice.
    let mut cargo = cargo(&["test", "--workspace", "--test", "sandbox", "--no-run", "--locked"])?;
    cargo.arg("--message-format=json").stderr(Stdio::inherit());
    let output = cargo.output().context("build the test programs")?;
    ensure!(output.status.success(), "the test programs could not be built");
    let messages = String::from_utf8(output.stdout)?;
    let found = messages.lines().filter_map(|line| {
        let message: Value = serde_json::from_str(line).ok()?;
        let program =
            message["executable"].as_str().filter(|_| message["profile"]["test"] == true)?;
        Some((message["target"]["name"].as_str()?.to_owned(), PathBuf::from(program)))
    });
    Ok(found.collect())
}

fn cargo(arguments: &[&str]) -> Result<std::process::Command> {
    let mut cargo = command(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))?;
    cargo.args(arguments);
    Ok(cargo)
}

fn path(path: &Path) -> Result<&str> {
    match path.to_str() {
        // The lists that the machine reads are separated by white space.
        Some(text) if !text.contains(char::is_whitespace) => Ok(text),
        _ => bail!("{} has white space or is not UTF-8", path.display()),
    }
}

//! Replays the committed corpora: what a fuzzer once found stays found, on a stable compiler.

use std::fs;
use std::path::{Path, PathBuf};

use lacewing_fuzz_targets::TARGETS;

fn fuzz() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz")
}

fn entries(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).expect("a directory of the repository");
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    paths.sort();
    paths
}

fn stems(directory: &Path) -> Vec<String> {
    let stem = |path: PathBuf| path.file_stem().map(|stem| stem.display().to_string());
    entries(directory).into_iter().filter_map(stem).collect()
}

#[test]
fn every_target_has_a_fuzzer_and_a_corpus() {
    let targets: Vec<&str> = TARGETS.iter().map(|(name, _)| *name).collect();
    assert_eq!(stems(&fuzz().join("fuzz_targets")), targets);
    assert_eq!(stems(&fuzz().join("corpus")), targets);
}

#[test]
fn every_input_of_the_corpora_holds() {
    for (name, run) in TARGETS {
        let inputs = entries(&fuzz().join("corpus").join(name));
        assert!(inputs.len() >= 3, "{name} has no corpus to speak of");
        for input in inputs {
            println!("{name}: {}", input.display());
            run(&fs::read(input).expect("a file of the repository"));
        }
    }
}

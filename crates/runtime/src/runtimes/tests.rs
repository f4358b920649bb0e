//! Precedence, substitution, and what is refused.

use super::*;

impl Runtimes {
    pub(crate) fn of(interpreters: impl IntoIterator<Item = Interpreter>) -> Self {
        Self { found: interpreters.into_iter().map(|one| (one.runtime, one)).collect() }
    }
}

fn of(ids: &[RuntimeId]) -> Runtimes {
    let interpreter = |runtime: &RuntimeId| Interpreter {
        runtime: *runtime,
        path: "/usr/bin/x".into(),
        prefix: "/usr".into(),
        version: "1.2.3".into(),
        origin: "/usr".into(),
    };
    Runtimes::of(ids.iter().map(interpreter))
}

fn served(runtimes: &Runtimes, wanted: RuntimeId) -> RuntimeId {
    let resolved = runtimes.resolve(wanted, true).expect("a substitute");
    resolved.interpreter.expect("an interpreter").runtime
}

#[test]
fn the_exact_version_serves_without_a_substitution() {
    let runtimes = of(&[RuntimeId::python(3, 11), RuntimeId::python(3, 12)]);
    let resolved = runtimes.resolve(RuntimeId::python(3, 11), true).expect("it is there");
    assert!(!resolved.substituted);
    assert_eq!(resolved.interpreter.expect("one").runtime, RuntimeId::python(3, 11));
}

#[test]
fn the_nearest_version_of_the_same_language_substitutes() {
    let runtimes = of(&[RuntimeId::python(3, 9), RuntimeId::python(3, 13), RuntimeId::node(20)]);
    assert_eq!(served(&runtimes, RuntimeId::python(3, 14)), RuntimeId::python(3, 13));
    assert_eq!(served(&runtimes, RuntimeId::python(3, 11)), RuntimeId::python(3, 13));
    assert_eq!(served(&runtimes, RuntimeId::node(24)), RuntimeId::node(20));
}

#[test]
fn a_missing_runtime_is_refused_with_what_there_is() {
    let runtimes = of(&[RuntimeId::python(3, 9)]);
    let error = runtimes.resolve(RuntimeId::python(3, 14), false).expect_err("missing");
    assert_eq!(error.kind(), Kind::Invalid);
    for name in ["python3.14", "python3.9", "provided.al2023", "provided.al2"] {
        assert!(error.public().contains(name), "{error}");
    }
    assert!(runtimes.resolve(RuntimeId::node(20), true).is_err());
}

#[test]
fn provided_runtimes_are_always_there() {
    let wanted = "provided.al2023".parse().expect("known");
    let resolved = Runtimes::default().resolve(wanted, false).expect("always");
    assert_eq!(resolved, Resolved { interpreter: None, substituted: false });
}

#[test]
fn wide_prefixes_are_not_shown_to_functions() {
    let home = Path::new("/home/anna");
    for wide in ["/", "/opt", "/home/anna", "/home", "/home/anna/.local"] {
        assert!(is_too_wide(Path::new(wide), Some(home)), "{wide}");
    }
    for narrow in ["/usr", "/usr/local", "/opt/python", "/home/anna/.pyenv/versions/3.12.1"] {
        assert!(!is_too_wide(Path::new(narrow), Some(home)), "{narrow}");
    }
}

#[test]
fn this_machines_interpreters_say_where_they_live() {
    let path = std::env::var_os("PATH");
    let runtimes = Runtimes::discover(&BTreeMap::new(), path.as_deref()).expect("found");
    for interpreter in runtimes.list() {
        assert!(interpreter.path.is_file() && interpreter.prefix.is_dir(), "{interpreter:?}");
        assert!(!interpreter.path.to_string_lossy().contains("shims"), "{interpreter:?}");
    }
}

#[test]
fn the_configuration_wins_when_it_is_true_and_is_refused_when_not() {
    let found = Runtimes::discover(&BTreeMap::new(), None).expect("found");
    let Some(any) = found.list().into_iter().next() else {
        eprintln!("skipped: no interpreter on this machine");
        return;
    };
    let configured = BTreeMap::from([(any.runtime, any.path.clone())]);
    let found = Runtimes::discover(&configured, None).expect("true");
    assert_eq!(found.found[&any.runtime].origin, "configuration");
    let wrong =
        RuntimeId { version: (any.runtime.version.0, any.runtime.version.1 + 90), ..any.runtime };
    let configured = BTreeMap::from([(any.runtime, any.path.clone()), (wrong, any.path.clone())]);
    let error = Runtimes::discover(&configured, None).expect_err("another version");
    let expected = format!(
        "runtimes.{wrong} = {} cannot be used: it is {}, version {}",
        any.path.display(),
        any.runtime,
        any.version
    );
    assert_eq!((error.kind(), error.public()), (Kind::Invalid, expected.as_str()));
}

#[test]
fn a_configured_program_that_cannot_run_is_refused_with_its_complaint() {
    let directory = tempfile::tempdir().expect("a directory");
    let shim = directory.path().join("shim");
    std::os::unix::fs::symlink("/bin/cat", &shim).expect("a link");
    let configured = BTreeMap::from([(RuntimeId::python(3, 12), shim.clone())]);
    let error = Runtimes::discover(&configured, None).expect_err("no interpreter");
    let begin = format!("runtimes.python3.12 = {} cannot be used: it does ", shim.display());
    assert!(error.public().starts_with(&begin), "{error}");
    assert!(error.public().contains("; it says: "), "{error}");
    let configured = BTreeMap::from([(RuntimeId::node(20), directory.path().join("absent"))]);
    let error = Runtimes::discover(&configured, None).expect_err("nothing");
    assert!(
        error.public().contains("runtimes.nodejs20.x") && error.public().contains("cannot run")
    );
}

#[test]
fn one_file_may_stand_for_both_languages_and_only_once_for_each() {
    let directory = tempfile::tempdir().expect("a directory");
    let manager = directory.path().join("mise");
    std::fs::write(&manager, "").expect("a file");
    for name in ["node", "nodejs", "python3"] {
        std::os::unix::fs::symlink(&manager, directory.path().join(name)).expect("a link");
    }
    let found = distinct(candidates::of_path(Some(directory.path().as_os_str())));
    let families: Vec<_> = found.iter().map(|candidate| candidate.family).collect();
    assert_eq!(families, [Family::Node, Family::Python]);
}

//! Tests of `project`.

use std::collections::BTreeMap;

use tempfile::TempDir;

use super::*;

/// A directory with files; a name that ends with `*` becomes executable.
fn tree(files: &[(&str, &str)]) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = dir.path().join(name.trim_end_matches('*'));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        let mode = if name.ends_with('*') { 0o755 } else { 0o644 };
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    }
    dir
}

fn found(files: &[(&str, &str)]) -> Result<(Language, String), String> {
    let detected = Project::open(tree(files).path()).unwrap().detected?;
    Ok((detected.language, detected.handler))
}

fn packed_names(files: &[(&str, &str)]) -> Vec<String> {
    let dir = tree(files);
    let output = Output { format: crate::output::Format::Text };
    let bytes = Project::open(dir.path()).unwrap().pack(output).unwrap();
    lacewing_archive::inspect(Cursor::new(bytes), &caps()).unwrap().names
}

const PYTHON: Language = Language::Python { minor: None };
const DEF: &str = "import json\n\ndef lambda_handler(event, context):\n    return event\n";

#[test]
fn a_python_handler_is_found_by_file_and_name() {
    for (file, text, handler) in [
        ("lambda_function.py", DEF, "lambda_function.lambda_handler"),
        ("app.py", "def handler(event, context): pass", "app.handler"),
        ("main.py", "handler = Mangum(app)", "main.handler"),
        ("hello.py", DEF, "hello.lambda_handler"),
    ] {
        assert_eq!(found(&[(file, text), ("util.py", "x = 1")]), Ok((PYTHON, handler.to_owned())));
    }
    let both = [("app.py", DEF), ("lambda_function.py", DEF)];
    assert_eq!(found(&both).unwrap().1, "lambda_function.lambda_handler");
}

#[test]
fn a_call_or_a_comparison_is_no_definition() {
    for text in
        ["handler(1)", "handler == 3", "  def handler(a): pass", "# def handler(", "handlers = 1"]
    {
        assert!(found(&[("app.py", text)]).is_err(), "{text} was taken for a handler");
    }
}

#[test]
fn compiled_modules_choose_the_python() {
    let files = [("app.py", DEF), ("numpy/core/x.cpython-311-x86_64-linux-gnu.so", "")];
    assert_eq!(found(&files).unwrap().0, Language::Python { minor: Some(11) });
}

#[test]
fn a_node_handler_is_found_in_every_way_of_exporting() {
    for (file, text, handler) in [
        ("index.js", "exports.handler = async (event) => 1;", "index.handler"),
        ("index.mjs", "export const handler = async () => {};", "index.handler"),
        ("index.mjs", "export async function handler(event) {}", "index.handler"),
        ("app.mjs", "const handler = 1;\nexport { handler };", "app.handler"),
        ("index.js", "module.exports = { handler };", "index.handler"),
        ("index.js", "module.exports.lambdaHandler = serverless(app)", "index.lambdaHandler"),
        ("index.js", "__export(x, {\n  handler: () => handler\n});", "index.handler"),
        ("other.cjs", "exports.handler = 1", "other.handler"),
    ] {
        assert_eq!(found(&[(file, text)]), Ok((Language::Node, handler.to_owned())), "{text}");
    }
    assert!(found(&[("index.js", "const handler = 1; handler();")]).is_err());
    assert!(found(&[("index.js", "exports.handlers = 1")]).is_err());
}

#[test]
fn package_json_names_the_module() {
    let package = r#"{"main": "./dist/server.js"}"#;
    let files = [
        ("package.json", package),
        ("dist/server.js", "exports.handler = 1"),
        ("index.js", "exports.handler = 2"),
    ];
    assert_eq!(found(&files).unwrap().1, "dist/server.handler");
}

#[test]
fn an_executable_bootstrap_is_a_custom_runtime() {
    let custom = Ok((Language::Custom, "bootstrap".to_owned()));
    assert_eq!(found(&[("bootstrap*", "#!/bin/sh\n"), ("app.py", DEF)]), custom);
    let error = found(&[("bootstrap", "#!/bin/sh\n")]).unwrap_err();
    assert!(error.contains("not executable"), "{error}");
}

#[test]
fn a_file_that_no_handler_can_name_is_refused() {
    for file in ["my fn.py", "my.fn.py", "index.min.js"] {
        let text = if file.ends_with("js") { "exports.handler = 1" } else { DEF };
        let error = found(&[(file, text)]).unwrap_err();
        assert!(error.contains("no handler can name that file"), "{file}: {error}");
    }
    assert_eq!(found(&[("my-fn.py", DEF)]).unwrap().1, "my-fn.lambda_handler");
    let package =
        [("package.json", r#"{"main": "v1.2/a.js"}"#), ("v1.2/a.js", "exports.handler=1")];
    assert_eq!(found(&package).unwrap().1, "v1.2/a.handler");
}

#[test]
fn doubt_is_said_aloud() {
    let both = [("app.py", DEF), ("index.js", "exports.handler = 1")];
    let error = found(&both).unwrap_err();
    assert!(error.contains("app.lambda_handler") && error.contains("index.handler"), "{error}");
    assert!(found(&[("notes.txt", "")]).unwrap_err().contains("lambda_handler"));
    assert!(found(&[("one.py", DEF), ("two.py", DEF)]).is_err());
}

#[test]
fn a_single_file_is_a_project() {
    let dir = tree(&[("hello.py", DEF), ("other.py", DEF)]);
    let project = Project::open(&dir.path().join("hello.py")).unwrap();
    assert_eq!(project.name, "hello");
    assert_eq!(project.detected.unwrap().handler, "hello.lambda_handler");
}

#[test]
fn a_single_program_becomes_bootstrap() {
    let dir = tree(&[("my-program*", "#!/bin/sh\n")]);
    let project = Project::open(&dir.path().join("my-program")).unwrap();
    assert_eq!(project.name, "my-program");
    assert_eq!(project.detected.as_ref().unwrap().language, Language::Custom);
    let output = Output { format: crate::output::Format::Text };
    let bytes = project.pack(output).unwrap();
    let names = lacewing_archive::inspect(Cursor::new(bytes), &caps()).unwrap().names;
    assert_eq!(names, ["bootstrap"]);
}

#[test]
fn an_archive_is_looked_into_and_sent_as_it_is() {
    let output = Output { format: crate::output::Format::Text };
    let source = tree(&[("app.py", DEF)]);
    let bytes = Project::open(source.path()).unwrap().pack(output).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a function.zip");
    fs::write(&path, &bytes).unwrap();
    let project = Project::open(&path).unwrap();
    assert_eq!(project.name, "a-function");
    assert_eq!(project.detected.as_ref().unwrap().handler, "app.lambda_handler");
    assert_eq!(project.pack(output).unwrap(), bytes);

    fs::write(&path, "no zip").unwrap();
    assert!(Project::open(&path).unwrap_err().report().contains("not a zip archive"));
}

#[test]
fn what_no_function_needs_stays_behind() {
    let files = [
        ("app.py", DEF),
        ("__pycache__/app.pyc", ""),
        (".git/config", ""),
        (".env", "SECRET=1"),
        ("lacewing.toml", ""),
        ("old.zip", ""),
        (".gitignore", "node_modules\n"),
        ("node_modules/a/index.js", ""),
        ("lib/.hidden", ""),
    ];
    assert_eq!(packed_names(&files), ["app.py", "lib/.hidden", "node_modules/a/index.js"]);
}

#[test]
fn the_author_may_leave_out_more_or_take_back() {
    let files = [
        ("app.py", DEF),
        ("data/big.bin", ""),
        (".env", ""),
        (".lacewingignore", "data/\n!.env\n"),
    ];
    assert_eq!(packed_names(&files), [".env", "app.py"]);
}

#[test]
fn the_manifest_is_read_and_strict() {
    let text = "name = 'n'\nruntime = 'python3.13'\nhandler = 'a.b'\nrole = 'r'\n\
                description = 'd'\nmemory = 256\ntimeout = 7\nephemeral_storage = 1024\n\
                [environment]\nA = '1'\n";
    let dir = tree(&[("app.py", DEF), ("lacewing.toml", text)]);
    let manifest = Project::open(dir.path()).unwrap().manifest;
    assert_eq!(manifest.memory, Some(256));
    assert_eq!(manifest.environment, Some(BTreeMap::from([("A".to_owned(), "1".to_owned())])));

    let dir = tree(&[("app.py", DEF), ("lacewing.toml", "memroy = 1")]);
    let error = Project::open(dir.path()).unwrap_err().report();
    assert!(error.contains("memroy") && error.contains("lacewing.toml"), "{error}");
}

#[test]
fn names_become_valid() {
    assert_eq!(function_name(Path::new("/x/My Function (1).py")), "My-Function--1");
    assert_eq!(function_name(Path::new("/")), "function");
    assert_eq!(function_name(Path::new(&format!("/{}", "a".repeat(99)))).len(), 64);
}

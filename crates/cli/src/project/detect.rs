//! Finds language and handler by looking at the files, as a person would.
//!
//! It looks for the names and the shapes that Lambda's own documentation and the common tools use;
//! it parses no language. When it is not sure it says so instead of guessing.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use lacewing_model::limits;
use serde_json::Value;

/// Python files that usually hold the handler, the likeliest first.
const PYTHON_FILES: &[&str] = &["lambda_function", "app", "handler", "main", "index"];
/// Names that a Python handler usually has.
const PYTHON_NAMES: &[&str] = &["lambda_handler", "handler"];
/// Node modules that usually hold the handler, the likeliest first.
const NODE_FILES: &[&str] = &["index", "app", "handler", "main", "lambda"];
/// Endings of Node modules.
const NODE_ENDINGS: &[&str] = &["mjs", "js", "cjs"];
/// Names that a Node handler usually has.
const NODE_NAMES: &[&str] = &["handler", "lambdaHandler"];
/// Most bytes of a source file that are looked at.
const LOOK: u64 = 1 << 20;

/// The language of a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Language {
    /// Python; with the minor version that compiled modules among the files were built for.
    Python { minor: Option<u16> },
    /// JavaScript for Node.js.
    Node,
    /// An executable of its own.
    Custom,
}

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Detected {
    /// The language.
    pub(crate) language: Language,
    /// `module.function`.
    pub(crate) handler: String,
}

impl Language {
    /// The language that a file's ending tells.
    pub(crate) fn of(path: &Path) -> Option<Self> {
        match path.extension()?.to_str()? {
            "py" => Some(Self::Python { minor: None }),
            ending if NODE_ENDINGS.contains(&ending) => Some(Self::Node),
            _ => None,
        }
    }
}

/// Looks at `files` below `dir`; `Err` says what was looked for.
pub(super) fn detect(dir: &Path, files: &[PathBuf]) -> Result<Detected, String> {
    if files.iter().any(|file| file == Path::new("bootstrap")) {
        return if super::is_executable(&dir.join("bootstrap")) {
            Ok(Detected { language: Language::Custom, handler: "bootstrap".to_owned() })
        } else {
            Err("there is a file `bootstrap`, but it is not executable".to_owned())
        };
    }
    let minor = compiled_for(files);
    let python = python(dir, files)
        .map(|handler| Detected { language: Language::Python { minor }, handler });
    let node = node(dir, files).map(|handler| Detected { language: Language::Node, handler });
    let found = match (python, node) {
        (Some(python), Some(node)) => {
            return Err(format!(
                "both {} (Python) and {} (Node) look like a handler",
                python.handler, node.handler
            ));
        }
        (Some(found), None) | (None, Some(found)) => found,
        (None, None) => {
            return Err("found no handler: looked for `def lambda_handler` or `def handler` in \
                             a Python file, an exported `handler` in a JavaScript file, and an \
                             executable `bootstrap`, at the top of the tree"
                .to_owned());
        }
    };
    if can_be_named(&found.handler) {
        return Ok(found);
    }
    Err(format!(
        "found '{}', but no handler can name that file: a module's name has neither spaces nor dots",
        found.handler
    ))
}

/// Whether a handler is one by its letters: `module.function` without white space, where the first
/// dot of the path's last part ends the module
/// (<https://docs.aws.amazon.com/lambda/latest/api/API_CreateFunction.html>).
fn can_be_named(handler: &str) -> bool {
    let last = handler.rsplit('/').next().unwrap_or(handler);
    handler.len() <= limits::HANDLER
        && !handler.contains(char::is_whitespace)
        && last.matches('.').count() == 1
}

// === Python ===

fn python(dir: &Path, files: &[PathBuf]) -> Option<String> {
    let handler_in = |stem: &str| {
        let text = head(&dir.join(format!("{stem}.py")));
        let name = PYTHON_NAMES.iter().find(|name| defines_in_python(&text, name))?;
        Some(format!("{stem}.{name}"))
    };
    let stems = stems_at_top(files, &["py"]);
    let usual = PYTHON_FILES.iter().filter(|stem| stems.contains(stem));
    if let Some(handler) = usual.copied().find_map(handler_in) {
        return Some(handler);
    }
    only(stems.into_iter().filter_map(handler_in))
}

fn defines_in_python(text: &str, name: &str) -> bool {
    text.lines().any(|line| {
        let defined = line.strip_prefix("def ").or_else(|| line.strip_prefix("async def "));
        let rest = defined.unwrap_or(line).strip_prefix(name).map(str::trim_start);
        match (defined, rest) {
            (Some(_), Some(rest)) => rest.starts_with('('),
            (None, Some(rest)) => rest.starts_with('=') && !rest.starts_with("=="),
            _ => false,
        }
    })
}

/// The Python that a compiled module says it is for: `x.cpython-311-x86_64-linux-gnu.so`.
fn compiled_for(files: &[PathBuf]) -> Option<u16> {
    files.iter().find_map(|file| {
        let name = file.file_name()?.to_str()?.strip_suffix(".so")?;
        let tag = name.split('.').find_map(|part| part.strip_prefix("cpython-3"))?;
        tag.split('-').next()?.parse().ok()
    })
}

// === Node ===

fn node(dir: &Path, files: &[PathBuf]) -> Option<String> {
    let handler_in = |module: &str| {
        let exists = |ending: &&&str| files.contains(&PathBuf::from(format!("{module}.{ending}")));
        let ending = NODE_ENDINGS.iter().find(exists)?;
        let text = head(&dir.join(format!("{module}.{ending}")));
        let name = NODE_NAMES.iter().find(|name| exports_in_node(&text, name))?;
        Some(format!("{module}.{name}"))
    };
    if let Some(handler) = main_of_package(dir).as_deref().and_then(handler_in) {
        return Some(handler);
    }
    let stems = stems_at_top(files, NODE_ENDINGS);
    let usual = NODE_FILES.iter().filter(|stem| stems.contains(stem));
    if let Some(handler) = usual.copied().find_map(handler_in) {
        return Some(handler);
    }
    only(stems.into_iter().filter_map(handler_in))
}

/// The module that `package.json` names, without its ending.
fn main_of_package(dir: &Path) -> Option<String> {
    let package: Value = serde_json::from_str(&head(&dir.join("package.json"))).ok()?;
    let main = package.get("main")?.as_str()?;
    let main = main.strip_prefix("./").unwrap_or(main);
    let bare = NODE_ENDINGS.iter().find_map(|ending| main.strip_suffix(&format!(".{ending}")));
    Some(bare.unwrap_or(main).to_owned())
}

/// Whether `text` exports `name`, written by hand or by a bundler.
fn exports_in_node(text: &str, name: &str) -> bool {
    text.match_indices(name).any(|(at, _)| {
        let (before, after) = (&text[..at], &text[at + name.len()..]);
        let goes_on = |c: char| c.is_alphanumeric() || c == '_' || c == '$';
        if after.starts_with(goes_on) || before.ends_with(goes_on) {
            return false;
        }
        let line = before.rsplit('\n').next().unwrap_or_default();
        let next = after.trim_start();
        let assigned = before.ends_with("exports.") && next.starts_with('=');
        let declared = line.trim_start().starts_with("export ");
        let listed = before.contains("export {") || before.contains("export{");
        let in_object = before.contains("module.exports") || before.contains("__export(");
        assigned || declared || listed || (in_object && next.starts_with([',', ':', '}', '(']))
    })
}

// === both ===

/// Stems of the files at the top of the tree that have one of the endings, each once.
fn stems_at_top<'a>(files: &'a [PathBuf], endings: &[&str]) -> Vec<&'a str> {
    let has_ending = |file: &Path| {
        file.extension().and_then(|e| e.to_str()).is_some_and(|ending| endings.contains(&ending))
    };
    let at_top = files.iter().filter(|file| file.components().count() == 1 && has_ending(file));
    let mut stems: Vec<&str> = at_top.filter_map(|file| file.file_stem()?.to_str()).collect();
    stems.dedup();
    stems
}

/// The only item, if there is exactly one.
fn only<T>(mut items: impl Iterator<Item = T>) -> Option<T> {
    let first = items.next();
    if items.next().is_some() { None } else { first }
}

/// The beginning of a file as text; nothing when it cannot be read.
fn head(path: &Path) -> String {
    let mut bytes = Vec::new();
    let readable = fs::metadata(path).is_ok_and(|about| about.is_file());
    if readable {
        let _unread = File::open(path).and_then(|file| file.take(LOOK).read_to_end(&mut bytes));
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

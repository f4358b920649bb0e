//! `[runtimes]`: a table from runtime identifier to interpreter.
//!
//! An identifier has a dot in it, so that `python3.13 = "..."` without quotes is a nested table in
//! TOML. Both spellings mean the same here.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::de::{Deserialize, Deserializer, Error};
use toml::{Table, Value};

/// Reads the table, with nested keys joined by dots again.
pub(super) fn deserialize<'de, D: Deserializer<'de>>(
    from: D,
) -> Result<BTreeMap<String, PathBuf>, D::Error> {
    let mut flat = BTreeMap::new();
    flatten("", Table::deserialize(from)?, &mut flat).map_err(D::Error::custom)?;
    Ok(flat)
}

fn flatten(prefix: &str, table: Table, into: &mut BTreeMap<String, PathBuf>) -> Result<(), String> {
    for (key, value) in table {
        let name = if prefix.is_empty() { key } else { format!("{prefix}.{key}") };
        match value {
            Value::String(path) => drop(into.insert(name, path.into())),
            Value::Table(inner) => flatten(&name, inner, into)?,
            other => {
                let kind = other.type_str();
                return Err(format!(
                    "runtimes.{name}: a path is expected, not a value of type {kind}"
                ));
            }
        }
    }
    Ok(())
}

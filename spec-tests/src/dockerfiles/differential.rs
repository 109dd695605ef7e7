//! What two builders make of one case, compared field by field, and the differences that are known.

use std::fs;

use serde_json::Value;

use super::build::Built;
use crate::program;

/// One field that differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The case.
    pub case: String,
    /// A path with a slash in front, a field of the configuration (`config.Env`), `history[N]`, `layers` or `outcome`.
    pub field: String,
    /// What `fluyt` has.
    pub fluyt: String,
    /// What `BuildKit` has.
    pub buildkit: String,
}

const ABSENT: &str = "-";

/// What differs between what the two made.
#[must_use]
pub fn compare(case: &str, fluyt: &Built, buildkit: &Built) -> Vec<Difference> {
    let difference = |field: &str, one: &str, other: &str| Difference {
        case: case.to_owned(),
        field: field.to_owned(),
        fluyt: one.to_owned(),
        buildkit: other.to_owned(),
    };
    let (one, other) = match (&fluyt.image, &buildkit.image) {
        (None, None) => return Vec::new(),
        (Some(one), Some(other)) => (one.fields(), other.fields()),
        (one, _) => {
            let (ours, theirs) = if one.is_some() { ("built", "refused") } else { ("refused", "built") };
            return vec![difference("outcome", ours, theirs)];
        }
    };
    let mut names: Vec<&String> = one.keys().chain(other.keys()).collect();
    names.sort();
    names.dedup();
    let value = |fields: &std::collections::BTreeMap<String, String>, name: &str| {
        fields.get(name).cloned().unwrap_or_else(|| ABSENT.to_owned())
    };
    names
        .into_iter()
        .map(|name| difference(name, &value(&one, name), &value(&other, name)))
        .filter(|difference| difference.fluyt != difference.buildkit)
        .collect()
}

/// A difference that is known, and why it is there.
#[derive(Debug, Clone)]
pub struct Listed {
    /// The difference.
    pub difference: Difference,
    /// Why.
    pub reason: String,
}

impl Listed {
    /// All of `differential-listed.json`.
    ///
    /// # Errors
    /// When the file cannot be read or an entry lacks a field.
    pub fn all() -> Result<Vec<Self>, String> {
        let path = program::repository().join("spec-tests/differential-listed.json");
        let text = fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        let value: Value = serde_json::from_str(&text).map_err(|error| format!("{}: {error}", path.display()))?;
        let entries = value.as_array().ok_or_else(|| format!("{}: expected a list", path.display()))?;
        entries.iter().map(Self::read).collect()
    }

    fn read(entry: &Value) -> Result<Self, String> {
        let text = |key: &str| {
            let found = entry[key].as_str().filter(|text| !text.is_empty());
            found.map(str::to_owned).ok_or_else(|| format!("an entry has no text `{key}`: {entry}"))
        };
        let difference = Difference {
            case: text("case")?,
            field: text("field")?,
            fluyt: text("fluyt")?,
            buildkit: text("buildkit")?,
        };
        Ok(Self { difference, reason: text("reason")? })
    }
}

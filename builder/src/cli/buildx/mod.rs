//! What each flag of `docker buildx build` does here: the one table, from which these docs, a part of `--help` and a test
//! are made, so that none is left out and none is ignored in silence where it would change the result.
#![doc = include_str!("table.md")]

mod arguments;
mod attest;
mod commands;
mod table;

pub use arguments::BuildxArguments;

pub(super) use commands::{Commands, limits};
pub(super) use table::help;

use std::collections::BTreeMap;

use super::failure::Failure;
use super::settings;
use crate::notation::{pairs, truth};
use attest::Attestations;
use table::{ARGUMENTS, Effect, FLAGS, Row, VARIABLES};

/// Whether `--policy` says that there is none to obey.
pub(super) fn policies_are_off(typed: &BuildxArguments) -> bool {
    !typed.policy.is_empty() && typed.policy.iter().all(|text| policy_is_off(text))
}

/// What is to be said before a build of flags, build arguments and variables that have no effect yet, each once.
///
/// # Errors
/// When a flag is refused, or its value makes no sense.
pub(super) fn notes(typed: &BuildxArguments, build_args: &BTreeMap<String, String>) -> Result<Vec<String>, Failure> {
    let attestations = Attestations::read(typed)?;
    caches(&typed.cache_from, "cache-from")?;
    caches(&typed.cache_to, "cache-to")?;
    let asked = |name: &str| match name {
        "provenance" => attestations.provenance,
        "sbom" => attestations.sbom,
        "cache-from" => typed.cache_from.iter().any(|text| !text.is_empty()),
        "cache-to" => typed.cache_to.iter().any(|text| !text.is_empty()),
        "cgroup-parent" => typed.cgroup_parent.as_ref().is_some_and(|name| !name.is_empty()),
        "resource" => !typed.resource.is_empty(),
        "policy" => typed.policy.iter().any(|text| !policy_is_off(text)),
        "security-opt" => !typed.security_opt.is_empty(),
        "squash" => typed.squash,
        _ => false,
    };
    let mut said = Vec::new();
    let mut noted: Vec<(&str, Vec<String>)> = Vec::new();
    for row in FLAGS.iter().filter(|row| asked(row.name)) {
        match row.effect {
            // What is the same of several is said once.
            Effect::Noted(text) => match noted.iter_mut().find(|(other, _)| *other == text) {
                Some((_, names)) => names.push(format!("`--{}`", row.name)),
                None => noted.push((text, vec![format!("`--{}`", row.name)])),
            },
            Effect::Refused(text) => {
                return Err(Failure::usage(format!("`--{}` is not there yet", row.name)).hint(text));
            }
            Effect::Same | Effect::Differs(_) | Effect::Nothing(_) => {}
        }
    }
    said.extend(noted.into_iter().map(|(text, names)| {
        let verb = if names.len() == 1 { "has" } else { "have" };
        format!("{} {verb} no effect yet: {text}", names.join(" and "))
    }));
    // Each that is refused is a policy.
    let refused = |row: &&Row| !policies_are_off(typed) && settings::variable(row.name).is_some();
    for row in VARIABLES.iter().filter(refused) {
        if let Effect::Refused(text) = row.effect {
            return Err(Failure::usage(format!("what the variable {} asks for is not there yet", row.name)).hint(text));
        }
    }
    let mut more = |rows: &[Row], kind: &str, value: &dyn Fn(&str) -> Option<String>| {
        for row in rows {
            if let Effect::Noted(text) = row.effect
                && value(row.name).is_some_and(|value| is_on(&value))
            {
                said.push(format!("the {kind} {} has no effect yet: {text}", row.name));
            }
        }
    };
    more(ARGUMENTS, "build argument", &|name| build_args.get(name).cloned());
    more(VARIABLES, "variable", &settings::variable);
    Ok(said)
}

/// Whether a value switches something on. What is no truth value may be a wish of another kind.
fn is_on(value: &str) -> bool {
    truth(value).unwrap_or(true) && !value.is_empty()
}

/// A boolean flag's value, for the command line.
///
/// # Errors
/// When it is none.
pub fn switch(text: &str) -> Result<bool, String> {
    truth(text).ok_or_else(|| format!("expected `true` or `false`, found `{text}`"))
}

/// The kinds of caches that buildx knows.
const CACHES: [&str; 6] = ["registry", "local", "inline", "gha", "s3", "azblob"];

/// Whether each of these says what buildx understands: a slip is told now, not in a year.
fn caches(typed: &[String], flag: &str) -> Result<(), Failure> {
    for text in typed {
        let wrong = |problem: String| Failure::usage(format!("`--{flag} {text}`: {problem}"));
        // A reference alone is a registry's cache.
        if !text.contains('=') {
            continue;
        }
        let fields = pairs(text).map_err(wrong)?;
        match fields.iter().find(|(key, _)| key == "type") {
            None => return Err(wrong("it has no `type`".to_owned()).hint("write `type=registry,ref=NAME`")),
            Some((_, kind)) if !CACHES.contains(&kind.as_str()) => {
                return Err(wrong(format!("unknown type `{kind}`: expected one of {}", CACHES.join(", "))));
            }
            Some(_) => {}
        }
    }
    Ok(())
}

/// `disabled=true` and no other wish.
fn policy_is_off(text: &str) -> bool {
    pairs(text).is_ok_and(|fields| fields.iter().any(|(key, value)| key == "disabled" && is_on(value)))
}

#[cfg(test)]
mod tests;

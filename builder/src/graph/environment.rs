//! Variables in scope, and where the automatic ones come from.

use std::collections::BTreeMap;

use crate::dockerfile::{Expander, Instruction, Problem};
use crate::image::Platform;

/// Proxy variables that are there without an `ARG`; each also in lower case.
pub(super) const PROXIES: [&str; 5] = ["HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY"];

/// Build arguments that steer the builder and never reach a `RUN` unless an `ARG` declares them.
const STEERING: [&str; 11] = [
    "BUILDKIT_BUILD_NAME",
    "BUILDKIT_CACHE_MOUNT_NS",
    "BUILDKIT_CONTEXT_KEEP_GIT_DIR",
    "BUILDKIT_DOCKERFILE_CHECK",
    "BUILDKIT_INLINE_CACHE",
    "BUILDKIT_MULTI_PLATFORM",
    "BUILDKIT_SANDBOX_HOSTNAME",
    "BUILDKIT_SBOM_SCAN_CONTEXT",
    "BUILDKIT_SBOM_SCAN_STAGE",
    "BUILDKIT_SYNTAX",
    "SOURCE_DATE_EPOCH",
];

/// `ARG`s that set no variable for a `RUN`.
pub(super) const NOT_IN_ENVIRONMENT: [&str; 2] = ["BUILDKIT_SBOM_SCAN_CONTEXT", "BUILDKIT_SBOM_SCAN_STAGE"];

/// Variables in the order of their last setting, as the reference shows them to a `RUN`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Environment {
    pairs: Vec<(String, String)>,
}

impl Environment {
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.pairs.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// Sets a variable, which is the last one then.
    pub(super) fn set(&mut self, name: &str, value: &str) {
        self.pairs.retain(|(known, _)| known != name);
        self.pairs.push((name.to_owned(), value.to_owned()));
    }

    pub(super) fn pairs(&self) -> &[(String, String)] {
        &self.pairs
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.pairs.iter().map(|(name, _)| name.as_str())
    }

    /// Sets what a configuration has, as `NAME=value`.
    pub(super) fn set_all(&mut self, variables: &[String]) {
        for variable in variables {
            let (name, value) = variable.split_once('=').unwrap_or((variable, ""));
            self.set(name, value);
        }
    }
}

/// The automatic arguments and those before the first `FROM`.
pub(super) fn global_scope(
    args: &[Instruction],
    escape: char,
    build_args: &BTreeMap<String, String>,
    platforms: (&Platform, &Platform),
    target: Option<&str>,
    problems: &mut Vec<Problem>,
) -> Environment {
    let mut scope = Environment::default();
    let (build, wanted) = platforms;
    for (prefix, platform) in [("BUILD", build), ("TARGET", wanted)] {
        let parts = [
            ("PLATFORM", platform.to_string()),
            ("OS", platform.os.clone()),
            ("OSVERSION", platform.os_version.clone().unwrap_or_default()),
            ("ARCH", platform.architecture.clone()),
            ("VARIANT", platform.variant.clone().unwrap_or_default()),
        ];
        for (name, value) in parts {
            let name = format!("{prefix}{name}");
            scope.set(&name, build_args.get(&name).unwrap_or(&value));
        }
    }
    let stage = target.unwrap_or("default").to_owned();
    scope.set("TARGETSTAGE", build_args.get("TARGETSTAGE").unwrap_or(&stage));
    for instruction in args {
        let crate::dockerfile::Command::Arg(declarations) = &instruction.command else { continue };
        for declaration in declarations {
            let name = &declaration.name.text;
            if let Some(value) = build_args.get(name) {
                scope.set(name, value);
            } else if let Some(default) = &declaration.default {
                let lookup = |name: &str| scope.get(name).map(str::to_owned);
                match Expander::new(escape).expand(&default.text, &lookup) {
                    Ok(expansion) => scope.set(name, &expansion.text),
                    Err(error) => {
                        problems.push(Problem::error(default.span, error.to_string()).hints(error.hint()));
                    }
                }
            }
        }
    }
    scope
}

/// Whether a build argument of this name means something without an `ARG`.
pub(super) fn is_known_argument(name: &str) -> bool {
    let automatic = name
        .strip_prefix("BUILD")
        .or_else(|| name.strip_prefix("TARGET"))
        .is_some_and(|rest| ["PLATFORM", "OS", "OSVERSION", "ARCH", "VARIANT", "STAGE"].contains(&rest));
    automatic || STEERING.contains(&name) || PROXIES.iter().any(|proxy| name.eq_ignore_ascii_case(proxy))
}

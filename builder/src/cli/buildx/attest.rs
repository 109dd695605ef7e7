//! `--attest`, `--provenance` and `--sbom`: which attestations are wanted.

use super::{BuildxArguments, is_on};
use crate::cli::failure::Failure;
use crate::notation::{pairs, truth};

/// Which attestations are wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Attestations {
    pub(super) provenance: bool,
    pub(super) sbom: bool,
}

impl Attestations {
    /// As buildx understands it: of two wishes for one kind, the shorthand goes before `--attest`.
    pub(super) fn read(typed: &BuildxArguments) -> Result<Self, Failure> {
        let mut wanted = Self::default();
        for text in typed.attest.iter().filter(|text| !text.is_empty()) {
            let wrong = |problem: String| {
                Failure::usage(format!("`--attest {text}`: {problem}")).hint("write `type=provenance` or `type=sbom`")
            };
            let fields = pairs(text).map_err(wrong)?;
            let value = |name: &str| fields.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
            let on = !value("disabled").is_some_and(is_on);
            match value("type") {
                Some("provenance") => wanted.provenance = on,
                Some("sbom") => wanted.sbom = on,
                // BuildKit refuses it too.
                Some(kind) if !kind.is_empty() && on => {
                    return Err(wrong(format!("unknown attestation type `{kind}`")));
                }
                Some(kind) if !kind.is_empty() => {}
                _ => return Err(wrong("it has no `type`".to_owned())),
            }
        }
        for (flag, given, kind) in
            [("provenance", &typed.provenance, &mut wanted.provenance), ("sbom", &typed.sbom, &mut wanted.sbom)]
        {
            let Some(text) = given else { continue };
            *kind = match truth(text) {
                Some(on) => on,
                None => {
                    let wrong = |problem: String| {
                        Failure::usage(format!("`--{flag} {text}`: {problem}"))
                            .hint(format!("write `--{flag}=false` for none"))
                    };
                    !pairs(text).map_err(wrong)?.iter().any(|(key, value)| key == "disabled" && is_on(value))
                }
            };
        }
        Ok(wanted)
    }
}

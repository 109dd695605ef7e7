//! The build checks that need more than the text: values, images, what stands before an instruction in its stage.

use fluyt_client::Reference;

use super::environment::Environment;
use crate::dockerfile::{Declaration, Expander, Expansion, Instruction, Problem, Rule, Span, Stage};
use crate::image::Platform;

/// Words of a name that tell of a secret.
const SECRET: [&str; 10] =
    ["apikey", "auth", "credential", "credentials", "key", "password", "pword", "passwd", "secret", "token"];

/// Words of a name that tell of none after all.
const NO_SECRET: [&str; 3] = ["public", "file", "version"];

/// A variable that is named after a secret, and would be in the image.
pub(super) fn secret(kind: &str, name: &str, span: Span) -> Option<Problem> {
    let lower = name.to_ascii_lowercase();
    let has = |words: &[&str]| lower.split('_').any(|part| words.contains(&part));
    (has(&SECRET) && !has(&NO_SECRET)).then(|| {
        let message = format!("Do not use ARG or ENV instructions for sensitive data ({kind} \"{name}\")");
        Problem::warning(span, Rule::SecretsUsedInArgOrEnv, message)
            .hint("give it to the command that needs it: `RUN --mount=type=secret,id=...`")
    })
}

/// `ENV key value`.
pub(super) fn legacy_pair(instruction: &Instruction) -> Problem {
    let name = instruction.typed_name();
    let message = format!("\"{name} key=value\" should be used instead of legacy \"{name} key value\" format");
    Problem::warning(instruction.span, Rule::LegacyKeyValueFormat, message)
}

/// A shell between the command and the signals that are sent to it.
pub(super) fn shell_form(instruction: &Instruction) -> Problem {
    let name = instruction.typed_name();
    let message = format!("JSON arguments recommended for {name} to prevent unintended behavior related to OS signals");
    let problem = Problem::warning(instruction.span, Rule::JsonArgsRecommended, message);
    problem.hints(looks_like_json(&instruction.text).then_some("a JSON list has double quotes: `[\"a\", \"b\"]`"))
}

/// Whether the words of an instruction would be JSON, had they other quotes.
fn looks_like_json(text: &str) -> bool {
    let words = text.split_once(char::is_whitespace).map_or("", |(_, words)| words.trim());
    words.starts_with("['") && words.ends_with("']")
}

/// Remembers where an instruction stands of which only the last counts.
#[derive(Debug, Default)]
pub(super) struct Once(Option<Span>);

impl Once {
    pub(super) fn is_set(&self) -> bool {
        self.0.is_some()
    }

    /// Notes one more. The one before, if any, is the one to be told of: it will be ignored.
    pub(super) fn set(&mut self, instruction: &Instruction) -> Option<Problem> {
        self.0.replace(instruction.span).map(|earlier| {
            let name = instruction.typed_name();
            let message = format!(
                "Multiple {name} instructions should not be used in the same stage because only the last one will be used"
            );
            Problem::warning(earlier, Rule::MultipleInstructionsDisallowed, message)
                .judged_at(instruction.span.start.line)
        })
    }
}

/// What the `--platform=` of a `FROM` says about itself.
pub(super) fn platform(stage: &Stage, expansion: &Expansion, globals: &Environment) -> Option<Problem> {
    let word = stage.platform.as_ref()?;
    let mut used = expansion.used.iter();
    match (used.next().map(String::as_str), used.next(), expansion.unset.is_empty()) {
        (Some("TARGETPLATFORM"), None, true) if globals.get("TARGETPLATFORM") == Some(expansion.text.as_str()) => {
            let message = format!(
                "Setting platform to predefined {} in FROM is redundant as this is the default behavior",
                word.text
            );
            Some(Problem::warning(word.span, Rule::RedundantTargetPlatform, message))
        }
        (None, _, true) => {
            let platform: Platform = expansion.text.parse().ok()?;
            let name = stage.name.as_ref().map(|name| name.text.as_str()).unwrap_or_default();
            if name.contains(&platform.os) || name.contains(&platform.architecture) {
                return None;
            }
            let message = format!("FROM --platform flag should not use constant value \"{}\"", expansion.text);
            Some(Problem::warning(word.span, Rule::FromPlatformFlagConstDisallowed, message))
        }
        _ => None,
    }
}

/// Base images that are none when no build argument is given. `defaults` is the scope of that case.
pub(super) fn default_arguments(stages: &[Stage], escape: char, defaults: &Environment, problems: &mut Vec<Problem>) {
    for stage in stages {
        let lookup = |name: &str| defaults.get(name).map(str::to_owned);
        let Ok(expansion) = Expander::new(escape).expand(&stage.image.text, &lookup) else { return };
        if Reference::parse(&expansion.text).is_err() {
            let message =
                format!("Default value for ARG {} results in empty or invalid base image name", stage.image.text);
            problems.push(Problem::warning(stage.image.span, Rule::InvalidDefaultArgInFrom, message));
        }
    }
}

/// Names that a file's `ARG`s before the first `FROM` declare, with a value or without.
pub(super) fn declared(args: &[Instruction]) -> impl Iterator<Item = &Declaration> {
    args.iter()
        .filter_map(|instruction| match &instruction.command {
            crate::dockerfile::Command::Arg(declarations) => Some(declarations),
            _ => None,
        })
        .flatten()
}

//! Which flags an instruction takes, and their values.

use super::instruction::Word;
use super::problem::Problem;
use super::read::Reader;
use super::words::Flag;
use crate::notation;

/// What a flag takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Takes {
    /// `--link`, `--link=true`, `--link=false`.
    Truth,
    /// `--from=x`, once.
    Text,
    /// `--mount=x`, any number of times.
    Texts,
}

/// The flags of one instruction, checked.
#[derive(Debug, Default)]
pub(super) struct Flags {
    found: Vec<(&'static str, Word)>,
}

impl Flags {
    /// Checks `given` against what `command` allows; what is wrong is reported, and left out.
    pub(super) fn check(
        reader: &mut Reader<'_, '_>,
        command: &str,
        given: Vec<Flag>,
        allowed: &[(&'static str, Takes)],
    ) -> Self {
        let mut flags = Self::default();
        for flag in given {
            let span = reader.span(&flag.place);
            let Some((name, takes)) = allowed.iter().copied().find(|(name, _)| *name == flag.name) else {
                let problem = Problem::error(span, format!("unknown flag `--{}` of `{command}`", flag.name));
                reader.problems.push(match notation::nearest(&flag.name, allowed.iter().map(|(name, _)| *name)) {
                    Some(near) => problem.hint(format!("did you mean `--{near}`?")),
                    None if allowed.is_empty() => problem.hint(format!("`{command}` takes no flags")),
                    None => {
                        let all: Vec<String> = allowed.iter().map(|(name, _)| format!("`--{name}`")).collect();
                        problem.hint(format!("`{command}` takes {}", all.join(", ")))
                    }
                });
                continue;
            };
            if takes != Takes::Texts && flags.found.iter().any(|(earlier, _)| *earlier == name) {
                reader.problems.push(Problem::error(span, format!("flag `--{name}` is given twice")));
                continue;
            }
            let text = match (takes, flag.value) {
                (Takes::Truth, None) => "true".to_owned(),
                (Takes::Truth, Some(value)) => match value.to_ascii_lowercase().as_str() {
                    truth @ ("true" | "false") => truth.to_owned(),
                    _ => {
                        reader
                            .problems
                            .push(Problem::error(span, format!("flag `--{name}` is `true` or `false`, not `{value}`")));
                        continue;
                    }
                },
                (_, Some(value)) => value,
                (_, None) => {
                    reader.problems.push(
                        Problem::error(span, format!("flag `--{name}` has no value"))
                            .hint(format!("write `--{name}=VALUE`")),
                    );
                    continue;
                }
            };
            flags.found.push((name, Word { text, span: reader.span(&flag.value_place) }));
        }
        flags
    }

    /// The value of a [`Takes::Text`] flag.
    pub(super) fn text(&self, name: &str) -> Option<Word> {
        self.found.iter().find(|(found, _)| *found == name).map(|(_, word)| word.clone())
    }

    /// The values of a [`Takes::Texts`] flag.
    pub(super) fn texts(&self, name: &str) -> Vec<Word> {
        self.found.iter().filter(|(found, _)| *found == name).map(|(_, word)| word.clone()).collect()
    }

    /// The value of a [`Takes::Truth`] flag.
    pub(super) fn truth(&self, name: &str) -> Option<bool> {
        self.text(name).map(|word| word.text == "true")
    }
}

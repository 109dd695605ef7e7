//! What a stage can be given: build arguments, secrets, agents. Collected while it is lowered.

use std::collections::{BTreeMap, BTreeSet};

use super::environment::Environment;
use crate::dockerfile::{Command, Expander, Instruction, Lines};

/// What the stages that a build needs can be given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outline {
    /// Build arguments that are used, by name.
    pub arguments: BTreeMap<String, Argument>,
    /// Secrets, by id.
    pub secrets: BTreeMap<String, Needed>,
    /// Agents, by id.
    pub agents: BTreeMap<String, Needed>,
}

/// A build argument.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Argument {
    /// Its value, or empty.
    pub value: String,
    /// What the comment above it says of it.
    pub description: String,
    /// Where it is declared.
    pub lines: Lines,
}

/// A secret or an agent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Needed {
    /// Whether a build without it fails.
    pub required: bool,
    /// The first instruction that asks for it.
    pub lines: Lines,
}

impl Outline {
    /// Takes over what another stage has and this one has not.
    pub(super) fn merge(&mut self, other: &Self) {
        for (name, argument) in &other.arguments {
            self.arguments.entry(name.clone()).or_insert_with(|| argument.clone());
        }
        for (own, others) in [(&mut self.secrets, &other.secrets), (&mut self.agents, &other.agents)] {
            for (id, needed) in others {
                own.entry(id.clone()).or_insert(*needed);
            }
        }
    }

    /// `ARG name` of a stage, with the value that it has there.
    pub(super) fn declare(&mut self, instruction: &Instruction, name: &str, value: Option<&str>) {
        let description = description_of(&instruction.comments, name);
        let value = value.unwrap_or_default().to_owned();
        let argument = Argument { value, description, lines: instruction.lines() };
        self.arguments.insert(name.to_owned(), argument);
    }
}

/// The build arguments before the first `FROM`, used or not.
#[derive(Debug, Default)]
pub(super) struct GlobalArguments {
    all: BTreeMap<String, (Argument, BTreeSet<String>)>,
}

impl GlobalArguments {
    pub(super) fn of(args: &[Instruction], escape: char, globals: &Environment) -> Self {
        let mut found = Self::default();
        for instruction in args {
            let Command::Arg(declarations) = &instruction.command else { continue };
            for declaration in declarations {
                let name = &declaration.name.text;
                let lookup = |name: &str| globals.get(name).map(str::to_owned);
                let expanded =
                    declaration.default.as_ref().map(|text| Expander::new(escape).expand(&text.text, &lookup));
                let used = expanded.and_then(Result::ok).map(|expansion| expansion.used).unwrap_or_default();
                let argument = Argument {
                    value: globals.get(name).unwrap_or_default().to_owned(),
                    description: description_of(&instruction.comments, name),
                    lines: instruction.lines(),
                };
                found.all.insert(name.clone(), (argument, used));
            }
        }
        found
    }

    /// Notes that a name is used, and with it all that its default names.
    pub(super) fn mark(&self, name: &str, outline: &mut Outline) {
        let mut open = vec![name.to_owned()];
        let mut seen = BTreeSet::new();
        while let Some(name) = open.pop() {
            if !seen.insert(name.clone()) {
                continue;
            }
            if let Some((argument, used)) = self.all.get(&name) {
                outline.arguments.entry(name).or_insert_with(|| argument.clone());
                open.extend(used.iter().cloned());
            }
        }
    }
}

/// The comment that begins with the name, without it.
#[must_use]
pub fn description_of(comments: &[String], name: &str) -> String {
    let found = comments.iter().find_map(|comment| comment.strip_prefix(name)?.strip_prefix(' '));
    found.filter(|_| !name.is_empty()).unwrap_or_default().to_owned()
}

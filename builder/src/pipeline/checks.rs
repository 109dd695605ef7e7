//! The build checks on their way to the user: which are shown, and whether they fail the build.

use std::collections::BTreeSet;

use super::BuildError;
use super::source::Read;
use crate::dockerfile::{CheckOptions, Problem, Rule};
use crate::event::{Event, Events};
use crate::graph::{CopyFrom, Graph, Op};

/// What the checks found so far.
#[derive(Clone, Debug, Default)]
pub(super) struct Checks {
    options: CheckOptions,
    rules: BTreeSet<Rule>,
}

impl Checks {
    pub(super) fn new(options: CheckOptions) -> Self {
        Self { options, rules: BTreeSet::new() }
    }

    /// The problems of `found` that the user wants to see, without errors.
    pub(super) fn wanted<'f>(&mut self, read: &Read, found: &'f [Problem]) -> Vec<&'f Problem> {
        let wanted: Vec<&Problem> = found
            .iter()
            .filter(|problem| !problem.is_error() && self.options.show(&read.dockerfile, problem))
            .collect();
        self.rules.extend(wanted.iter().filter_map(|problem| problem.check));
        wanted
    }

    /// Says those problems, and where the errors are.
    pub(super) fn tell(&mut self, read: &Read, found: &[Problem], events: &Events) {
        for problem in found.iter().filter(|problem| problem.is_error()) {
            let lines = problem.span.lines();
            let hint = problem.hint.as_ref().map(|hint| format!("; {hint}")).unwrap_or_default();
            let text = format!("{problem}{hint}");
            events.hear(Event::Refused { text, first_line: lines.first, last_line: lines.last });
        }
        for problem in self.wanted(read, found) {
            let lines = read.dockerfile.lines_of(problem);
            events.hear(Event::Check {
                rule: problem.check.map(Rule::name),
                text: problem.to_string(),
                hint: problem.hint.clone(),
                detail: problem.check.map(Rule::description).unwrap_or_default(),
                url: problem.check.map(Rule::url).unwrap_or_default(),
                file: read.name().to_owned(),
                first_line: lines.first,
                last_line: lines.last,
            });
        }
    }

    /// Whether `error=true` and a check that was not passed end the build.
    pub(super) fn verdict(&self) -> Result<(), BuildError> {
        match self.options.error && !self.rules.is_empty() {
            true => Err(BuildError::Checks { rules: self.rules.iter().map(|rule| rule.name()).collect() }),
            false => Ok(()),
        }
    }
}

/// Sources that the ignore file hides, so that they cannot be copied. Where the file takes something back (`!`), nothing is
/// said: what lies in a hidden folder may be visible.
pub(super) fn ignored_sources(read: &Read, graph: &Graph) -> Vec<Problem> {
    let ignore = read.context.ignore();
    if ignore.is_empty() || ignore.takes_back() {
        return Vec::new();
    }
    let mut problems = Vec::new();
    for (_, node) in graph.ops() {
        let Op::Copy(copy) = &node.op else { continue };
        if copy.from != CopyFrom::Context {
            continue;
        }
        for source in &copy.sources {
            let is_hidden = match source.as_str() {
                "" => ignore.hides_all(),
                path => ignore.matches(path.as_bytes()).hidden,
            };
            if !is_hidden {
                continue;
            }
            let instruction = node.about.instruction.trim_start_matches("ONBUILD ");
            let is_add = instruction.get(..3).is_some_and(|name| name.eq_ignore_ascii_case("ADD"));
            let verb = if is_add { "Add" } else { "Copy" };
            let shown = if source.is_empty() { "." } else { source };
            let message = format!("Attempting to {verb} file \"{shown}\" that is excluded by .dockerignore");
            let span = read.dockerfile.span_of_line(node.about.lines.first);
            problems.push(Problem::warning(span, Rule::CopyIgnoredFile, message));
        }
    }
    problems
}

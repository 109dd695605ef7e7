//! Reads the Dockerfile and opens the context.

use std::collections::VecDeque;
use std::sync::Arc;

use super::{BuildError, Request};
use crate::context::{Context, Git, Modes, read_dockerfile, read_ignore};
use crate::dockerfile::{self, Dockerfile, Instruction, Problem};
use crate::event::{Event, Events};
use crate::execute::{ExecuteError, StepCounter, StepFailure};

/// The Dockerfile and the context of a build.
#[derive(Debug)]
pub(super) struct Read {
    pub(super) dockerfile: Dockerfile,
    pub(super) context: Arc<Context>,
    /// The Dockerfile's name for messages.
    name: String,
    /// Where it is, as seen from where the command runs.
    path: String,
    text: String,
}

pub(super) fn read(request: &Request, events: &Events, steps: &StepCounter) -> Result<Read, BuildError> {
    let step = steps.next();
    events.hear(Event::Started { step, name: "[internal] load the Dockerfile and the ignore rules".to_owned() });
    let read =
        load(request, events).inspect_err(|error| events.hear(Event::Failed { step, error: first_line(error) }))?;
    let (read, problems) = read;
    let (name, path, text) = (read.name.clone(), read.path.clone(), read.text.clone());
    events.hear(Event::Dockerfile { name, path, text });
    let (errors, warnings): (Vec<Problem>, Vec<Problem>) = problems.into_iter().partition(Problem::is_error);
    if !errors.is_empty() {
        let error = read.refused(&errors);
        events.hear(Event::Failed { step, error: first_line(&error) });
        return Err(error);
    }
    events.hear(Event::Finished { step });
    read.warn(&warnings, events);
    Ok(read)
}

fn load(request: &Request, events: &Events) -> Result<(Read, Vec<Problem>), BuildError> {
    let folder = &request.context;
    // The rules come later, but a context that is no folder is the first thing to say.
    Context::open(folder, crate::context::Ignore::default())?;
    // As with Docker, a Dockerfile's name is relative to where the command runs, not to the context.
    let found = read_dockerfile(folder, request.file.as_deref())?;
    let mut context = Context::open(folder, read_ignore(folder, Some(&found.path))?)?;
    if request.reproducible || request.epoch.is_some() {
        context = context.with_modes(match Modes::ask(folder) {
            Git::Known(modes) => modes,
            Git::Absent => Modes::default(),
            Git::Silent(reason) => {
                let text = format!(
                    "the context is a check-out of git, which cannot be asked for files' modes: {reason}; \
                     they are taken from the files, less write for group and others"
                );
                events.hear(Event::Warning { text });
                Modes::default()
            }
        });
    }
    let context = Arc::new(context);
    let name = found.path.strip_prefix(folder).unwrap_or(&found.path).display().to_string();
    let (dockerfile, problems) = dockerfile::parse(&found.text);
    let path = found.path.display().to_string();
    Ok((Read { dockerfile, context, name, path, text: found.text }, problems))
}

fn first_line(error: &BuildError) -> String {
    error.to_string().lines().next().unwrap_or_default().to_owned()
}

impl Read {
    /// The Dockerfile's name for messages.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The error of a Dockerfile that cannot be built.
    pub(super) fn refused(&self, problems: &[Problem]) -> BuildError {
        let rendered = problems
            .iter()
            .filter(|problem| problem.is_error())
            .map(|problem| problem.render(&self.name, &self.text))
            .collect();
        BuildError::Dockerfile { rendered }
    }

    pub(super) fn warn(&self, problems: &[Problem], events: &Events) {
        for problem in problems {
            let lines = problem.span.lines();
            events.hear(Event::Check {
                rule: problem.check,
                text: problem.to_string(),
                hint: problem.hint.clone(),
                file: self.name.clone(),
                first_line: lines.first,
                last_line: lines.last,
            });
        }
    }

    /// The line that names an image: the one that spells it so, else the first whose variables may have.
    pub(super) fn place_of_image(&self, reference: &str) -> String {
        let stages = &self.dockerfile.stages;
        let spelt = stages.iter().find(|stage| stage.image.text == reference).map(|stage| stage.from.lines());
        let copied = || {
            let mut instructions = stages.iter().flat_map(|stage| &stage.instructions);
            instructions.find(|one| one.text.contains(reference)).map(Instruction::lines)
        };
        let variable = || stages.iter().find(|stage| stage.image.text.contains('$')).map(|stage| stage.from.lines());
        match spelt.or_else(copied).or_else(variable) {
            Some(lines) => format!("{}:{lines}", self.name),
            None => self.name.clone(),
        }
    }

    /// The error of a step that failed, with its place in the Dockerfile.
    pub(super) fn failed(&self, error: ExecuteError) -> BuildError {
        match error {
            ExecuteError::Cancelled => BuildError::Cancelled,
            ExecuteError::Steps { failures } => {
                let mut failures: VecDeque<BuildError> =
                    failures.into_iter().map(|one| self.step_failed(one)).collect();
                match failures.pop_front() {
                    Some(BuildError::Step { file, about, source, .. }) => {
                        BuildError::Step { file, about, source, others: failures.into() }
                    }
                    _ => BuildError::Cancelled,
                }
            }
        }
    }

    fn step_failed(&self, failure: StepFailure) -> BuildError {
        let StepFailure { about, source } = failure;
        BuildError::Step { file: self.name.clone(), about, source, others: Vec::new() }
    }
}

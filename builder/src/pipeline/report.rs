//! What a Dockerfile says, without building it: its checks, what it can be given, its targets.

use super::checks::{Checks, ignored_sources};
use super::{BuildError, Preparation, Request, Stopped, Workshop, lowered, prepare};
use crate::dockerfile::{Dockerfile, Lines, Problem, Rule};
use crate::event::Events;
use crate::graph::description_of;
use crate::secrets::Search;
use std::sync::Arc;

pub use crate::graph::{Argument, Needed, Outline};

/// What is asked of a Dockerfile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Question {
    /// Does it pass the build checks?
    Check,
    /// What can the target be given?
    Outline,
    /// Which targets are there?
    Targets,
}

/// A Dockerfile, and what is said of it.
#[derive(Clone, Debug)]
pub struct Report {
    /// Its name for messages.
    pub file: String,
    /// What it says.
    pub text: String,
    /// The answer.
    pub answer: Answer,
}

/// The answer to a [`Question`].
#[derive(Clone, Debug)]
pub enum Answer {
    /// To [`Question::Check`].
    Check {
        /// The checks that are not passed.
        found: Vec<Found>,
        /// Why it could not be built: everything that is wrong, in the file's order.
        errors: Vec<Refusal>,
    },
    /// To [`Question::Outline`].
    Outline {
        /// The target's name; empty for a stage without one.
        name: String,
        /// What the comment above it says of it.
        description: String,
        /// What it can be given.
        outline: Outline,
    },
    /// To [`Question::Targets`].
    Targets(Vec<Target>),
}

/// A check that is not passed.
#[derive(Clone, Debug)]
pub struct Found {
    /// Which.
    pub rule: Rule,
    /// What was found.
    pub text: String,
    /// The lines of the instruction, from 1.
    pub lines: Lines,
}

/// Why a Dockerfile cannot be built.
#[derive(Clone, Debug)]
pub struct Refusal {
    /// The error, in one line.
    pub message: String,
    /// The lines that it is about; 0 when it is about none.
    pub lines: Lines,
}

/// A stage.
#[derive(Clone, Debug)]
pub struct Target {
    /// Its name, or empty.
    pub name: String,
    /// What the comment above it says of it.
    pub description: String,
    /// What it builds on, as typed.
    pub base: String,
    /// Its `--platform`, as typed.
    pub platform: String,
    /// Whether it is built when nothing else is asked for.
    pub is_default: bool,
    /// The lines of its `FROM`.
    pub lines: Lines,
}

/// Answers a question about a Dockerfile. Base images' configurations are asked for, nothing is fetched or run.
///
/// # Errors
/// See [`BuildError`]. To [`Question::Check`], what is wrong in the Dockerfile is part of the answer.
pub async fn report(
    workshop: Workshop,
    request: Request,
    question: Question,
    events: Events,
) -> Result<Report, BuildError> {
    let events = super::redact::without(&request.secrets, events);
    let mut ready = prepare(&workshop, &request, &events, &Arc::new(Search::new(&request.secrets)?)).await?;
    let mut problems = std::mem::take(&mut ready.problems);
    let broken = problems.iter().any(Problem::is_error);
    if broken && question != Question::Check {
        return Err(ready.read.refused(&problems));
    }
    let answer = match question {
        Question::Targets => Answer::Targets(targets(&ready.read.dockerfile)),
        Question::Outline => {
            let graph = match lowered(&mut ready, &workshop, &request, &events, false).await {
                Ok((graph, _)) => graph,
                Err(stopped) => return Err(stopped.into_error(&ready.read)),
            };
            let stage = graph.target.and_then(|index| ready.read.dockerfile.stages.get(index));
            let name = stage.and_then(|stage| stage.name.as_ref()).map(|name| name.text.clone()).unwrap_or_default();
            let comments = stage.map(|stage| stage.from.comments.as_slice()).unwrap_or_default();
            let description = description_of(comments, &name);
            Answer::Outline { name, description, outline: graph.outline.clone() }
        }
        Question::Check => {
            let mut failed = None;
            if !broken {
                match lowered(&mut ready, &workshop, &request, &events, request.target.is_none()).await {
                    Ok((graph, _)) => {
                        problems.extend(graph.warnings.iter().cloned());
                        problems.extend(ignored_sources(&ready.read, &graph));
                    }
                    Err(Stopped::Problems(found)) => problems.extend(found),
                    Err(Stopped::Failed(error @ BuildError::Cancelled)) => return Err(error),
                    Err(Stopped::Failed(error)) => failed = Some(error),
                }
            }
            check(&ready, &mut Checks::default(), &problems, failed.as_ref())
        }
    };
    // As in the reference's reports, the file's own name, wherever it is.
    let file = ready.read.name().rsplit('/').next().unwrap_or_default().to_owned();
    Ok(Report { file, text: ready.read.text().to_owned(), answer })
}

fn check(ready: &Preparation, own: &mut Checks, problems: &[Problem], failed: Option<&BuildError>) -> Answer {
    own.clone_from(&ready.checks);
    let file = &ready.read.dockerfile;
    let found = own.wanted(&ready.read, problems).into_iter().filter_map(|problem| {
        Some(Found { rule: problem.check?, text: problem.to_string(), lines: file.lines_of(problem) })
    });
    let found = found.collect();
    let refused = problems.iter().filter(|problem| problem.is_error());
    let refused = refused.map(|problem| Refusal { message: problem.to_string(), lines: file.lines_of(problem) });
    let mut errors: Vec<Refusal> = refused.collect();
    let nowhere = |message: String| Refusal { message, lines: Lines::default() };
    if errors.is_empty() {
        let error = failed.map(with_causes).or_else(|| Some(own.verdict().err()?.to_string()));
        errors.extend(error.map(nowhere));
    }
    Answer::Check { found, errors }
}

fn with_causes(error: &BuildError) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

fn targets(file: &Dockerfile) -> Vec<Target> {
    let last = file.stages.len();
    let stages = file.stages.iter().enumerate().map(|(index, stage)| {
        let name = stage.name.as_ref().map(|name| name.text.clone()).unwrap_or_default();
        Target {
            description: description_of(&stage.from.comments, &name),
            name,
            base: stage.image.text.clone(),
            platform: stage.platform.as_ref().map(|word| word.text.clone()).unwrap_or_default(),
            is_default: index + 1 == last,
            lines: stage.from.lines(),
        }
    });
    stages.collect()
}

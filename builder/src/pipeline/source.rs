//! Reads the Dockerfile and opens the context.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use fluyt_client::without_password;

use super::checks::Checks;
use super::fetching::Fetcher;
use super::places::{self, Place};
use super::shown::Shown;
use super::{BuildError, Request, Workshop};
use crate::context::{Context, ContextError, Ignore, Modes};
use crate::dockerfile::{self, CheckOptions, Dockerfile, Lines, Problem, Stage};
use crate::event::{Event, Events};
use crate::execute::{ExecuteError, StepCounter, StepError, StepFailure};
use crate::fetch::FetchedFile;
use crate::graph::{Contexts, FetchOp};
use crate::notation;

/// The Dockerfile and the context of a build.
#[derive(Debug)]
pub(super) struct Read {
    pub(super) dockerfile: Dockerfile,
    pub(super) context: Arc<Context>,
    /// The folders of named contexts.
    pub(super) folders: Vec<Arc<Context>>,
    /// What stands for the context, and for images and stages.
    pub(super) contexts: Contexts,
    /// What was fetched on the way.
    pub(super) fetched: HashMap<FetchOp, FetchedFile>,
    /// When the commit that the context is was made, where it was fetched.
    pub(super) committed_at: Option<i64>,
    /// Whether there is no context: what came is the Dockerfile.
    is_alone: bool,
    /// The Dockerfile's name for messages.
    name: String,
    /// Where it is, as seen from where the command runs.
    path: String,
    text: String,
}

/// Reads the Dockerfile, whatever is wrong in it; the problems come with it.
pub(super) fn read(
    request: &Request,
    workshop: &Workshop,
    fetcher: &Fetcher,
    events: &Events,
    steps: &StepCounter,
) -> Result<(Read, Checks, Vec<Problem>), BuildError> {
    let step = steps.begin(events, "[internal] load the Dockerfile and the ignore rules".to_owned());
    let loaded = load(request, workshop, fetcher, events);
    if loaded.is_err() {
        events.ended(step, &loaded);
    }
    let (read, mut problems) = loaded?;
    let argument = request.build_args.get("BUILDKIT_DOCKERFILE_CHECK").map(String::as_str);
    let options = CheckOptions::of(&read.dockerfile, argument).unwrap_or_else(|problem| {
        problems.insert(0, problem);
        CheckOptions::default()
    });
    let (name, path) = (read.name.clone(), read.path.clone());
    // Views show lines of it.
    let text = without_password(&read.text);
    events.hear(Event::Dockerfile { name, path, text });
    let is_refused = problems.iter().any(Problem::is_error);
    events.ended(step, &if is_refused { Err(read.refused(&problems)) } else { Ok(()) });
    Ok((read, Checks::new(options), problems))
}

fn load(
    request: &Request,
    workshop: &Workshop,
    fetcher: &Fetcher,
    events: &Events,
) -> Result<(Read, Vec<Problem>), BuildError> {
    let mut found = places::find(request, workshop, fetcher)?;
    let input = places::dockerfile(request, workshop, fetcher, &found)?;
    let context = match &found.place {
        // As with Docker, neither a context nor a Dockerfile from elsewhere has rules that hide files.
        Place::Folder(folder) => {
            let modes = request.copied.map(|copied| Modes::committed(copied.committed_at));
            places::open_folder(folder, input.beside.as_deref(), modes, request, &workshop.store, events)?
        }
        Place::Archive(_) | Place::Text(_) => {
            // Nothing of it is ever asked for: what is fetched is a root file system of its own.
            Context::open(&workshop.store.temporary()?, Ignore::default())?
        }
    };
    let is_alone = matches!(found.place, Place::Text(_));
    let (folders, named) = places::named(request, &workshop.store, events)?;
    found.contexts.named = named;
    let (dockerfile, mut problems) = dockerfile::parse(&input.text);
    // The argument goes before the line of the file.
    if request.build_args.get("BUILDKIT_SYNTAX").is_some_and(|name| dockerfile::is_own_frontend(name))
        && let Some(line) = &dockerfile.directives.syntax
    {
        problems.retain(|problem| problem.span != line.span);
    }
    let read = Read {
        dockerfile,
        context: Arc::new(context),
        folders,
        contexts: found.contexts,
        fetched: found.fetched,
        committed_at: found.committed_at,
        is_alone,
        name: input.name,
        path: input.path,
        text: input.text,
    };
    Ok((read, problems))
}

impl Read {
    /// The Dockerfile's name for messages.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// What the Dockerfile says.
    pub(super) fn text(&self) -> &str {
        &self.text
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

    /// Where a word stands in an instruction; without one, its lines are not shown.
    pub(super) fn place_of(&self, lines: Lines, word: Option<&str>) -> Shown {
        match word {
            Some(word) => Shown::of(&self.name, &self.text, lines, word),
            None => Shown::elsewhere(&format!("{}:{lines}", self.name)),
        }
    }

    /// The stage whose name is nearest to what is looked for as an image: one before that, or one of just that name, which
    /// comes later; none for what can only be an image.
    pub(super) fn stage_near(&self, reference: &str) -> Option<String> {
        let stages = &self.dockerfile.stages;
        let user = stages.iter().position(|stage| stage.image.text == reference).unwrap_or(stages.len());
        let named = |stage: &Stage| Some(stage.name.as_ref()?.text.clone());
        if let Some(later) = stages.iter().skip(user).filter_map(named).find(|name| name == reference) {
            return Some(later);
        }
        let names: Vec<String> = stages.iter().take(user).filter_map(named).collect();
        let names = names.iter().map(String::as_str);
        let is_plain = !reference.contains(['/', ':', '@', '.']);
        is_plain.then(|| notation::nearest(reference, names).map(str::to_owned)).flatten()
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
        let StepFailure { about, mut source } = failure;
        if self.is_alone
            && let StepError::Context(ContextError::Missing { path, .. }) = &mut *source
        {
            *source = StepError::Context(ContextError::Empty { path: std::mem::take(path) });
        }
        BuildError::Step { file: self.name.clone(), about, source, others: Vec::new() }
    }
}

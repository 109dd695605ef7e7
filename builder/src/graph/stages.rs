//! Which stage needs which: names resolved, triggers put in front, the target's needs found.

use std::collections::{BTreeMap, BTreeSet};

use super::checks;
use super::contexts::Contexts;
use super::environment::Environment;
use super::mounts::mount_from;
use super::op::{ImageRequest, LowerInput};
use crate::dockerfile::{
    Command, Dockerfile, Expander, Expansion, Instruction, Lines, Problem, Rule, Span, Stage, Word, did_you_mean,
    parse_trigger,
};
use crate::image::Platform;
use crate::notation;

/// Where files come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// `scratch`.
    Scratch,
    /// A stage of the file.
    Stage(usize),
    /// An image.
    Image(ImageRequest),
    /// The files of a named context, which is no image.
    Context(String),
}

/// An instruction to lower, and the other stages or images it reads.
#[derive(Clone, Debug)]
pub(super) struct Step {
    pub(super) instruction: Instruction,
    /// `COPY --from`, or each mount of a `RUN` (`None` for the context).
    pub(super) origins: Vec<Option<Origin>>,
    pub(super) is_trigger: bool,
}

/// A stage with its names resolved.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) base: Origin,
    pub(super) platform: Option<Platform>,
    pub(super) from: Instruction,
    pub(super) steps: Vec<Step>,
    /// The stage's name, or `stage-N`.
    pub(super) name: String,
    /// A named context stands for it, and nothing that it says is done.
    is_replaced: bool,
    /// Variables that its `FROM` names and that are set.
    pub(super) used: BTreeSet<String>,
    triggers_done: bool,
}

/// All stages.
#[derive(Debug)]
pub(super) struct Plans<'i> {
    pub(super) stages: Vec<Plan>,
    contexts: &'i Contexts,
    /// Lower-case names; of several stages with one name, the last.
    names: BTreeMap<String, usize>,
    /// The platform for images that an instruction names.
    platform: Platform,
}

impl<'i> Plans<'i> {
    /// Resolves the names of all stages, needed or not: a slip in any of them is a slip.
    pub(super) fn new(
        file: &Dockerfile,
        globals: &Environment,
        input: &'i LowerInput,
        problems: &mut Vec<Problem>,
    ) -> Self {
        let mut plans = Self {
            stages: Vec::new(),
            contexts: &input.contexts,
            names: BTreeMap::new(),
            platform: input.platform.clone(),
        };
        let declared: Vec<&str> = checks::declared(&file.global_args).map(|one| one.name.text.as_str()).collect();
        let scope = FromScope { escape: file.directives.escape, globals, declared };
        for (index, stage) in file.stages.iter().enumerate() {
            plans.add_stage(index, stage, &scope, problems);
        }
        for (index, stage) in file.stages.iter().enumerate() {
            if plans.stages[index].is_replaced {
                continue;
            }
            let steps = stage.instructions.iter().map(|instruction| Step {
                origins: plans.origins(instruction, problems),
                instruction: instruction.clone(),
                is_trigger: false,
            });
            let steps = steps.collect();
            plans.stages[index].steps = steps;
        }
        plans
    }

    fn add_stage(&mut self, index: usize, stage: &Stage, scope: &FromScope<'_>, problems: &mut Vec<Problem>) {
        let image = scope.expand(&stage.image, problems).unwrap_or_default();
        let mut used = image.used;
        let image = image.text;
        let platform = stage.platform.as_ref().and_then(|word| {
            let expansion = scope.expand(word, problems)?;
            problems.extend(checks::platform(stage, &expansion, scope.globals));
            used.extend(expansion.used);
            let text = expansion.text;
            if text.is_empty() {
                let message = format!("empty platform value from expression `{}`", word.text);
                problems.push(Problem::error(word.span, message).within(word));
                return None;
            }
            text.parse().map_err(|error| problems.push(Problem::error(word.span, format!("{error}")))).ok()
        });
        if image.is_empty() && !stage.image.text.is_empty() {
            let message = format!("base name (`{}`) should not be blank", stage.image.text);
            let hint = "an `ARG` for a `FROM` stands before the first `FROM`, with a default";
            problems.push(Problem::error(stage.image.span, message).hint(hint));
        }
        let wanted = platform.as_ref().unwrap_or(&self.platform);
        // A context of a stage's name stands for the whole stage.
        let replaced = stage.name.as_ref().and_then(|name| self.contexts.origin(&name.text, wanted));
        let is_replaced = replaced.is_some();
        // Unlike `COPY --from`, `FROM` finds stages by their names in lower case only.
        let base = match (replaced, self.names.get(&image)) {
            (Some(origin), _) => origin,
            (None, Some(earlier)) => Origin::Stage(*earlier),
            (None, None) if image == "scratch" => Origin::Scratch,
            (None, None) => self.contexts.origin(&image, wanted).unwrap_or_else(|| {
                let in_lower_case = image.to_lowercase();
                if self.names.contains_key(&in_lower_case) {
                    let message = format!("no stage `{image}`, and names of images have no upper-case letters");
                    let hint = format!("`FROM` names a stage in lower case: `{in_lower_case}`");
                    problems.push(Problem::error(stage.image.span, message).hint(hint));
                }
                Origin::Image(ImageRequest { reference: image, platform: wanted.clone() })
            }),
        };
        if let Some(name) = &stage.name {
            self.names.insert(name.text.clone(), index);
        }
        self.stages.push(Plan {
            base,
            platform,
            from: stage.from.clone(),
            steps: Vec::new(),
            name: stage.name.as_ref().map_or_else(|| format!("stage-{index}"), |name| name.text.clone()),
            is_replaced,
            used,
            triggers_done: false,
        });
    }

    /// What an instruction reads besides its own stage.
    fn origins(&self, instruction: &Instruction, problems: &mut Vec<Problem>) -> Vec<Option<Origin>> {
        match &instruction.command {
            Command::Copy(copy) => {
                // `--from=` is the context, as in the reference.
                let from = copy.from.iter().filter(|from| !from.text.is_empty());
                from.map(|from| self.origin(&from.text, true, from.span, problems)).collect()
            }
            Command::Run(run) => run
                .mounts
                .iter()
                .map(|mount| {
                    let name = mount_from(&mount.text).filter(|name| !name.is_empty() && !name.contains('$'))?;
                    self.origin(&name, false, mount.span, problems)
                })
                .collect(),
            _ => Vec::new(),
        }
    }

    fn origin(&self, name: &str, by_index: bool, span: Span, problems: &mut Vec<Problem>) -> Option<Origin> {
        if name.contains('$') {
            problems.push(Problem::error(
                span,
                "variable expansion is not supported for --from, define a new stage with FROM using ARG from global \
                 scope as a workaround",
            ));
            return None;
        }
        if let (true, Ok(index)) = (by_index, name.parse::<i64>()) {
            return match usize::try_from(index).ok().filter(|index| *index < self.stages.len()) {
                Some(index) => Some(Origin::Stage(index)),
                None => {
                    let message = format!("invalid stage index {index}: the file has {} stages", self.stages.len());
                    problems.push(Problem::error(span, message));
                    None
                }
            };
        }
        if let Some(index) = self.names.get(&name.to_lowercase()) {
            return Some(Origin::Stage(*index));
        }
        if name == "scratch" {
            return Some(Origin::Scratch);
        }
        self.contexts.origin(name, &self.platform).or_else(|| {
            Some(Origin::Image(ImageRequest { reference: name.to_owned(), platform: self.platform.clone() }))
        })
    }

    /// Reports the first circle among what stages copy from each other.
    pub(super) fn check_circles(&self, problems: &mut Vec<Problem>) {
        let needs: Vec<Vec<(usize, Span)>> = self
            .stages
            .iter()
            .map(|plan| {
                let steps = plan.steps.iter();
                let reads = steps.flat_map(|step| {
                    step.origins.iter().flatten().filter_map(|origin| match origin {
                        Origin::Stage(index) => Some((*index, step.instruction.span)),
                        _ => None,
                    })
                });
                reads.collect()
            })
            .collect();
        let mut finished = BTreeSet::new();
        for start in 0..needs.len() {
            // Depth first, without recursion: the path, and how far each stage on it was looked at.
            let mut path: Vec<(usize, usize)> = vec![(start, 0)];
            while let Some((stage, seen)) = path.last_mut() {
                let stage = *stage;
                if finished.contains(&stage) {
                    path.pop();
                    continue;
                }
                let Some((next, span)) = needs[stage].get(*seen).copied() else {
                    finished.insert(stage);
                    path.pop();
                    continue;
                };
                *seen += 1;
                if let Some(at) = path.iter().position(|(on_path, _)| *on_path == next) {
                    let mut circle: Vec<&str> =
                        path[at..].iter().map(|(index, _)| self.stages[*index].name.as_str()).collect();
                    circle.push(&self.stages[next].name);
                    let message = format!("circular dependency between stages: {}", circle.join(" -> "));
                    problems.push(Problem::error(span, message).hint("a stage can copy only from stages above it"));
                    return;
                }
                path.push((next, 0));
            }
        }
    }

    /// The stage to build.
    pub(super) fn target(&self, wanted: Option<&str>, problems: &mut Vec<Problem>) -> Option<usize> {
        let Some(wanted) = wanted else { return self.stages.len().checked_sub(1) };
        if let Some(index) = self.names.get(&wanted.to_lowercase()) {
            return Some(*index);
        }
        let problem = Problem::error(Span::default(), format!("target stage `{wanted}` could not be found"));
        let names: Vec<&str> = self.names.keys().map(String::as_str).collect();
        problems.push(match notation::nearest(wanted, names.iter().copied()) {
            Some(near) => problem.hint(format!("did you mean `{near}`?")),
            None if names.is_empty() => problem.hint("no stage of the file has a name (`FROM image AS name`)"),
            None => problem.hint(format!("the stages are `{}`", names.join("`, `"))),
        });
        None
    }

    /// The stages that `wanted` need, themselves included, and the images that they name. Triggers of bases that are known
    /// by now are put in front of their stages on the way.
    pub(super) fn reach(
        &mut self,
        wanted: Vec<usize>,
        input: &LowerInput,
        problems: &mut Vec<Problem>,
    ) -> (BTreeSet<usize>, BTreeMap<ImageRequest, Lines>) {
        let mut stages = BTreeSet::new();
        let mut images: BTreeMap<ImageRequest, Lines> = BTreeMap::new();
        let mut open = wanted;
        while let Some(index) = open.pop() {
            if !stages.insert(index) {
                continue;
            }
            self.add_triggers(index, input, problems);
            let plan = &self.stages[index];
            let origins = plan.steps.iter().flat_map(|step| {
                let lines = step.instruction.lines();
                step.origins.iter().flatten().map(move |origin| (origin, lines))
            });
            for (origin, lines) in std::iter::once((&plan.base, plan.from.lines())).chain(origins) {
                match origin {
                    Origin::Scratch | Origin::Context(_) => {}
                    Origin::Stage(needed) => open.push(*needed),
                    Origin::Image(request) => {
                        let first = images.entry(request.clone()).or_insert(lines);
                        *first = (*first).min(lines);
                    }
                }
            }
        }
        (stages, images)
    }

    fn add_triggers(&mut self, index: usize, input: &LowerInput, problems: &mut Vec<Problem>) {
        let plan = &self.stages[index];
        if plan.triggers_done || plan.is_replaced {
            return;
        }
        let texts: Vec<String> = match &plan.base {
            Origin::Scratch | Origin::Context(_) => Vec::new(),
            Origin::Stage(base) => {
                let own = self.stages[*base].steps.iter().filter(|step| !step.is_trigger);
                own.filter_map(|step| match &step.instruction.command {
                    Command::Onbuild { text, .. } => Some(text.clone()),
                    _ => None,
                })
                .collect()
            }
            Origin::Image(request) => match input.bases.get(request) {
                Some(base) => base.config.config.on_build.clone().unwrap_or_default(),
                None => return,
            },
        };
        let at = plan.from.span;
        let mut steps = Vec::new();
        for text in texts {
            match parse_trigger(&text, at) {
                Ok(instruction) => {
                    let origins = self.origins(&instruction, problems);
                    steps.push(Step { instruction, origins, is_trigger: true });
                }
                Err(found) => problems.extend(found),
            }
        }
        let plan = &mut self.stages[index];
        steps.append(&mut plan.steps);
        plan.steps = steps;
        plan.triggers_done = true;
    }
}

/// What the variables of a `FROM` can name.
struct FromScope<'f> {
    escape: char,
    globals: &'f Environment,
    /// `ARG`s before the first `FROM`, whether they have a value or not.
    declared: Vec<&'f str>,
}

impl FromScope<'_> {
    /// Expands a word of a `FROM`; `None` after reporting why it cannot be.
    fn expand(&self, word: &Word, problems: &mut Vec<Problem>) -> Option<Expansion> {
        let lookup = |name: &str| self.globals.get(name).map(str::to_owned);
        match Expander::new(self.escape).expand(&word.text, &lookup) {
            Ok(expansion) => {
                let unknown = expansion.unset.iter().filter(|name| !self.declared.contains(&name.as_str()));
                for name in unknown {
                    let names = self.declared.iter().copied().chain(self.globals.names());
                    let message = format!("FROM argument '{name}' is not declared{}", did_you_mean(name, names, ""));
                    problems.push(Problem::warning(word.span, Rule::UndefinedArgInFrom, message).hint(format!(
                        "put `ARG {name}=VALUE` before the first `FROM`, or declare it there and give `--build-arg \
                         {name}=VALUE`"
                    )));
                }
                Some(expansion)
            }
            Err(error) => {
                problems.push(Problem::error(word.span, error.to_string()).within(word).hints(error.hint()));
                None
            }
        }
    }
}

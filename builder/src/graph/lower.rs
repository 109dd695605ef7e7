//! The syntax tree lowered for one target: what is needed, or the graph.

use std::collections::BTreeMap;

use super::checks;
use super::contexts::{FetchedTree, Files, FolderId};
use super::environment::{global_scope, is_known_argument};
use super::op::{About, BaseOp, FetchOp, Graph, ImageRequest, LowerInput, Lowered, Node, Op, OpId, Root};
use super::outline::GlobalArguments;
use super::stage::{Finished, Globals, StageLowering};
use super::stages::{Origin, Plans};
use crate::dockerfile::{Command, Dockerfile, Instruction, Problem, Span, is_own_frontend};
use crate::notation;

/// Lowers `file` for one target and platform.
///
/// Images that are not in [`LowerInput::bases`] are asked for ([`Lowered::Needs`]): the caller resolves them and calls
/// again. It can take more than one round, because a base image's `ONBUILD` triggers may name further images. Stages that
/// the target does not need are neither lowered nor asked for.
///
/// # Errors
///
/// All problems found, at least one of which is an error.
pub fn lower(file: &Dockerfile, input: &LowerInput) -> Result<Lowered, Vec<Problem>> {
    let mut problems = Vec::new();
    if let Some(name) = input.build_args.get("BUILDKIT_SYNTAX").filter(|name| !is_own_frontend(name)) {
        let message = format!("the frontend `{name}` of build argument `BUILDKIT_SYNTAX` is not there");
        problems.push(Problem::error(Span::default(), message).hint("only `docker/dockerfile` is built in"));
    }
    // As in the reference, `--target` as it is typed.
    let last = || Some(file.stages.last()?.name.as_ref()?.text.as_str());
    let target_name = input.target.as_deref().or_else(last);
    let globals = global_scope(
        &file.global_args,
        file.directives.escape,
        &input.build_args,
        (&input.build_platform, &input.platform),
        target_name,
        &mut problems,
    );
    let none = BTreeMap::new();
    let platforms = (&input.build_platform, &input.platform);
    let mut ignored = Vec::new();
    let defaults = global_scope(&file.global_args, file.directives.escape, &none, platforms, target_name, &mut ignored);
    if ignored.is_empty() {
        checks::default_arguments(&file.stages, file.directives.escape, &defaults, &mut problems);
    }
    let mut plans = Plans::new(file, &globals, input, &mut problems);
    plans.check_circles(&mut problems);
    let target = plans.target(input.target.as_deref(), &mut problems);
    let Some(target) = target.filter(|_| !problems.iter().any(Problem::is_error)) else {
        if problems.is_empty() {
            problems.push(Problem::error(Span::default(), "dockerfile contains no stages to build"));
        }
        return Err(problems);
    };
    let wanted = if input.all_stages { (0..plans.stages.len()).collect() } else { vec![target] };
    let (needed, images) = plans.reach(wanted, input, &mut problems);
    if problems.iter().any(Problem::is_error) {
        return Err(problems);
    }
    let missing: Vec<_> = images.into_iter().filter(|(image, _)| !input.bases.contains_key(image)).collect();
    if !missing.is_empty() {
        return Ok(Lowered::Needs(missing));
    }
    let arguments = GlobalArguments::of(&file.global_args, file.directives.escape, &globals);
    let mut builder = GraphBuilder::new(input);
    let only_one = plans.stages.len() == 1;
    let mut finished: BTreeMap<usize, Finished> = BTreeMap::new();
    for index in needed {
        let plan = &plans.stages[index];
        let name = (!only_one).then(|| plan.name.clone());
        let scope = Globals { values: &globals, arguments: &arguments };
        let stage = StageLowering::begin(plan, name, &finished, scope, input, &mut builder, &mut problems);
        let stage = stage.run(file.directives.escape);
        finished.insert(index, stage);
    }
    warn_of_unused_arguments(file, &plans, input, &mut problems);
    let target_stage = target;
    let Some(target) = finished.remove(&target).filter(|_| !problems.iter().any(Problem::is_error)) else {
        return Err(problems);
    };
    let outline = target.outline.clone();
    let mut result = target.into_result();
    if input.platform != input.build_platform {
        // A platform that was asked for is what the image says, whatever its base is for.
        result.platform = input.platform.clone();
    }
    if !input.labels.is_empty() {
        result.config.labels.get_or_insert_default().extend(input.labels.clone());
    }
    Ok(Lowered::Done(Box::new(Graph {
        nodes: builder.nodes,
        result,
        platform: input.platform.clone(),
        warnings: problems,
        target: Some(target_stage),
        outline,
    })))
}

/// Collects operations; one for each base image, however many stages name it.
pub(super) struct GraphBuilder<'i> {
    pub(super) input: &'i LowerInput,
    pub(super) nodes: Vec<Node>,
    bases: BTreeMap<ImageRequest, OpId>,
    pub(super) fetches: BTreeMap<FetchOp, OpId>,
    pub(super) trees: BTreeMap<FetchedTree, Root>,
    pub(super) folders: BTreeMap<FolderId, Root>,
}

impl<'i> GraphBuilder<'i> {
    fn new(input: &'i LowerInput) -> Self {
        Self {
            input,
            nodes: Vec::new(),
            bases: BTreeMap::new(),
            fetches: BTreeMap::new(),
            trees: BTreeMap::new(),
            folders: BTreeMap::new(),
        }
    }

    pub(super) fn push(&mut self, op: Op, about: About) -> OpId {
        self.nodes.push(Node { op, about });
        OpId(self.nodes.len() - 1)
    }

    /// The base image's operation; `None` only for an image that is not resolved.
    pub(super) fn base(&mut self, request: &ImageRequest, stage: Option<&str>, at: &Instruction) -> Option<OpId> {
        if let Some(id) = self.bases.get(request) {
            return Some(*id);
        }
        let resolved = self.input.bases.get(request)?;
        let op = BaseOp {
            request: request.clone(),
            digest: resolved.digest.clone(),
            diff_ids: resolved.config.rootfs.diff_ids.clone(),
        };
        let about = About {
            instruction: format!("FROM {}", request.reference),
            stage: stage.map(str::to_owned),
            lines: at.lines(),
            step: 1,
            steps: 1,
        };
        let id = self.push(Op::Base(op), about);
        self.bases.insert(request.clone(), id);
        Some(id)
    }

    /// The files that an instruction names; `None` only after a problem was reported.
    pub(super) fn files(
        &mut self,
        origin: &Origin,
        finished: &BTreeMap<usize, Finished>,
        at: &Instruction,
    ) -> Option<Files> {
        match origin {
            Origin::Scratch => Some(Files::Root(Root::Scratch)),
            Origin::Stage(index) => finished.get(index).map(|stage| Files::Root(stage.root)),
            Origin::Image(request) => self.base(request, None, at).map(|id| Files::Root(Root::Of(id))),
            Origin::Context(key) => self.context_files(key, at.lines()),
        }
    }
}

/// An `ARG` anywhere in the file or in a base image's triggers counts, whether the target needs it or not.
fn warn_of_unused_arguments(file: &Dockerfile, plans: &Plans, input: &LowerInput, problems: &mut Vec<Problem>) {
    let steps = plans.stages.iter().flat_map(|plan| &plan.steps).map(|step| &step.instruction);
    let instructions = file.global_args.iter().chain(steps);
    let declared: Vec<&str> = instructions
        .filter_map(|instruction| match &instruction.command {
            Command::Arg(declarations) => Some(declarations),
            _ => None,
        })
        .flatten()
        .map(|declaration| declaration.name.text.as_str())
        .collect();
    for name in input.build_args.keys() {
        if declared.contains(&name.as_str()) || is_known_argument(name) {
            continue;
        }
        let message = format!("build argument `{name}` is not used: no `ARG` of the file declares it");
        let mut problem = Problem::remark(Span::default(), message);
        if let Some(near) = notation::nearest(name, declared.iter().copied()) {
            problem = problem.hint(format!("did you mean `{near}`?"));
        }
        problems.push(problem);
    }
}

/// Numbers the steps of one stage, whose operations are `own`, in order.
pub(super) fn number_steps(nodes: &mut [Node], own: &[OpId]) {
    for (step, id) in own.iter().enumerate() {
        let about = &mut nodes[id.index()].about;
        about.step = step + 1;
        about.steps = own.len();
    }
}

/// What an operation of `instruction` is called.
pub(super) fn about(instruction: &Instruction, text: String, stage: Option<&str>) -> About {
    About { instruction: text, stage: stage.map(str::to_owned), lines: instruction.lines(), step: 0, steps: 0 }
}

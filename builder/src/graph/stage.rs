//! One stage lowered: its instructions in order, each changing the root file system, the configuration or both.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::checks::{self, Once};
use super::contexts::Files;
use super::environment::{Environment, NOT_IN_ENVIRONMENT};
use super::history::{healthcheck, plain_list, quoted_list};
use super::lower::{GraphBuilder, about, number_steps};
use super::op::{CopyFrom, CopyOp, HistoryStep, LowerInput, Op, OpId, Root, StageResult};
use super::outline::{GlobalArguments, Outline};
use super::stages::{Origin, Plan, Step};
use super::values::{absolute, is_signal, ports};
use crate::dockerfile::{
    Command, CommandLine, Declaration, Expander, Expansion, HealthcheckSyntax, Instruction, Lines, Pair, Problem, Rule,
    Word, did_you_mean,
};
use crate::image::{Healthcheck, Platform, RuntimeConfig};

/// `PATH` where the base image sets none.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A lowered stage, for those that build on it.
#[derive(Clone, Debug)]
pub(super) struct Finished {
    pub(super) root: Root,
    pub(super) config: RuntimeConfig,
    author: Option<String>,
    others: BTreeMap<String, Value>,
    history: Vec<HistoryStep>,
    pub(super) platform: Platform,
    pub(super) environment: Environment,
    args: Vec<(String, Option<String>)>,
    workdir_set: bool,
    pub(super) outline: Outline,
}

impl Finished {
    pub(super) fn into_result(self) -> StageResult {
        StageResult {
            root: self.root,
            config: self.config,
            author: self.author,
            others: self.others,
            history: self.history,
            platform: self.platform,
        }
    }
}

/// What is before the first `FROM`.
#[derive(Clone, Copy)]
pub(super) struct Globals<'p> {
    pub(super) values: &'p Environment,
    pub(super) arguments: &'p GlobalArguments,
}

/// A stage on its way.
pub(super) struct StageLowering<'p, 'i> {
    plan: &'p Plan,
    /// The name for messages; none when the file has one unnamed stage.
    pub(super) name: Option<String>,
    pub(super) finished: &'p BTreeMap<usize, Finished>,
    globals: Globals<'p>,
    pub(super) input: &'p LowerInput,
    pub(super) builder: &'p mut GraphBuilder<'i>,
    pub(super) problems: &'p mut Vec<Problem>,
    pub(super) state: Finished,
    escape: char,
    in_trigger: bool,
    /// Of the instruction that is being lowered.
    lines: Lines,
    cmd: Once,
    entrypoint: Once,
    healthcheck: Once,
    pub(super) own_steps: Vec<OpId>,
}

impl<'p, 'i> StageLowering<'p, 'i> {
    /// Takes over what the base has.
    pub(super) fn begin(
        plan: &'p Plan,
        name: Option<String>,
        finished: &'p BTreeMap<usize, Finished>,
        globals: Globals<'p>,
        input: &'p LowerInput,
        builder: &'p mut GraphBuilder<'i>,
        problems: &'p mut Vec<Problem>,
    ) -> Self {
        let mut own_steps = Vec::new();
        let mut state = Finished {
            root: Root::Scratch,
            config: RuntimeConfig { working_dir: "/".to_owned(), ..RuntimeConfig::default() },
            author: None,
            others: BTreeMap::new(),
            history: Vec::new(),
            platform: plan.platform.clone().unwrap_or_else(|| input.platform.clone()),
            environment: Environment::default(),
            args: Vec::new(),
            workdir_set: false,
            outline: Outline::default(),
        };
        match &plan.base {
            // As in the reference, whatever `--platform` says: there is nothing in it that is for one.
            Origin::Scratch => state.platform = input.platform.clone(),
            Origin::Context(key) => {
                state.root = match builder.context_files(key, plan.from.lines()) {
                    Some(Files::Folder(folder)) => builder.folder_root(folder, key, plan.from.lines()),
                    Some(Files::Root(root)) => root,
                    None => Root::Scratch,
                };
                let created_by = format!("[context {key}] load");
                state.history.push(HistoryStep::Made { created_by, layer: state.root.op(), lines: plan.from.lines() });
            }
            Origin::Stage(index) => {
                if let Some(base) = finished.get(index) {
                    state = base.clone();
                }
            }
            Origin::Image(request) => {
                let before = builder.nodes.len();
                if let Some(id) = builder.base(request, name.as_deref(), &plan.from) {
                    state.root = Root::Of(id);
                    if builder.nodes.len() > before {
                        own_steps.push(id);
                    }
                }
                if let Some(base) = input.bases.get(request) {
                    let config = &base.config;
                    state.config = config.inherited();
                    state.others = config.inherited_others();
                    state.author.clone_from(&config.author);
                    state.history = config.history.iter().cloned().map(HistoryStep::Base).collect();
                    if let Some(found) = config.platform() {
                        let wanted = &request.platform;
                        if !wanted.is_served_by(&found) {
                            let message = format!(
                                "Base image {} was pulled with platform \"{found}\", expected \"{wanted}\" for current build",
                                request.reference
                            );
                            let span = plan.from.span;
                            problems.push(Problem::warning(span, Rule::InvalidBaseImagePlatform, message));
                        }
                        // As the image says it where that is a name: `arm64/v8` stays what it is, and `x86_64` is `amd64`.
                        let is_a_name = found.os == config.os && found.architecture == config.architecture;
                        state.platform =
                            if is_a_name { Platform { variant: config.variant.clone(), ..found } } else { found };
                    }
                }
            }
        }
        for name in &plan.used {
            globals.arguments.mark(name, &mut state.outline);
        }
        // Triggers run in this stage, and not in those that build on it.
        state.config.on_build = None;
        let variables = state.config.env.get_or_insert_default();
        if !variables.iter().any(|variable| variable.starts_with("PATH=")) {
            variables.push(format!("PATH={DEFAULT_PATH}"));
        }
        // A stage that builds on another sees its arguments, and its `ENV`s over them.
        state.environment.set_all(variables);
        Self {
            plan,
            name,
            finished,
            globals,
            input,
            builder,
            problems,
            state,
            escape: '\\',
            in_trigger: false,
            lines: plan.from.lines(),
            cmd: Once::default(),
            entrypoint: Once::default(),
            healthcheck: Once::default(),
            own_steps,
        }
    }

    /// Lowers all instructions.
    pub(super) fn run(mut self, escape: char) -> Finished {
        for step in &self.plan.steps {
            self.in_trigger = step.is_trigger;
            self.lines = step.instruction.lines();
            self.escape = if step.is_trigger { '\\' } else { escape };
            self.step(step);
        }
        let origins = self.plan.steps.iter().flat_map(|step| step.origins.iter().flatten());
        for origin in origins {
            if let Origin::Stage(index) = origin
                && let Some(other) = self.finished.get(index)
            {
                self.state.outline.merge(&other.outline);
            }
        }
        number_steps(&mut self.builder.nodes, &self.own_steps);
        self.state
    }

    fn step(&mut self, step: &Step) {
        let instruction = &step.instruction;
        match &instruction.command {
            Command::Run(run) => self.run_instruction(step, run),
            Command::Copy(transfer) => self.transfer(step, transfer, false),
            Command::Add(transfer) => self.transfer(step, transfer, true),
            Command::Workdir(path) => self.workdir(instruction, path),
            Command::Arg(declarations) => self.arg(instruction, declarations),
            Command::Env(pairs) => self.env(instruction, pairs),
            Command::Label(pairs) => self.label(instruction, pairs),
            Command::Cmd(command) => {
                self.problems.extend(self.cmd.set(instruction));
                self.check_form(instruction, command);
                let args = self.command_words(command);
                self.record(format!("CMD {}", quoted_list(&args)), None);
                self.state.config.cmd = Some(args).filter(|args| !args.is_empty());
                self.state.config.args_escaped = true;
            }
            Command::Entrypoint(command) => {
                self.problems.extend(self.entrypoint.set(instruction));
                self.check_form(instruction, command);
                let args = self.command_words(command);
                self.record(format!("ENTRYPOINT {}", quoted_list(&args)), None);
                self.state.config.entrypoint = Some(args).filter(|args| !args.is_empty());
                if !self.cmd.is_set() {
                    self.state.config.cmd = None;
                }
            }
            Command::Expose(words) => self.expose(words),
            Command::Healthcheck(check) => {
                self.problems.extend(self.healthcheck.set(instruction));
                self.healthcheck(check);
            }
            Command::Maintainer(name) => {
                self.state.author = Some(name.text.clone());
                self.record(format!("MAINTAINER {}", name.text), None);
            }
            Command::Onbuild { text, .. } => {
                self.state.config.on_build.get_or_insert_default().push(text.clone());
            }
            Command::Shell(words) => {
                self.record(format!("SHELL {}", plain_list(words)), None);
                self.state.config.shell = Some(words.clone());
            }
            Command::Stopsignal(word) => {
                let Some(signal) = self.expand(word) else { return };
                if !is_signal(&signal) {
                    let problem = Problem::error(word.span, format!("invalid signal `{signal}`"));
                    self.problems.push(problem.hint("for example `SIGTERM`, `SIGRTMIN+3` or `9`"));
                    return;
                }
                self.record(format!("STOPSIGNAL {signal}"), None);
                self.state.config.stop_signal = Some(signal);
            }
            Command::User(word) => {
                let Some(user) = self.expand(word) else { return };
                self.record(format!("USER {user}"), None);
                self.state.config.user = user;
            }
            Command::Volume(words) => self.volume(words),
            Command::From => {}
        }
    }

    /// Adds an operation whose layer lies on what the stage has so far.
    pub(super) fn add_layer(&mut self, op: Op, instruction: &Instruction, text: String, created_by: String) {
        let text = if self.in_trigger { format!("ONBUILD {text}") } else { text };
        let id = self.builder.push(op, about(instruction, text, self.name.as_deref()));
        self.own_steps.push(id);
        self.state.root = Root::Of(id);
        self.record(created_by, Some(id));
    }

    fn record(&mut self, created_by: String, layer: Option<OpId>) {
        self.state.history.push(HistoryStep::Made { created_by, layer, lines: self.lines });
    }

    /// Expands a word; `None` after reporting why it cannot be.
    pub(super) fn expand(&mut self, word: &Word) -> Option<String> {
        self.expand_with(Expander::new(self.escape), word).map(|expansion| expansion.text)
    }

    pub(super) fn expand_with(&mut self, expander: Expander, word: &Word) -> Option<Expansion> {
        let environment = &self.state.environment;
        match expander.expand(&word.text, &|name| environment.get(name).map(str::to_owned)) {
            Ok(expansion) => {
                self.warn_of_unset(&expansion.unset, word);
                Some(expansion)
            }
            Err(error) => {
                self.problems.push(Problem::error(word.span, error.to_string()).within(word).hints(error.hint()));
                None
            }
        }
    }

    fn warn_of_unset(&mut self, unset: &BTreeSet<String>, word: &Word) {
        for name in unset {
            let declared = self.state.args.iter().any(|(declared, _)| declared == name);
            if declared || NOT_IN_ENVIRONMENT.contains(&name.as_str()) {
                continue;
            }
            let suggestion = did_you_mean(name, self.state.environment.names().filter(|name| !name.is_empty()), "$");
            let problem = Problem::warning(
                word.span,
                Rule::UndefinedVar,
                format!("Usage of undefined variable '${name}'{suggestion}"),
            );
            self.problems.push(match self.globals.values.get(name) {
                Some(_) => problem.hint(format!("put `ARG {name}` into the stage to see the global one")),
                None => problem,
            });
        }
    }

    /// The shell in front of a shell form.
    pub(super) fn with_shell(&self, command: &str) -> Vec<String> {
        let shell = self.state.config.shell.as_ref().filter(|shell| !shell.is_empty());
        let mut words = shell.cloned().unwrap_or_else(|| vec!["/bin/sh".to_owned(), "-c".to_owned()]);
        words.push(command.to_owned());
        words
    }

    pub(super) fn command_words(&self, command: &CommandLine) -> Vec<String> {
        match command {
            CommandLine::Exec(words) => words.clone(),
            CommandLine::Shell(line) => self.with_shell(&line.text),
        }
    }

    /// `|2 A=1 B=2 ` for a `RUN`'s history row: each declared argument, with the value that the command sees.
    pub(super) fn arguments_prefix(&self) -> String {
        let mut shown: Vec<(&str, &str)> = Vec::new();
        for (name, value) in &self.state.args {
            let value = self.state.environment.get(name).or(value.as_deref()).unwrap_or_default();
            match shown.iter_mut().find(|(earlier, _)| earlier == name) {
                Some(earlier) => earlier.1 = value,
                None => shown.push((name, value)),
            }
        }
        if shown.is_empty() {
            return String::new();
        }
        let pairs: Vec<String> = shown.iter().map(|(name, value)| format!("{name}={value} ")).collect();
        format!("|{} {}", shown.len(), pairs.concat())
    }

    fn workdir(&mut self, instruction: &Instruction, word: &Word) {
        // A path that expands to nothing is the directory that is set already.
        let Some(path) = self.expand(word) else { return };
        if !self.state.workdir_set && !path.starts_with('/') {
            let message = format!("Relative workdir {path:?} can have unexpected results if the base image changes");
            self.problems.push(Problem::warning(word.span, Rule::WorkdirRelativePath, message));
        }
        self.state.workdir_set = true;
        let current = &self.state.config.working_dir;
        let folder = absolute(current, &path);
        // As the reference has it, an absolute path is written down as it was typed.
        let shown = match path.as_str() {
            "" if current.starts_with('/') => current.clone(),
            typed if typed.starts_with('/') => path,
            _ => folder.clone(),
        };
        let created_by = format!("WORKDIR {shown}");
        let is_root = shown == "/";
        self.state.config.working_dir = shown;
        if is_root {
            self.record(created_by, None);
            return;
        }
        let user = &self.state.config.user;
        let op = CopyOp {
            input: self.state.root,
            from: CopyFrom::MakeDirectory,
            sources: Vec::new(),
            inline: Vec::new(),
            destination: folder,
            destination_is_directory: true,
            chown: Some(user.clone()).filter(|user| !user.is_empty()),
            chmod: None,
            link: false,
            parents: false,
            exclude: Vec::new(),
            unpack: false,
        };
        self.add_layer(Op::Copy(op), instruction, instruction.text.clone(), created_by);
    }

    /// A shell form needs a shell of the file's or the image's own to be meant.
    fn check_form(&mut self, instruction: &Instruction, command: &CommandLine) {
        let has_shell = self.state.config.shell.as_ref().is_some_and(|shell| !shell.is_empty());
        if matches!(command, CommandLine::Shell(_)) && !has_shell {
            self.problems.push(checks::shell_form(instruction));
        }
    }

    fn arg(&mut self, instruction: &Instruction, declarations: &[Declaration]) {
        let mut shown = Vec::new();
        for declaration in declarations {
            let name = &declaration.name.text;
            self.problems.extend(checks::secret("ARG", name, instruction.span));
            let value = if let Some(value) = self.input.build_args.get(name) {
                Some(value.clone())
            } else if let Some(default) = &declaration.default {
                let Some(value) = self.expand(default) else { continue };
                Some(value)
            } else {
                self.globals.values.get(name).map(str::to_owned)
            };
            let given = self.input.build_args.contains_key(name) || declaration.default.is_some();
            if given || self.globals.values.get(name).is_none() {
                self.state.outline.declare(instruction, name, value.as_deref());
            } else {
                self.globals.arguments.mark(name, &mut self.state.outline);
            }
            if let Some(value) = value.as_ref().filter(|_| !NOT_IN_ENVIRONMENT.contains(&name.as_str())) {
                self.state.environment.set(name, value);
            }
            shown.push(value.as_ref().map_or_else(|| name.clone(), |value| format!("{name}={value}")));
            self.state.args.push((name.clone(), value));
        }
        self.record(format!("ARG {}", shown.join(" ")), None);
    }

    /// Pairs expanded in the environment from before the instruction; `None` when one of them cannot be.
    fn pairs(&mut self, pairs: &[Pair]) -> Option<Vec<(String, String)>> {
        let mut expanded = Vec::new();
        for Pair { key, value, .. } in pairs {
            // A name may expand to nothing: the reference takes it, and so does the kernel.
            let name = self.expand(key)?;
            expanded.push((name, self.expand(value)?));
        }
        Some(expanded)
    }

    fn env(&mut self, instruction: &Instruction, pairs: &[Pair]) {
        let Some(expanded) = self.pairs(pairs) else { return };
        self.check_pairs(instruction, pairs);
        let mut created_by = "ENV".to_owned();
        for (name, value) in expanded {
            self.problems.extend(checks::secret("ENV", &name, instruction.span));
            let variable = format!("{name}={value}");
            created_by = format!("{created_by} {variable}");
            self.state.environment.set(&name, &value);
            let variables = self.state.config.env.get_or_insert_default();
            let same = |other: &&mut String| other.split('=').next() == Some(name.as_str());
            match variables.iter_mut().find(same) {
                Some(earlier) => *earlier = variable,
                None => variables.push(variable),
            }
        }
        self.record(created_by, None);
    }

    fn check_pairs(&mut self, instruction: &Instruction, pairs: &[Pair]) {
        let legacy = pairs.iter().filter(|pair| pair.is_legacy);
        self.problems.extend(legacy.map(|_| checks::legacy_pair(instruction)));
    }

    fn label(&mut self, instruction: &Instruction, pairs: &[Pair]) {
        let Some(expanded) = self.pairs(pairs) else { return };
        self.check_pairs(instruction, pairs);
        let shown: Vec<String> = expanded.iter().map(|(name, value)| format!(" {name}={value}")).collect();
        self.record(format!("LABEL{}", shown.concat()), None);
        self.state.config.labels.get_or_insert_default().extend(expanded);
    }

    fn expose(&mut self, words: &[Word]) {
        let mut words: Vec<&Word> = words.iter().collect();
        words.sort_by(|left, right| left.text.cmp(&right.text));
        let mut all = Vec::new();
        for word in words {
            // As in the reference, a variable that is not set is no slip here.
            let unset = self.problems.len();
            let Some(expansion) = self.expand_with(Expander::new(self.escape), word) else { return };
            self.problems.truncate(unset);
            for text in expansion.words {
                match ports(&text) {
                    Ok(exposed) => {
                        self.problems.extend(exposed.checks(&text, word.span));
                        all.extend(exposed.ports);
                    }
                    Err(message) => {
                        self.problems.push(Problem::error(word.span, message).within(word));
                        return;
                    }
                }
            }
        }
        self.record(format!("EXPOSE {}", plain_list(&all)), None);
        let exposed = self.state.config.exposed_ports.get_or_insert_default();
        exposed.extend(all.into_iter().map(|port| (port, Value::Object(Map::new()))));
    }

    fn volume(&mut self, words: &[Word]) {
        let mut paths = Vec::new();
        for word in words {
            let trimmed = Word { text: word.text.trim().to_owned(), span: word.span };
            let Some(path) = self.expand(&trimmed) else { return };
            if path.is_empty() {
                let message = format!("`VOLUME {}` expands to nothing", word.text);
                self.problems.push(Problem::error(word.span, message).within(word));
                return;
            }
            paths.push(path);
        }
        self.record(format!("VOLUME {}", plain_list(&paths)), None);
        let volumes = self.state.config.volumes.get_or_insert_default();
        volumes.extend(paths.into_iter().map(|path| (path, Value::Object(Map::new()))));
    }

    fn healthcheck(&mut self, check: &HealthcheckSyntax) {
        let check = match check {
            HealthcheckSyntax::None => Healthcheck { test: vec!["NONE".to_owned()], ..Healthcheck::default() },
            HealthcheckSyntax::Check { command, interval, timeout, start_period, start_interval, retries } => {
                let test = match command {
                    CommandLine::Exec(words) => {
                        std::iter::once("CMD".to_owned()).chain(words.iter().cloned()).collect()
                    }
                    CommandLine::Shell(line) => vec!["CMD-SHELL".to_owned(), line.text.clone()],
                };
                Healthcheck {
                    test,
                    interval: *interval,
                    timeout: *timeout,
                    start_period: *start_period,
                    start_interval: *start_interval,
                    retries: *retries,
                }
            }
        };
        self.record(format!("HEALTHCHECK {}", healthcheck(&check)), None);
        self.state.config.healthcheck = Some(check);
    }
}

//! The instructions that make layers: `RUN`, `COPY` and `ADD`.

use std::sync::Arc;

use fluyt_client::without_password;

use super::contexts::Files;
use super::environment::PROXIES;
use super::mounts::parse_mount;
use super::op::{Conditions, CopyFrom, CopyOp, InlineFile, Mount, MountFrom, MountKind, Network, Op, RunOp, Security};
use super::outline::Needed;
use super::stage::StageLowering;
use super::stages::{Origin, Step};
use super::values::{absolute, chmod};
use crate::dockerfile::{CommandLine, Expander, Instruction, Problem, RunSyntax, Span, Transfer, Word};

/// Where an agent's socket is shown that names no other place; a number follows.
const AGENT_PATH: &str = "/run/buildkit/ssh_agent";

/// Where a script of a `RUN <<EOF` that begins with `#!` is shown to the command.
const SCRIPT_FOLDER: &str = "/dev/pipes";

impl StageLowering<'_, '_> {
    pub(super) fn run_instruction(&mut self, step: &Step, run: &RunSyntax) {
        let instruction = &step.instruction;
        let before = self.problems.len();
        let mounts = self.mounts(step, run);
        let network = self.network(run.network.as_ref());
        let security = self.security(run.security.as_ref());
        if let Some(device) = run.devices.first() {
            let message = format!("`RUN --device={}`: there are no devices for commands of a build", device.text);
            self.problems.push(Problem::error(device.span, message).hint(
                "a CDI device is what a container runtime on this machine hands out; \
                 `RUN --security=insecure` with `--allow security.insecure` has the machine's own device nodes",
            ));
        }
        if self.problems[before..].iter().any(Problem::is_error) {
            return;
        }
        let mut text = instruction.text.clone();
        let mut script = None;
        let argv = match (&run.command, run.script()) {
            (CommandLine::Exec(words), _) => words.clone(),
            (CommandLine::Shell(_), Some(document)) => {
                let body = document.content();
                let mut lines = body.trim().lines();
                let more = if body.trim().lines().count() > 1 { "..." } else { "" };
                text = format!("{text} ({}{more})", lines.next().unwrap_or_default());
                if body.starts_with("#!") {
                    let name = document.name.text.clone();
                    if name.contains('/') || name == "." || name == ".." {
                        let message = format!("heredoc `{name}` cannot be a script's file name");
                        self.problems.push(Problem::error(document.name.span, message));
                        return;
                    }
                    let path = format!("{SCRIPT_FOLDER}/{name}");
                    script = Some(InlineFile { name: path.clone(), content: body.into_bytes(), mode: 0o755 });
                    self.with_shell(&path)
                } else {
                    self.with_shell(&body)
                }
            }
            (CommandLine::Shell(line), None) => {
                let mut command = line.text.clone();
                for document in &run.documents {
                    command = format!("{command}\n{}{}", document.body, document.name.text);
                }
                self.with_shell(&command)
            }
        };
        let created_by = format!("RUN {}{} # buildkit", self.arguments_prefix(), argv.join(" "));
        let state = &self.state;
        let cwd = absolute("/", &state.config.working_dir);
        let op = RunOp {
            input: state.root,
            argv,
            env: state.environment.pairs().to_vec(),
            proxy_env: self.proxy_environment(),
            cwd,
            user: state.config.user.clone(),
            mounts,
            network,
            security,
            conditions: Arc::new(self.conditions()),
            script,
            platform: state.platform.clone(),
        };
        self.add_layer(Op::Run(op), instruction, text, created_by);
    }

    /// What the build says of all commands, with the host name that a build argument may give.
    fn conditions(&self) -> Conditions {
        let mut conditions = self.input.conditions.clone();
        let given = self.input.build_args.get("BUILDKIT_SANDBOX_HOSTNAME").filter(|name| !name.is_empty());
        if let Some(name) = given {
            conditions.host_name = Some(name.clone());
        }
        conditions
    }

    fn network(&mut self, word: Option<&Word>) -> Network {
        let Some(word) = word else { return self.input.network };
        match word.text.as_str() {
            // That of the command line, as the reference has it: a Dockerfile does not get out of it by a word.
            "default" => self.input.network,
            "none" => Network::None,
            "host" => {
                if !self.input.allowed.host_network {
                    self.not_allowed(word.span, "network.host", "a command on the host's own network");
                }
                Network::Host
            }
            other => {
                let message = format!("invalid `--network={other}`: expected `default`, `none` or `host`");
                self.problems.push(Problem::error(word.span, message).within(word));
                Network::Default
            }
        }
    }

    fn security(&mut self, word: Option<&Word>) -> Security {
        let Some(word) = word else { return Security::Sandbox };
        match word.text.as_str() {
            "sandbox" => {}
            "insecure" => {
                if !self.input.allowed.insecure {
                    self.not_allowed(
                        word.span,
                        "security.insecure",
                        "a command with all rights of root on this machine",
                    );
                }
                return Security::Insecure;
            }
            other => {
                let message = format!("invalid `--security={other}`: expected `sandbox` or `insecure`");
                self.problems.push(Problem::error(word.span, message).within(word));
            }
        }
        Security::Sandbox
    }

    /// What only the caller of the build can allow, never its Dockerfile.
    fn not_allowed(&mut self, span: Span, entitlement: &str, what: &str) {
        let problem = Problem::error(span, format!("{entitlement} is not allowed"));
        self.problems.push(problem.hint(format!("`--allow {entitlement}` allows {what}")));
    }

    fn mounts(&mut self, step: &Step, run: &RunSyntax) -> Vec<Mount> {
        let mut mounts = Vec::new();
        let cwd = absolute("/", &self.state.config.working_dir);
        for (index, word) in run.mounts.iter().enumerate() {
            let parsed = parse_mount(&word.text, &cwd, &mut |value| {
                self.expand(&Word { text: value.to_owned(), span: word.span })
            });
            let syntax = match parsed {
                Ok(Some(syntax)) => syntax,
                Ok(None) => continue,
                Err(message) => {
                    self.problems.push(Problem::error(word.span, message).within(word));
                    continue;
                }
            };
            let from = match step.origins.get(index).and_then(Option::as_ref) {
                Some(origin) => match self.origin_files(origin, &step.instruction, word) {
                    Some(files) => files.into(),
                    None => continue,
                },
                None if syntax.kind == MountKind::Bind => {
                    let fetched = self.builder.main_context(step.instruction.lines());
                    fetched.map_or(MountFrom::Context, MountFrom::Root)
                }
                None => MountFrom::Nothing,
            };
            let needed = |required: bool| Needed { required, lines: step.instruction.lines() };
            match &syntax.kind {
                MountKind::Secret { id, required, .. } => {
                    self.state.outline.secrets.entry(id.clone()).or_insert(needed(*required));
                }
                MountKind::Ssh { id, required, .. } => {
                    self.state.outline.agents.entry(id.clone()).or_insert(needed(*required));
                }
                _ => {}
            }
            let agents = mounts.iter().filter(|mount: &&Mount| matches!(mount.kind, MountKind::Ssh { .. })).count();
            let target = match syntax.kind {
                MountKind::Ssh { .. } if syntax.target.is_empty() => format!("{AGENT_PATH}.{agents}"),
                _ => syntax.target,
            };
            let mut kind = syntax.kind;
            if let MountKind::Cache { id, .. } = &mut kind
                && let Some(space) =
                    self.input.build_args.get("BUILDKIT_CACHE_MOUNT_NS").filter(|text| !text.is_empty())
            {
                *id = format!("{space}/{id}");
            }
            mounts.push(Mount { kind, target, from, source: syntax.source, read_only: syntax.read_only });
        }
        mounts
    }

    /// The files behind a name; a stage must stand above this one.
    fn origin_files(&mut self, origin: &Origin, at: &Instruction, named: &Word) -> Option<Files> {
        if let Origin::Stage(index) = origin
            && !self.finished.contains_key(index)
        {
            let this = self.name.as_deref().unwrap_or("stage-0");
            let named_as = &named.text;
            let message = format!("cannot copy from stage `{named_as}`: it needs to be defined before stage `{this}`");
            self.problems.push(Problem::error(named.span, message));
            return None;
        }
        self.builder.files(origin, self.finished, at)
    }

    /// Proxy build arguments that no `ARG` declares, under both spellings.
    fn proxy_environment(&self) -> Vec<(String, String)> {
        let mut proxies = Vec::new();
        for name in PROXIES {
            let lower = name.to_ascii_lowercase();
            let given = self.input.build_args.get(name).or_else(|| self.input.build_args.get(&lower));
            let Some(value) = given.filter(|value| !value.is_empty()) else { continue };
            for name in [name.to_owned(), lower] {
                if self.state.environment.get(&name).is_none() {
                    proxies.push((name, value.clone()));
                }
            }
        }
        proxies
    }

    pub(super) fn transfer(&mut self, step: &Step, transfer: &Transfer, is_add: bool) {
        let instruction = &step.instruction;
        let name = if is_add { "ADD" } else { "COPY" };
        let before = self.problems.len();
        let chown = transfer.chown.as_ref().and_then(|word| self.expand(word)).filter(|text| !text.is_empty());
        let chmod_text = transfer.chmod.as_ref().and_then(|word| Some((self.expand(word)?, word.span)));
        let chmod_text = chmod_text.filter(|(text, _)| !text.is_empty());
        let mode = chmod_text.as_ref().and_then(|(text, span)| {
            chmod(text).map_err(|message| self.problems.push(Problem::error(*span, message))).ok()
        });
        let sources: Vec<(String, Span)> =
            transfer.sources.iter().filter_map(|word| Some((self.expand(word)?, word.span))).collect();
        let destination = self.expand(&transfer.destination);
        let files = self.inline_files(transfer);
        let checksum = transfer.checksum.as_ref().and_then(|word| Some((self.expand(word)?, word.span)));
        let remote = self.remote_sources(transfer, is_add, &sources, checksum.as_ref(), instruction);
        let from = match step.origins.first() {
            Some(Some(origin)) => {
                let named = transfer.from.clone().unwrap_or_default();
                self.origin_files(origin, instruction, &named).map(CopyFrom::from)
            }
            Some(None) => None,
            None if sources.is_empty() || remote.is_some() => Some(CopyFrom::Context),
            None => Some(self.builder.main_context(instruction.lines()).map_or(CopyFrom::Context, CopyFrom::Root)),
        };
        let (Some(destination), Some(from)) = (destination, from) else { return };
        if self.problems[before..].iter().any(Problem::is_error) {
            return;
        }
        let mut created_by = name.to_owned();
        let mut show = |text: &str| {
            created_by.push(' ');
            created_by.push_str(text);
        };
        if transfer.parents {
            show("--parents");
        }
        if let Some(chown) = &chown {
            show(&format!("--chown={chown}"));
        }
        if let Some((text, _)) = &chmod_text {
            show(&format!("--chmod={text}"));
        }
        for (source, _) in &sources {
            show(&without_password(source));
        }
        for file in &files {
            show(&format!("<<{}", file.name));
        }
        show(&destination);
        created_by.push_str(" # buildkit");
        let destination_is_directory =
            destination.is_empty() || destination == "." || destination.ends_with('/') || destination.ends_with("/.");
        let sources = match &remote {
            Some((_, sources)) => sources.clone(),
            None => sources.iter().map(|(source, _)| source_path(source, transfer.parents)).collect(),
        };
        let op = CopyOp {
            input: self.state.root,
            from: remote.as_ref().map_or(from, |(from, _)| from.clone()),
            // Heredocs are never unpacked.
            unpack: transfer.unpack.unwrap_or(is_add && remote.is_none()) && !transfer.sources.is_empty(),
            sources,
            inline: files,
            destination: absolute(&self.state.config.working_dir, &destination),
            destination_is_directory,
            chown,
            // The reference does the same: a mode for all makes it an ordinary copy.
            link: transfer.link && mode.is_none(),
            chmod: mode,
            parents: transfer.parents,
            exclude: transfer.exclude.iter().map(|word| word.text.clone()).collect(),
        };
        self.add_layer(Op::Copy(op), instruction, without_password(&instruction.text), created_by);
    }

    /// The heredocs of a `COPY` or `ADD`, expanded where no part of their word was quoted.
    fn inline_files(&mut self, transfer: &Transfer) -> Vec<InlineFile> {
        let rules = Expander { ignore_quotes: true, ..Expander::new('\\') };
        let mut files = Vec::new();
        for document in &transfer.documents {
            let name = document.name.text.clone();
            if name.is_empty() || name.contains('/') || name == "." || name == ".." {
                let message = format!("heredoc `{name}` cannot be a file's name");
                self.problems.push(Problem::error(document.name.span, message));
                continue;
            }
            let mut content = document.content();
            if document.expand {
                let body = Word { text: content, span: document.name.span };
                let Some(expansion) = self.expand_with(rules, &body) else { continue };
                content = expansion.text;
            }
            files.push(InlineFile { name, content: content.into_bytes(), mode: 0o644 });
        }
        files
    }
}

/// A source relative to the root it is taken from: cleaned, `..` stopped at the root. The pivot `/./` of `--parents` stays.
pub(super) fn source_path(source: &str, parents: bool) -> String {
    let clean = |path: &str| absolute("/", path).trim_start_matches('/').to_owned();
    match source.split_once("/./").filter(|_| parents) {
        Some((above, below)) => format!("{}/./{}", clean(above), clean(below)),
        None => clean(source),
    }
}

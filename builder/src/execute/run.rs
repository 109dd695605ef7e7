//! `RUN`: unpack what lies below, run the command on it, and make a layer of what it changed.

use std::fmt::Write as _;

use super::copy::{accounts, content_of, stacked};
use super::machine;
use super::mounts::MadeMounts;
use super::plan::StepPlan;
use super::relief::complains;
use super::{Executor, Identity, RootState, States, StepError};
use crate::cache::{Stamps, key};
use crate::event::{Event, StepId, Stream};
use crate::graph::{Limit, Network, RunOp, Security};
use crate::layer::{Kind, Layer, LayerBuilder, LayerPath, Tree};
use crate::sandbox::{self, Exit, RunSpec, Rung, SandboxError};
use crate::snapshot::Workspace;

/// The host name that a command sees. A fixed one, because commands write it into what they make.
const HOST_NAME: &str = "buildkitsandbox";

/// What tools that want the same bytes twice read.
pub(super) const EPOCH: &str = "SOURCE_DATE_EPOCH";

/// 1980-01-01, the earliest time that a zip archive can hold: what a reproducible build shows a command that no `ARG`
/// tells another epoch.
pub const EARLIEST_ZIP_TIME: i64 = 315_532_800;

impl Executor {
    pub(super) fn run_command(
        &self,
        step: StepId,
        op: &RunOp,
        plan: &StepPlan,
        states: &States,
    ) -> Result<RootState, StepError> {
        let below = states.of(op.input);
        let shown = self.mount_contents(step, op, states)?;
        let key = key::run(below.content, op, &Self::mount_keys(&shown), &plan.before, self.options.mode);
        if plan.reads_cache
            && let Some(found) = self.recorded(step, key, plan)?
        {
            self.events.hear(Event::Cached { step });
            return Ok(stacked(&below, found));
        }
        self.missed(step, plan, states, None, None);
        let choice = self.isolation.choice();
        machine::check(&op.platform, choice.rung)?;
        let Some(fidelity) = choice.rung.fidelity() else {
            return Err(StepError::NoSandbox { refused: choice.refused.clone() });
        };
        self.unpack_all(step, &below)?;
        let tree = self.tree(step, &below)?;
        let identity = accounts(&tree).identity(&op.user)?;
        self.accept_rung(choice.rung, op, &identity)?;

        let mut workspace = self.snapshots.prepare(&below.diff_ids())?;
        let normalizer = self.normalizer(op, &workspace, &tree)?;
        let mut made = self.make_mounts(step, op, &shown, &tree, &mut workspace)?;
        let spec = self.specification(op, choice.rung, &workspace, identity, &mut made)?;
        let ended = self.run_on(step, choice.rung, &spec);
        // It may hold secrets.
        drop(spec);
        let finished = made.finish();
        ended.map_err(|error| without_program(error, &op.argv, &tree))?;
        finished?;

        if let Some(normalizer) = normalizer {
            self.normalize(step, &normalizer, &mut workspace, &tree)?;
        }
        let (layer, fixed) = self.collect(plan, &workspace, &tree)?;
        let content = content_of(&layer);
        // A command that leaves what it left before keeps the layer that it left then, times included: what stands on it
        // and the image are what they were. Under `--no-cache` the user asked for a new one.
        let left = key::left(op, content, self.options.mode);
        if plan.reads_cache
            && let Some(earlier) = self.records.layer(left)
            && earlier.content == content
            && let Some(found) = self.in_form(step, left, &earlier, plan.leaving)?
        {
            self.records.keep_layer(key, &earlier)?;
            return Ok(stacked(&below, found));
        }
        self.snapshots.commit(workspace, &layer)?;
        let (kept, content) = self.keep(key, &layer, Stamps::Made, fixed, None, fidelity)?;
        if let Some(planned) = &kept.planned {
            self.records.keep_layer(left, &planned.record)?;
        }
        Ok(stacked(&below, (kept, content)))
    }

    /// What a sandbox is told: the command as the build describes it, in a root and with mounts that were made for it.
    fn specification(
        &self,
        op: &RunOp,
        rung: Rung,
        workspace: &Workspace,
        identity: Identity,
        made: &mut MadeMounts,
    ) -> Result<RunSpec, StepError> {
        let mut env = op.env.clone();
        if self.options.mode.reproducible && !env.iter().any(|(name, _)| name == EPOCH) {
            env.push((EPOCH.to_owned(), EARLIEST_ZIP_TIME.to_string()));
        }
        env.extend(op.proxy_env.iter().cloned());
        if !env.iter().any(|(name, _)| name == "HOME") {
            env.push(("HOME".to_owned(), identity.home.clone()));
        }
        env.append(&mut made.env);
        let host_name = op.conditions.host_name.as_deref().unwrap_or(HOST_NAME);
        Ok(RunSpec {
            root: workspace.root().clone(),
            argv: op.argv.clone(),
            env,
            cwd: op.cwd.clone(),
            uid: identity.uid,
            gid: identity.gid,
            groups: identity.groups,
            hosts: hosts(host_name, &op.conditions.hosts).into_bytes(),
            hostname: host_name.to_owned(),
            resolv_conf: resolvers(op.network),
            network: match op.network {
                Network::Default | Network::Host => sandbox::Network::Host,
                Network::None => sandbox::Network::None,
                Network::Isolated => sandbox::Network::Isolated,
            },
            insecure: op.security == Security::Insecure,
            capabilities: sandbox::CapabilityChange::read(
                &op.conditions.added_capabilities,
                &op.conditions.dropped_capabilities,
            )
            .map_err(|reason| SandboxError::Specification { reason })?,
            shm_size_bytes: op.conditions.shm_size_bytes.unwrap_or_default(),
            resources: self.options.resources.clone(),
            limits: op.conditions.limits.iter().map(limit).collect(),
            mounts: std::mem::take(&mut made.mounts),
            recorded: rung == Rung::SingleId,
        })
    }

    /// Runs a command on a rung of the ladder, to its end. A command that fails is an error.
    fn run_on(&self, step: StepId, rung: Rung, spec: &RunSpec) -> Result<(), StepError> {
        let mut complained = false;
        let mut output = |stream: sandbox::Stream, bytes: &[u8]| {
            complained |= complains(bytes);
            let stream = match stream {
                sandbox::Stream::Stdout => Stream::Stdout,
                sandbox::Stream::Stderr => Stream::Stderr,
            };
            self.events.hear(Event::Output { step, stream, bytes: bytes.to_vec() });
        };
        match sandbox::run_on(rung, spec, &mut output, &self.cancel)? {
            Exit::Code(0) => Ok(()),
            Exit::Code(status) => {
                let error = StepError::ExitStatus { status, without_raw: spec.is_without_raw() };
                Err(self.with_room(error, complained))
            }
            Exit::Signal { signal, out_of_memory } => {
                Err(self.with_room(StepError::Signal { signal, out_of_memory }, complained))
            }
            Exit::Cancelled => Err(StepError::Cancelled),
        }
    }

    /// Makes a layer of what the command changed in the workspace, which showed `tree` before. With it come the folders that
    /// are in the layer only for what is in them.
    fn collect(&self, plan: &StepPlan, workspace: &Workspace, tree: &Tree) -> Result<(Layer, Vec<String>), StepError> {
        let mut builder = LayerBuilder::new(&self.store, self.options.layers)?;
        let mut fixed = Vec::new();
        self.search_in(&mut builder, plan);
        for change in workspace.changes_over(tree)? {
            self.cancel.check()?;
            // A folder that the command left alone is named only for what is in it. Its time may be that of a check-out.
            let entry = &change.entry;
            let left_alone = entry.kind == Kind::Directory
                && tree.get(&entry.path).is_some_and(|node| {
                    node.entry.kind == Kind::Directory && node.entry.modified.seconds == entry.modified.seconds
                });
            if left_alone {
                fixed.push(entry.path.to_string());
            }
            builder.set_times(self.written_with(if left_alone { Stamps::Context } else { Stamps::Made }).times);
            builder.add(&change)?;
        }
        let is_clean = self.searched(&mut builder);
        let layer = builder.finish()?;
        if is_clean {
            self.keep_clean(layer.diff_id.as_ref(), plan.leaving)?;
        }
        Ok((layer, fixed))
    }
}

/// A command that was not found is told by the name of the program that the image lacks, where that is the reason: most often
/// a shell.
fn without_program(error: StepError, argv: &[String], tree: &Tree) -> StepError {
    let Some(program) = argv.first().filter(|program| program.starts_with('/')) else { return error };
    let path = LayerPath::clean(program.as_bytes());
    let is_there = path.is_none_or(|path| tree.resolve(&path, true).is_ok_and(|found| tree.get(&found).is_some()));
    match error {
        StepError::ExitStatus { status: 127, .. } if !is_there => StepError::NoProgram { program: program.clone() },
        error => error,
    }
}

/// `/etc/hosts` as other builders write it: the machine itself, then the names that the build gives.
fn hosts(host_name: &str, more: &[(String, String)]) -> String {
    let mut text = format!("127.0.0.1\tlocalhost {host_name}\n::1\tlocalhost ip6-localhost ip6-loopback\n");
    for (name, address) in more {
        let _ = writeln!(text, "{address}\t{name}");
    }
    text
}

/// `/etc/resolv.conf`: the host's, without what a command in a network of its own cannot reach.
fn resolvers(network: Network) -> Vec<u8> {
    let read = |path: &str| std::fs::read(path).unwrap_or_default();
    match network {
        Network::Default | Network::Host => read("/etc/resolv.conf"),
        Network::None | Network::Isolated => {
            sandbox::reachable_resolvers(&read("/etc/resolv.conf"), &read("/run/systemd/resolve/resolv.conf"))
        }
    }
}

fn limit(limit: &Limit) -> sandbox::Limit {
    sandbox::Limit { name: limit.name.clone(), soft: limit.soft, hard: limit.hard }
}

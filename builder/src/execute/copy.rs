//! `COPY`, `ADD` and `WORKDIR`: select, place, key, and only then write.
//!
//! The step's key is the hash of what it is about to write (see `cache::key`), so every file is read once for the key;
//! the layer's writer hashes it again and refuses one that changed in between.

use std::io;
use std::sync::Arc;

use super::extract::Spool;
use super::fresh::made_below;
use super::item::{Content, Items};
use super::leaving::Leaving;
use super::moving::Moving;
use super::owner::Accounts;
use super::placing::{Made, Placing, made_mode};
use super::plan::StepPlan;
use super::select::{self, Files, Selected, SelectedEntry};
use super::unpack::Archive;
use super::{BuiltLayer, Executor, RootState, States, StepError, unpack};
use crate::blob::ContentHash;
use crate::cache::{Key, LayerContent, LayerContentHasher, LayerRecord, PlannedLayer, Stamps, key};
use crate::context::{Filter, split_at_pivot};
use crate::event::{Event, StepId};
use crate::graph::{CopyFrom, CopyOp, InlineFile, Root};
use crate::layer::{Change, Kind, Layer, LayerBuilder, LayerIndex, LayerPath, Source, Times, Tree};
use crate::sandbox::Fidelity;

impl Executor {
    pub(super) fn copy(
        &self,
        step: StepId,
        op: &CopyOp,
        plan: &StepPlan,
        states: &States,
    ) -> Result<RootState, StepError> {
        let below = states.of(op.input);
        // Nobody looks below an independent layer, unless for the number of a name.
        let looks_below = !op.link || op.chown.is_some();
        let tree = if looks_below { self.tree(step, &below)? } else { Arc::default() };
        let accounts = accounts(&tree);
        let owner = op.chown.as_deref().map(|text| self.owner(&accounts, op.input, text)).transpose()?;
        let nothing = Tree::new();
        let met = if op.link { &nothing } else { &*tree };
        let made = Made { owner: owner.unwrap_or((0, 0)), mode: made_mode(op.chmod.as_ref()) };
        let mut placing = Placing::new(met, made, self.options.made_at);
        let destination = LayerPath::clean(op.destination.as_bytes()).unwrap_or_default();
        let destination = placing.resolve(&destination, true)?;

        let mut archives: &[Archive] = &[];
        match (&op.from, plan.taken.as_deref()) {
            (CopyFrom::Root(root), _) => {
                let mut selected = self.taken_from_root(step, op, &states.of(*root))?;
                selected.extend(self.inline(op));
                self.place(&mut placing, op, owner, &destination, &selected, 0)?;
            }
            (_, Some(taken)) => {
                archives = &taken.archives;
                self.place(&mut placing, op, owner, &destination, &taken.selected, 0)?;
            }
            (_, None) => placing.make_directory(&destination)?,
        }
        placing.items.link_names_of_one_file();

        let stamps = match &op.from {
            CopyFrom::Root(_) | CopyFrom::Fetch(_) => Stamps::Made,
            _ if archives.is_empty() => Stamps::Context,
            _ => Stamps::Made,
        };
        let planned = placing.items.layer_content();
        let key = match archives.is_empty() {
            true => key::copy(planned, stamps),
            false => {
                let archives: Vec<String> =
                    archives.iter().map(|archive| format!("{} {}", archive.after, archive.hash)).collect();
                key::unpack(below.content, op.link, &archives, planned, destination.as_bytes(), owner)
            }
        };
        let mut reason = None;
        if plan.reads_cache
            && let Some(found) = self.recorded(step, key, plan)?
        {
            let looks = !op.link && archives.is_empty();
            if !looks || !self.shows_older(step, &found.0, &placing.items, &below, &tree)? {
                self.events.hear(Event::Cached { step });
                return Ok(stacked(&below, found));
            }
            reason = Some("what lies below it was made since, and its files would seem older than that");
        }
        self.missed(step, plan, states, Some(planned.key()), reason);
        let mut spool = Spool::create(&self.store)?;
        if let Some(taken) = plan.taken.as_deref().filter(|taken| !taken.archives.is_empty()) {
            // Of two sources with a file of one name the later one's stays, archive or not.
            let mut rest = &taken.selected[..];
            let mut placed = 0;
            placing = Placing::new(met, made, self.options.made_at);
            for archive in &taken.archives {
                let (before, after) = rest.split_at_checked(archive.after - placed).unwrap_or((rest, &[]));
                self.place(&mut placing, op, owner, &destination, before, placed)?;
                let what = || format!("unpacking {}", archive.name);
                let moving = |size_bytes| Moving::begin(&self.events, step, what(), size_bytes);
                unpack::unpack(archive, &destination, owner, &below.diff_ids(), &mut placing, &mut spool, &moving)?;
                placing.made = made;
                (rest, placed) = (after, archive.after);
            }
            self.place(&mut placing, op, owner, &destination, rest, placed)?;
            placing.items.link_names_of_one_file();
        }
        let items = placing.items;
        let files_of = if archives.is_empty() { source_state(op, states) } else { (*below).clone() };
        let items = self.extract(step, items, &files_of, &mut spool)?;
        let fixed = if stamps == Stamps::Context { Vec::new() } else { items.timeless() };
        let (layer, is_clean) = self.write_items(items, stamps, &spool, plan)?;
        if is_clean {
            self.keep_clean(layer.diff_id.as_ref(), plan.leaving)?;
        }
        let on = (!op.link).then(|| made_below(&below));
        Ok(stacked(&below, self.keep(key, &layer, stamps, fixed, on, Fidelity::Exact)?))
    }

    /// The owner that `--chown` names. What the image does not know of it is told; where there is no image at all, no name
    /// can be meant, and it is an error.
    fn owner(&self, accounts: &Accounts, below: Root, text: &str) -> Result<(u32, u32), StepError> {
        let (owner, unknown) = accounts.owner(text);
        for error in unknown {
            if below == Root::Scratch {
                return Err(error.into());
            }
            let text = format!("`--chown={text}` comes to {}:{}: {error}", owner.0, owner.1);
            self.events.hear(Event::Warning { text });
        }
        Ok(owner)
    }

    /// The files that the Dockerfile holds for the step.
    pub(super) fn inline(&self, op: &CopyOp) -> Vec<Selected> {
        op.inline.iter().map(|file| inline(file, self.options.made_at)).collect()
    }

    /// What the step takes of a stage's or an image's root.
    fn taken_from_root(&self, step: StepId, op: &CopyOp, state: &RootState) -> Result<Vec<Selected>, StepError> {
        let tree = self.tree(step, state)?;
        let diff_ids = state.diff_ids();
        let (place, mut files, mut selected) = ("the stage or image it is copied from", Files::default(), Vec::new());
        for (base, filter) in filters(op)? {
            selected.extend(select::from_tree(&tree, &diff_ids, base, &filter, place, &mut files)?);
        }
        Ok(selected)
    }

    /// Takes the sources that are archives out of `selected` when the step unpacks them.
    pub(super) fn take_archives(
        &self,
        op: &CopyOp,
        selected: Vec<Selected>,
        archives: &mut Vec<Archive>,
    ) -> Result<Vec<Selected>, StepError> {
        if !op.unpack {
            return Ok(selected);
        }
        let mut others = Vec::new();
        for source in selected {
            let first = source.entries.first();
            let path = match first.map(|entry| &entry.content) {
                Some(Content::Source(Source::File { path, .. })) if unpack::is_archive(path)? => path.clone(),
                _ => {
                    others.push(source);
                    continue;
                }
            };
            let hash = match first.and_then(|entry| entry.digest) {
                Some(hash) => hash,
                None => self.stats.hash_of(&path)?,
            };
            let (name, after) = (String::from_utf8_lossy(&source.name).into_owned(), others.len());
            archives.push(Archive { name, path, hash, after });
        }
        Ok(others)
    }

    /// The layer, and whether it was searched and holds no secret.
    fn write_items(
        &self,
        items: Items,
        stamps: Stamps,
        spool: &Spool,
        plan: &StepPlan,
    ) -> Result<(Layer, bool), StepError> {
        let mut builder = LayerBuilder::new(&self.store, self.written_with(stamps))?;
        self.search_in(&mut builder, plan);
        for item in items.into_each() {
            let stamps = if item.timeless { Stamps::Context } else { stamps };
            builder.set_times(self.written_with(stamps).times);
            self.cancel.check()?;
            match item.content {
                Content::Spooled { offset_bytes } => {
                    let Kind::File { size_bytes } = item.entry.kind else { continue };
                    builder.append_part(&item.entry, spool.part(offset_bytes, size_bytes), spool.path())?;
                }
                Content::Source(Source::File { path, .. }) => {
                    let source = Source::File { path, expected: item.digest };
                    builder.add(&Change { entry: item.entry, source })?;
                }
                Content::Source(source) => builder.add(&Change { entry: item.entry, source })?,
                Content::None | Content::Layer { .. } => builder.append(&item.entry, &mut io::empty())?,
            }
        }
        let is_clean = self.searched(&mut builder);
        Ok((builder.finish()?, is_clean))
    }

    /// The layer that a step of this key made before, when it can still be had, in the form that this build wants.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub(super) fn recorded(
        &self,
        step: StepId,
        key: Key,
        plan: &StepPlan,
    ) -> Result<Option<(BuiltLayer, LayerContent)>, StepError> {
        match self.records.layer(key) {
            Some(newest) => self.in_form(step, key, &newest, plan.leaving),
            None => Ok(None),
        }
    }

    /// The layer of a record in the form that this build wants, which is made of it where it is not there yet; none where
    /// the layer is gone, or was made by a sandbox that does not serve this one.
    ///
    /// # Errors
    /// When the store cannot be written; when the layer is to leave and holds a secret.
    pub(super) fn in_form(
        &self,
        step: StepId,
        key: Key,
        record: &LayerRecord,
        leaving: Leaving,
    ) -> Result<Option<(BuiltLayer, LayerContent)>, StepError> {
        let found = self.found_in_form(step, key, record)?;
        if let Some((layer, _)) = &found {
            self.search_earlier(layer, leaving)?;
        }
        Ok(found)
    }

    fn found_in_form(
        &self,
        step: StepId,
        key: Key,
        record: &LayerRecord,
    ) -> Result<Option<(BuiltLayer, LayerContent)>, StepError> {
        // What is exact serves any sandbox: then nobody need know which this machine has.
        let serves = record.fidelity == Fidelity::Exact
            || self.isolation.choice().rung.fidelity().is_some_and(|ours| record.fidelity.serves(ours));
        if !serves {
            return Ok(None);
        }
        let (compression, times) = self.form(record.stamps);
        if record.compression == compression && record.times == times {
            return Ok(self.stored(key, record));
        }
        let variant = self.records.variant(key, record, &compression, &times);
        if let Some(found) = variant.and_then(|variant| self.stored(key, &variant)) {
            return Ok(Some(found));
        }
        let Some(made) = self.as_wanted(step, record)? else { return Ok(None) };
        self.records.keep_variant(key, &made)?;
        Ok(self.stored(key, &made))
    }

    /// The layer of a record, when its blob is there, and with it what the blob does not tell.
    fn stored(&self, key: Key, record: &LayerRecord) -> Option<(BuiltLayer, LayerContent)> {
        let there = self.store.size(&record.digest).ok()? == Some(record.size_bytes)
            // Held from here on: a command that sees the blob's times takes what it finds made for newer than it is.
            && (record.has_real_times() || LayerIndex::is_of_step(&self.store, &record.diff_id));
        there.then(|| (self.built(key, record.clone()), record.content))
    }

    fn built(&self, key: Key, record: LayerRecord) -> BuiltLayer {
        BuiltLayer {
            diff_id: record.diff_id.clone(),
            digest: record.digest.clone(),
            size_bytes: record.size_bytes,
            media_type: record.media_type.clone(),
            origin: None,
            made_at: Some(self.told_time(record.made_at)),
            planned: Some(Arc::new(PlannedLayer { key, record, took: Vec::new() })),
        }
    }

    /// Records a finished layer under its step's key. Its blob is synced by then.
    pub(super) fn keep(
        &self,
        key: Key,
        layer: &Layer,
        stamps: Stamps,
        fixed: Vec<String>,
        on: Option<String>,
        fidelity: Fidelity,
    ) -> Result<(BuiltLayer, LayerContent), StepError> {
        let content = content_of(layer);
        // Where the blob has other times than a RUN sees, the index alone knows those.
        match self.written_with(stamps).times {
            Times::Real => layer.index.save_unsynced(&self.store, &layer.diff_id)?,
            Times::Clamp(_) | Times::Fixed(_) => layer.index.save(&self.store, &layer.diff_id)?,
        }
        let (compression, times) = self.form(stamps);
        let record = LayerRecord {
            diff_id: layer.diff_id.clone(),
            digest: layer.digest.clone(),
            size_bytes: layer.size_bytes,
            media_type: layer.media_type.clone(),
            compression,
            times,
            stamps,
            fixed,
            content,
            fidelity,
            made_at: self.options.made_at.seconds,
            on,
        };
        self.records.keep_layer(key, &record)?;
        Ok((self.built(key, record), content))
    }
}

/// What a finished layer holds.
pub(super) fn content_of(layer: &Layer) -> LayerContent {
    let mut hasher = LayerContentHasher::default();
    for entry in &layer.index.entries {
        hasher.entry(&entry.entry, entry.content);
    }
    hasher.finish()
}

/// `below` with one more layer.
pub(super) fn stacked(below: &RootState, (layer, content): (BuiltLayer, LayerContent)) -> RootState {
    let mut layers = below.layers.clone();
    layers.push(layer);
    RootState { layers, content: below.content.with(content) }
}

/// What a root file system says about its users.
pub(super) fn accounts(tree: &Tree) -> Accounts {
    Accounts { passwd: tree.passwd(), group: tree.group() }
}

/// Where the files of the step lie when they come from a stage or an image.
fn source_state(op: &CopyOp, states: &States) -> RootState {
    match op.from {
        CopyFrom::Root(root) => (*states.of(root)).clone(),
        _ => RootState::scratch(),
    }
}

/// The sources of a step, each with what is taken of it.
pub(super) fn filters(op: &CopyOp) -> Result<Vec<(&str, Filter)>, StepError> {
    let all = Filter::without(op.exclude.iter().map(String::as_str))?;
    let mut filters = Vec::new();
    for pattern in &op.sources {
        filters.push(match op.parents {
            true => {
                let (base, below) = split_at_pivot(pattern);
                (base, all.only(below)?)
            }
            false => (pattern.as_str(), all.clone()),
        });
    }
    Ok(filters)
}

fn inline(file: &InlineFile, made_at: crate::layer::FileTime) -> Selected {
    let entry = SelectedEntry {
        relative: Vec::new(),
        kind: Kind::File { size_bytes: file.content.len() as u64 },
        mode: file.mode,
        owner: (0, 0),
        modified: made_at,
        capability: None,
        content: Content::Source(Source::Bytes(file.content.clone())),
        digest: Some(ContentHash::of(&file.content)),
        same_file: None,
        is_way: false,
    };
    Selected { name: file.name.clone().into_bytes(), entries: vec![entry] }
}

//! No input is older than the cache mount that knew it with other content.
//!
//! Programs like make and cargo tell by times whether what they made is out of date. In a cache mount what they made
//! outlives the sources that it was made of: a `COPY` that is reverted, or a checkout with old times, would be older than
//! the outputs of other sources, and count as built. So each mount remembers which content each input file had, and with
//! which time it was shown. A file whose content is another, and that is not newer than the last use of the mount, is
//! shown with the time at which this run starts; and whoever has the same content again is shown with no earlier time than
//! before, as its outputs may not have been made when it was seen first. A link that leads elsewhere than before has what it
//! leads to shown like other content.

use std::collections::{HashMap, HashSet};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use super::super::StepError;
use super::content::{ContextTree, RootTree};
use super::cover::{Cover, find_below, open_all};
use crate::blob::ContentHash;
use crate::cache_mount::{Fingerprint, HeldMount, LastUse, Memory, Moment, Seen, Turn, is_of_system};
use crate::graph::{Mount, RunOp};
use crate::layer::{Kind, LayerPath, Tree};
use crate::sandbox::{MountSource, RootMount, RunMount};
use crate::snapshot::Workspace;

/// How long a clock that ticks is waited for.
const TICK: Duration = Duration::from_millis(1);
const TICKS_MAX: u32 = 100;

/// Links that are followed from one to the next, as the kernel does.
const LINKS_MAX: usize = 40;

/// Where an input is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// In the root.
    Root,
    /// In the mount of this number.
    Mount(usize),
}

/// One file that the command sees.
#[derive(Clone, Debug)]
struct Input {
    /// Where the command sees it, without the leading `/`.
    path: Vec<u8>,
    place: Place,
    /// Where it is in the tree of that place.
    inside: PathBuf,
    content: Fingerprint,
    /// Its time.
    own: Moment,
}

/// The files that a command sees, as far as layers and the context bring them.
#[derive(Debug, Default)]
pub(super) struct Inputs {
    files: Vec<Input>,
    /// What the links say, by where the command sees them.
    links: HashMap<Vec<u8>, Vec<u8>>,
    /// The targets of the mounts by their number.
    targets: Vec<String>,
    /// What tells the command from others.
    by: u64,
}

impl Inputs {
    /// Those in the root, without what the mounts cover.
    pub(super) fn of_root(tree: &Tree, op: &RunOp) -> Self {
        let targets: Vec<String> = op.mounts.iter().map(|mount| mount.target.clone()).collect();
        let covered: Vec<LayerPath> = op
            .mounts
            .iter()
            .filter(|mount| !mount.target.is_empty())
            .filter_map(|mount| LayerPath::clean(mount.target.as_bytes()))
            .collect();
        let mut inputs = Self { targets, by: told_apart(op), ..Self::default() };
        for (path, node) in tree.iter() {
            if covered.iter().any(|target| path.starts_with(target)) {
                continue;
            }
            inputs.add(path, node, Place::Root, path.as_bytes().to_vec());
        }
        inputs
    }

    /// Those of a bind of the context.
    pub(super) fn add_items(&mut self, number: usize, mount: &Mount, context: &ContextTree) {
        for item in context.items.iter() {
            let path = if context.is_folder { item.entry.path.clone() } else { LayerPath::root() };
            if let Kind::Symlink(target) = &item.entry.kind {
                self.link(shown_at(mount, &path), target);
            }
            let Some(content) = item.digest else { continue };
            let modified = item.entry.modified;
            self.files.push(Input {
                path: shown_at(mount, &path),
                place: Place::Mount(number),
                inside: item.entry.path.as_path().to_owned(),
                content: Fingerprint::of(content),
                own: Moment { seconds: modified.seconds, nanoseconds: modified.nanoseconds },
            });
        }
    }

    /// Those of a bind of a stage or an image.
    pub(super) fn add_root(&mut self, number: usize, mount: &Mount, root: &RootTree) {
        for (path, node) in root.tree.iter() {
            if !path.starts_with(&root.path) {
                continue;
            }
            let below = &path.as_bytes()[root.path.as_bytes().len()..];
            let below = LayerPath::clean(below).unwrap_or_default();
            self.add(path, node, Place::Mount(number), shown_at(mount, &below));
        }
    }

    fn add(&mut self, inside: &LayerPath, node: &crate::layer::Node, place: Place, path: Vec<u8>) {
        if let Kind::Symlink(target) = &node.entry.kind {
            self.link(path, target);
            return;
        }
        let (Kind::File { .. }, Some(content)) = (&node.entry.kind, node.content) else { return };
        let modified = node.entry.modified;
        self.files.push(Input {
            path,
            place,
            inside: inside.as_path().to_owned(),
            content: Fingerprint::of(content),
            own: Moment { seconds: modified.seconds, nanoseconds: modified.nanoseconds },
        });
    }

    /// `bin` is a folder of one base and a link of the next, and all below it would count as led anew.
    fn link(&mut self, path: Vec<u8>, target: &[u8]) {
        if !is_of_system(&path) {
            self.links.insert(path, target.to_vec());
        }
    }

    /// Where those links lead that a used mount does not know to lead there.
    fn led_anew(&self, memory: &Memory) -> HashSet<Vec<u8>> {
        if memory.last_use == LastUse::Never {
            return HashSet::new();
        }
        let anew = |(path, target): &(&Vec<u8>, &Vec<u8>)| {
            memory.seen.get(*path).is_none_or(|seen| seen.content != of_link(target))
        };
        self.links.iter().filter(anew).filter_map(|(path, _)| self.resolved(path)).collect()
    }

    /// What a path is once all links in it are followed.
    fn resolved(&self, path: &[u8]) -> Option<Vec<u8>> {
        let mut path = path.to_vec();
        for _ in 0..LINKS_MAX {
            let Some((end, target)) = ends(&path).find_map(|end| Some((end, self.links.get(&path[..end])?))) else {
                return Some(path);
            };
            let above = path[..end].iter().rposition(|byte| *byte == b'/').map_or(&[][..], |slash| &path[..slash]);
            let above = if target.starts_with(b"/") { &[] } else { above };
            path = LayerPath::clean(&[above, b"/", target, &path[end..]].concat())?.as_bytes().to_vec();
        }
        None
    }
}

/// Where the names in a path end.
fn ends(path: &[u8]) -> impl Iterator<Item = usize> {
    (0..=path.len()).filter(|end| matches!(path.get(*end), None | Some(b'/')))
}

/// What stands for the content of a link: no file has it.
fn of_link(target: &[u8]) -> Fingerprint {
    Fingerprint::of(ContentHash::of(&[b"a link to ", target].concat()))
}

/// One of the mounts that agree on times.
struct Known<'a> {
    memory: &'a Memory,
    /// None when it has not been used.
    last_use: Option<Moment>,
    /// Files and folders that a link leads to which led elsewhere, or was not there.
    led_anew: HashSet<Vec<u8>>,
}

impl Known<'_> {
    /// What it knows of a file that has the content that it knows.
    fn same(&self, input: &Input) -> Option<&Seen> {
        let seen = self.memory.seen.get(&input.path).filter(|seen| seen.content == input.content)?;
        let is_led_to = || ends(&input.path).any(|end| self.led_anew.contains(&input.path[..end]));
        (self.led_anew.is_empty() || !is_led_to()).then_some(seen)
    }

    /// Whether it surely asks for nothing: it has not been used, or knows the file as it is.
    fn is_settled(&self, input: &Input, own: Moment) -> bool {
        self.last_use.is_none() || self.same(input).is_some_and(|seen| seen.shown <= own)
    }

    /// The earliest time that it lets the file be shown with.
    fn wanted(&self, input: &Input, own: Moment, start: Moment) -> Moment {
        let Some(last_use) = self.last_use else { return own };
        match self.same(input) {
            // Layers may be unpacked with times of whole seconds, which is no change.
            Some(seen) if seen.shown.seconds == own.seconds => own,
            Some(seen) => seen.shown,
            None if own > last_use => own,
            None => start,
        }
    }
}

fn shown_at(mount: &Mount, below: &LayerPath) -> Vec<u8> {
    let target = mount.target.trim_start_matches('/').as_bytes();
    if below.is_root() { target.to_vec() } else { [target, b"/", below.as_bytes()].concat() }
}

/// Shows the inputs with times that all of these cache mounts agree to, and lets them remember what is seen.
pub(super) fn show(
    inputs: Inputs,
    held: &mut [HeldMount],
    workspace: &mut Workspace,
    mounts: &mut [RunMount],
) -> Result<(), StepError> {
    let turns = held.iter().map(HeldMount::turn).collect::<Result<Vec<Turn>, _>>()?;
    let memories: Vec<&Memory> = turns.iter().map(|turn| &turn.memory).collect();
    let (start, last_uses) = start(&memories);
    let known: Vec<Known<'_>> = memories
        .iter()
        .zip(last_uses)
        .map(|(memory, last_use)| Known { memory, last_use, led_anew: inputs.led_anew(memory) })
        .collect();
    let lowers = Lowers::of(&inputs, workspace, mounts);
    let mut shown_at: Vec<Moment> = Vec::with_capacity(inputs.files.len());
    let mut covered: Vec<(&Input, Moment)> = Vec::new();
    for input in &inputs.files {
        let mut own = input.own;
        if known.iter().any(|known| !known.is_settled(input, own))
            && let Some(metadata) = find_below(lowers.of_place(input.place), &input.inside)
        {
            // What counts is what the command would see.
            own = metadata.modified;
        }
        let wanted = known.iter().map(|known| known.wanted(input, own, start));
        let shown = wanted.max().unwrap_or(own).max(own);
        if shown > own {
            covered.push((input, shown));
        }
        shown_at.push(shown);
    }
    let mut cover = None;
    if !covered.is_empty()
        && let Some(first) = held.first()
    {
        let (name, before) = (format!("cover-{}", memories[0].generation + 1), memories[0].cover.as_deref());
        let folder = first.place().join(&name);
        let before = before.map(|before| first.place().join(before));
        for place in places(&covered) {
            let within = match place {
                Place::Root => PathBuf::from("root"),
                Place::Mount(number) => PathBuf::from(number.to_string()),
            };
            let before = before.as_ref().map(|before| before.join(&within));
            let mut cover = Cover::create(folder.join(&within), before, lowers.of_place(place))?;
            for (input, shown) in covered.iter().filter(|(input, _)| input.place == place) {
                // Of equal content and time, what was made before is what would be made now.
                let known = memories[0].seen.get(&input.path);
                let known = known.is_some_and(|seen| (seen.content, seen.shown) == (input.content, *shown));
                cover.add(&input.inside, *shown, known)?;
            }
            let cover = cover.finish()?;
            match place {
                Place::Root => {
                    let failed = |source| StepError::Temporary { path: cover.clone(), source };
                    workspace.cover(cover.clone()).map_err(failed)?;
                }
                Place::Mount(number) => cover_mount(mounts, &inputs.targets[number], cover),
            }
        }
        cover = Some(name);
    }
    let by = inputs.by;
    let links = inputs.links.iter().map(|(path, target)| (path.clone(), of_link(target)));
    let links: Vec<_> = links.map(|(path, content)| (path, Seen { content, shown: Moment::EARLIEST, by })).collect();
    let all_seen: Vec<Vec<(Vec<u8>, Seen)>> = known
        .iter()
        .map(|known| {
            let files = inputs.files.iter().zip(&shown_at).map(|(input, shown)| {
                let first =
                    known.last_use.is_none() || known.same(input).is_some_and(|seen| seen.shown == Moment::EARLIEST);
                let shown = if first { Moment::EARLIEST } else { *shown };
                (input.path.clone(), Seen { content: input.content, shown, by })
            });
            files.chain(links.iter().cloned()).collect()
        })
        .collect();
    for (number, ((held, turn), seen)) in held.iter_mut().zip(turns).zip(all_seen).enumerate() {
        let cover = cover.clone().filter(|_| number == 0);
        held.begin(turn, seen, cover)?;
    }
    Ok(())
}

/// A part of a hash of what is run, and where.
fn told_apart(op: &RunOp) -> u64 {
    let words = op.argv.iter().chain([&op.cwd]).flat_map(|word| word.bytes().chain([0]));
    let hash = ContentHash::of(&words.collect::<Vec<u8>>());
    hash.as_bytes().iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// When this run starts, as files are given times, and when each mount was used last: none when it never was.
///
/// Files that the command writes must not be older than that, and what is in the mounts must not be newer; the clock of
/// file times ticks in milliseconds.
fn start(memories: &[&Memory]) -> (Moment, Vec<Option<Moment>>) {
    let used_now = now();
    let last_uses: Vec<Option<Moment>> = memories
        .iter()
        .map(|memory| match memory.last_use {
            LastUse::Never => None,
            LastUse::At(moment) => Some(moment),
            LastUse::Running => Some(used_now),
        })
        .collect();
    let Some(last) = last_uses.iter().flatten().max().copied() else { return (coarse(), last_uses) };
    for _ in 0..TICKS_MAX {
        let start = coarse();
        if start > last {
            return (start, last_uses);
        }
        std::thread::sleep(TICK);
    }
    // A mount from a machine whose clock is ahead.
    (Moment { seconds: last.seconds + 1, ..last }, last_uses)
}

/// The time.
pub(super) fn now() -> Moment {
    read(ClockId::Realtime)
}

/// The time as the kernel notes it on files.
fn coarse() -> Moment {
    read(ClockId::RealtimeCoarse)
}

fn read(clock: ClockId) -> Moment {
    let time = clock_gettime(clock);
    Moment { seconds: time.tv_sec, nanoseconds: time.tv_nsec.try_into().unwrap_or(0) }
}

/// Where the files of each place are on this machine: folders, topmost first.
struct Lowers {
    root: Vec<OwnedFd>,
    mounts: Vec<Vec<OwnedFd>>,
}

impl Lowers {
    fn of(inputs: &Inputs, workspace: &Workspace, mounts: &[RunMount]) -> Self {
        let of_target = |target: &String| {
            let mount = mounts.iter().find(|mount| mount.target == *target);
            match mount.map(|mount| &mount.source) {
                Some(MountSource::Tree { root: RootMount::Overlay { lowers, .. }, .. }) => open_all(lowers),
                _ => Vec::new(),
            }
        };
        Self { root: open_all(workspace.lowers()), mounts: inputs.targets.iter().map(of_target).collect() }
    }

    fn of_place(&self, place: Place) -> &[OwnedFd] {
        match place {
            Place::Root => &self.root,
            Place::Mount(number) => self.mounts.get(number).map_or(&[], Vec::as_slice),
        }
    }
}

fn places(covered: &[(&Input, Moment)]) -> Vec<Place> {
    let mut places = Vec::new();
    for (input, _) in covered {
        if !places.contains(&input.place) {
            places.push(input.place);
        }
    }
    places
}

fn cover_mount(mounts: &mut [RunMount], target: &str, cover: PathBuf) {
    let mount = mounts.iter_mut().find(|mount| mount.target == target);
    if let Some(RunMount { source: MountSource::Tree { root: RootMount::Overlay { lowers, .. }, .. }, .. }) = mount {
        lowers.insert(0, cover);
    }
}

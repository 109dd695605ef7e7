//! The ladder: the ways to run a command, best first, and which of them this machine allows.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use serde::{Deserialize, Serialize};

use super::trial::{self, Refusal};

/// A way to run commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Rung {
    /// In namespaces of their own, made by root.
    #[serde(rename = "r1")]
    Root,
    /// The same in a user namespace with many ids: an ordinary user with subordinate ids, or root without rights to mount.
    #[serde(rename = "r2")]
    Rootless,
    /// In a user namespace with one id; owners are recorded.
    #[serde(rename = "r3")]
    SingleId,
    /// Root with nothing but `chroot`.
    #[serde(rename = "r4")]
    Chroot,
    /// Not at all: everything else still builds.
    #[serde(rename = "r5")]
    Nothing,
    /// An ordinary user with nothing at all: system calls are translated on the way; owners are recorded.
    #[serde(rename = "r6")]
    Traced,
}

impl Rung {
    /// All, best first.
    pub const LADDER: [Self; 6] =
        [Self::Root, Self::Rootless, Self::SingleId, Self::Chroot, Self::Traced, Self::Nothing];

    /// Its short name: `r1` to `r6`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Root => "r1",
            Self::Rootless => "r2",
            Self::SingleId => "r3",
            Self::Chroot => "r4",
            Self::Nothing => "r5",
            Self::Traced => "r6",
        }
    }

    /// In a few words.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Self::Root => "root in its own namespaces",
            Self::Rootless => "a user namespace with many ids",
            Self::SingleId => "a user namespace with one id, owners recorded",
            Self::Chroot => "root in a chroot",
            Self::Nothing => "no RUN",
            Self::Traced => "a traced process, owners recorded",
        }
    }

    /// How exact layers are that commands on this rung make; none where no command runs.
    #[must_use]
    pub fn fidelity(self) -> Option<Fidelity> {
        match self {
            Self::Root | Self::Rootless => Some(Fidelity::Exact),
            Self::SingleId | Self::Traced => Some(Fidelity::Recorded),
            Self::Chroot => Some(Fidelity::Chroot),
            Self::Nothing => None,
        }
    }
}

impl fmt::Display for Rung {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How exact the layers of a sandbox are. Exact serves everyone, the others only their own kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Fidelity {
    /// Owners, modes and attributes as a real container would have left them.
    Exact,
    /// Owners are those that commands asked for, not ones that they had.
    Recorded,
    /// Owners are right, but commands saw no `/proc` and none of what else must be mounted.
    Chroot,
}

impl Fidelity {
    /// Whether what such a sandbox made may stand for what a sandbox of `wanted` would make.
    #[must_use]
    pub fn serves(self, wanted: Self) -> bool {
        self == Self::Exact || self == wanted
    }

    /// Its name in words.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Exact => "exact",
            Self::Recorded => "recorded",
            Self::Chroot => "chroot",
        }
    }
}

impl fmt::Display for Fidelity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Which rungs the user wants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wish {
    /// This one and no other.
    pub only: Option<Rung>,
    /// None below this one.
    pub least: Option<Rung>,
}

impl Wish {
    /// Whether the one that is asked for is below the least.
    #[must_use]
    pub fn contradicts_itself(self) -> bool {
        self.only.is_some_and(|only| Self { only: None, ..self }.against(only).is_some())
    }

    /// Whether commands may run on a rung.
    #[must_use]
    pub fn allows(self, rung: Rung) -> bool {
        self.against(rung).is_none()
    }

    /// Why a rung is not wanted.
    pub(super) fn against(self, rung: Rung) -> Option<Refusal> {
        let place = |rung: Rung| Rung::LADDER.iter().position(|other| *other == rung);
        let (reason, fix) = match (self.only, self.least) {
            (Some(only), _) if only != rung => (format!("`--isolation {only}` was asked for"), WITHOUT_ONLY),
            (_, Some(least)) if place(rung) > place(least) && rung != Rung::Nothing => {
                (format!("`--isolation-min {least}` forbids it"), WITHOUT_LEAST)
            }
            _ => return None,
        };
        Some(Refusal { reason, fix: fix.to_owned() })
    }
}

/// What `--isolation` and `--isolation-min` take.
impl FromStr for Rung {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let names = || Self::LADDER.map(Self::name).to_vec();
        let found = Self::LADDER.into_iter().find(|rung| rung.name().eq_ignore_ascii_case(text));
        found.ok_or_else(|| {
            let mut names = names();
            names.sort_unstable();
            format!("expected `auto` or one of {}, found `{text}`", names.join(", "))
        })
    }
}

/// A rung that is not taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Refused {
    /// Which.
    pub rung: Rung,
    /// What stands in the way.
    pub reason: String,
    /// The shortest way around it.
    pub fix: String,
}

impl Refused {
    /// Whether only the user's own wish stands in the way.
    #[must_use]
    pub fn is_wish(&self) -> bool {
        self.fix == WITHOUT_ONLY || self.fix == WITHOUT_LEAST
    }
}

/// The ways around a wish.
const WITHOUT_ONLY: &str = "leave `--isolation` out";
const WITHOUT_LEAST: &str = "leave `--isolation-min` out";

/// The rung that commands run on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// It.
    pub rung: Rung,
    /// Those above it, best first.
    pub refused: Vec<Refused>,
}

/// How commands run here: found out by trying, when it must be known.
#[derive(Clone, Debug, Default)]
pub struct Isolation {
    wish: Wish,
    /// Where roots are, for rungs whose trial needs a folder there.
    place: Option<PathBuf>,
    found: Arc<OnceLock<Choice>>,
    told: Arc<Mutex<BTreeSet<&'static str>>>,
}

impl Isolation {
    /// As the user wants it.
    #[must_use]
    pub fn new(wish: Wish) -> Self {
        Self { wish, place: None, found: Arc::default(), told: Arc::default() }
    }

    /// The same for roots in that folder: what works on one file system need not on another.
    #[must_use]
    pub fn at(self, place: &Path) -> Self {
        Self { place: Some(place.to_owned()), ..self }
    }

    /// Whether nobody asked this of `what` before: to tell things once in a build.
    pub fn is_told_first(&self, what: &'static str) -> bool {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).insert(what)
    }

    /// The best rung that works.
    pub fn choice(&self) -> &Choice {
        self.found.get_or_init(|| choose(self.wish, self.place.as_deref()))
    }
}

fn choose(wish: Wish, place: Option<&Path>) -> Choice {
    let mut refused = Vec::new();
    for rung in Rung::LADDER {
        let tried = match wish.against(rung) {
            Some(refusal) => Err(refusal),
            None => trial::of(rung, place),
        };
        match tried {
            Ok(()) => return Choice { rung, refused },
            Err(Refusal { reason, fix }) => refused.push(Refused { rung, reason, fix }),
        }
    }
    Choice { rung: Rung::Nothing, refused }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wish_leaves_what_it_names() {
        let left = |wish: Wish| {
            let names = Rung::LADDER.into_iter().filter(|rung| wish.against(*rung).is_none()).map(Rung::name);
            names.collect::<Vec<_>>()
        };
        assert_eq!(left(Wish::default()), ["r1", "r2", "r3", "r4", "r6", "r5"]);
        assert_eq!(left(Wish { only: Some(Rung::Chroot), least: None }), ["r4"]);
        assert_eq!(left(Wish { only: None, least: Some(Rung::Rootless) }), ["r1", "r2", "r5"]);
        assert!(Wish { only: Some(Rung::SingleId), least: Some(Rung::Rootless) }.contradicts_itself());
        assert!(!Wish { only: Some(Rung::Root), least: Some(Rung::Rootless) }.contradicts_itself());
        assert!("r7".parse::<Rung>().is_err_and(|error| error.contains("r1, r2, r3, r4, r5, r6")));
    }
}

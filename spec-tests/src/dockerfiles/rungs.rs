//! What of the corpus comes out otherwise on a rung, and why: `rungs-listed.txt`.

use std::collections::BTreeSet;
use std::fs;
use std::sync::Mutex;

use crate::program;

/// A line of the list.
#[derive(Debug, Clone)]
pub struct Exception {
    rungs: Vec<String>,
    case: String,
    /// Text that the message or the difference holds.
    pub holds: String,
    /// Why.
    pub reason: String,
}

/// The whole list.
#[derive(Debug)]
pub struct Exceptions {
    all: Vec<Exception>,
    used: Mutex<BTreeSet<usize>>,
}

impl Exceptions {
    /// As the file has it: `RUNG,RUNG | CASE | TEXT | REASON`; a case may end in `*`.
    ///
    /// # Errors
    /// When a line cannot be understood.
    pub fn load() -> Result<Self, String> {
        let path = program::repository().join("spec-tests/rungs-listed.txt");
        let text = fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        let all = lines.map(|line| Exception::read(line).ok_or_else(|| format!("expected four fields: {line}")));
        Ok(Self { all: all.collect::<Result<_, _>>()?, used: Mutex::default() })
    }

    /// The one that explains what was found, if one does.
    ///
    /// # Panics
    /// When another thread panicked in here.
    pub fn explain(&self, rung: &str, case: &str, found: &str) -> Option<&Exception> {
        let place = self.all.iter().position(|entry| entry.is_about(rung, case) && found.contains(&entry.holds))?;
        self.used.lock().expect("nobody panics in here").insert(place);
        self.all.get(place)
    }

    /// Those about a rung and any of these cases that explained nothing, without what is said to come.
    ///
    /// # Panics
    /// When another thread panicked in here.
    #[must_use]
    pub fn unused(&self, rungs: &[&str], cases: &[String]) -> Vec<String> {
        let used = self.used.lock().expect("nobody panics in here");
        let about = |entry: &Exception| {
            !entry.reason.starts_with("not there yet")
                && rungs.iter().any(|rung| cases.iter().any(|case| entry.is_about(rung, case)))
        };
        let unused = self.all.iter().enumerate().filter(|(place, entry)| !used.contains(place) && about(entry));
        unused.map(|(_, entry)| format!("{} | {} | {}", entry.rungs.join(","), entry.case, entry.holds)).collect()
    }
}

impl Exception {
    fn read(line: &str) -> Option<Self> {
        let fields: Vec<&str> = line.split(" | ").map(str::trim).collect();
        let [rungs, case, holds, reason] = fields[..] else { return None };
        let rungs = rungs.split(',').map(str::to_owned).collect();
        (!reason.is_empty()).then(|| Self {
            rungs,
            case: case.to_owned(),
            holds: holds.to_owned(),
            reason: reason.to_owned(),
        })
    }

    fn is_about(&self, rung: &str, case: &str) -> bool {
        let is_case = match self.case.strip_suffix('*') {
            Some(begin) => case.starts_with(begin),
            None => case == self.case,
        };
        is_case && self.rungs.iter().any(|own| own == rung)
    }
}

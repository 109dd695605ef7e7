//! A case as its folder says, and the checklist.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use crate::program;

/// One case.
#[derive(Debug, Clone, Default)]
pub struct Case {
    /// The folder's name.
    pub name: String,
    /// The folder.
    pub folder: PathBuf,
    /// Arguments of `build`, placeholders still in them.
    pub flags: Vec<String>,
    /// Ids of the checklist that it shows.
    pub shows: Vec<String>,
    /// What stands in the place of the context on the command line.
    pub context: Option<String>,
    /// A file of the case that is given as standard input.
    pub stdin: Option<String>,
    /// Variables of the environment.
    pub variables: Vec<(String, String)>,
    /// What it needs besides a base image.
    pub needs: Vec<String>,
    /// Why `BuildKit` is not asked.
    pub fluyt_only: Option<String>,
}

impl Case {
    /// All cases, by name; or those whose names `chosen` holds.
    ///
    /// # Errors
    /// What is wrong with the folders: every problem, one a line.
    pub fn all(chosen: &[String]) -> Result<Vec<Self>, String> {
        let folder = program::repository().join("spec-tests/dockerfiles");
        let entries = fs::read_dir(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        let mut folders: Vec<PathBuf> =
            entries.filter_map(|entry| Some(entry.ok()?.path())).filter(|path| path.is_dir()).collect();
        folders.sort();
        let (mut cases, mut problems) = (Vec::new(), Vec::new());
        for folder in folders {
            match Self::load(&folder) {
                Ok(case) => cases.push(case),
                Err(problem) => problems.push(format!("{}: {problem}", folder.display())),
            }
        }
        if !problems.is_empty() {
            return Err(problems.join("\n"));
        }
        if !chosen.is_empty() {
            cases.retain(|case| chosen.iter().any(|part| case.name.contains(part.as_str())));
        }
        Ok(cases)
    }

    /// The case in `folder`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn load(folder: &Path) -> Result<Self, String> {
        const KNOWN: [&str; 6] =
            ["flags", "context", "context.sh", "expected.txt", "expected-error.txt", "Dockerfile.dockerignore"];
        let name = folder.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let mut case = Self { name, folder: folder.to_owned(), ..Self::default() };
        let flags = fs::read_to_string(folder.join("flags")).map_err(|error| format!("flags: {error}"))?;
        for line in flags.lines().filter(|line| !line.is_empty()) {
            match line.strip_prefix('#') {
                Some(comment) => case.remark(comment.trim())?,
                None => case.flags.push(line.to_owned()),
            }
        }
        if case.shows.is_empty() {
            return Err("flags has no line `# shows: ID ...`".to_owned());
        }
        if folder.join("expected.txt").is_file() && folder.join("expected-error.txt").is_file() {
            return Err("it has both expected.txt and expected-error.txt".to_owned());
        }
        // What nothing names is most likely misspelt, and would be silently left out.
        let named = format!("{flags}{}", case.stdin.clone().unwrap_or_default());
        for entry in fs::read_dir(folder).map_err(|error| error.to_string())?.flatten() {
            let file = entry.file_name().to_string_lossy().into_owned();
            if !KNOWN.contains(&file.as_str()) && !file.starts_with("Dockerfile") && !named.contains(&file) {
                return Err(format!("nothing names the file `{file}`"));
            }
        }
        Ok(case)
    }

    fn remark(&mut self, text: &str) -> Result<(), String> {
        let Some((key, value)) = text.split_once(':') else { return Ok(()) };
        let value = value.trim();
        match key.trim() {
            "shows" => self.shows.extend(value.split_whitespace().map(str::to_owned)),
            "context" => self.context = Some(value.to_owned()),
            "stdin" => self.stdin = Some(value.to_owned()),
            "needs" => self.needs.extend(value.split_whitespace().map(str::to_owned)),
            "fluyt-only" => self.fluyt_only = Some(value.to_owned()),
            "env" => {
                let (name, value) = value.split_once('=').ok_or_else(|| format!("`# env: {value}` has no `=`"))?;
                self.variables.push((name.to_owned(), value.to_owned()));
            }
            // Any other comment.
            _ => {}
        }
        Ok(())
    }

    /// Whether it asks for a report rather than for an image.
    #[must_use]
    pub fn is_report(&self) -> bool {
        self.flags.iter().any(|flag| flag == "--check" || flag.starts_with("--call"))
    }

    /// Whether it says itself where the result goes.
    #[must_use]
    pub fn has_output(&self) -> bool {
        self.flags.iter().any(|flag| flag.starts_with("-o") || flag.starts_with("--output"))
    }

    /// A file of expectations, if it is there.
    #[must_use]
    pub fn expectation(&self, name: &str) -> Option<String> {
        fs::read_to_string(self.folder.join(name)).ok()
    }
}

/// `dockerfiles/checklist.txt`: every claim about the language, with its id.
#[derive(Debug, Clone, Default)]
pub struct Checklist {
    /// Summary by id.
    pub claims: BTreeMap<String, String>,
    problems: Vec<String>,
}

impl Checklist {
    /// As the file has it.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn load() -> Result<Self, String> {
        let path = program::repository().join("spec-tests/dockerfiles/checklist.txt");
        let text = fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        let mut list = Self::default();
        for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let (id, summary) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
            if summary.trim().is_empty() {
                list.problems.push(format!("`{id}` has no summary"));
            }
            if list.claims.insert(id.to_owned(), summary.trim().to_owned()).is_some() {
                list.problems.push(format!("`{id}` stands twice"));
            }
        }
        Ok(list)
    }

    /// What does not fit together: a case that shows what the list does not have, and a claim that neither a case shows nor
    /// a test elsewhere, which the summary names in brackets (`[test: function_name]`).
    #[must_use]
    pub fn problems(&self, cases: &[Case], has_test: impl Fn(&str) -> bool) -> Vec<String> {
        let mut problems = self.problems.clone();
        let mut shown = BTreeSet::new();
        for case in cases {
            for id in &case.shows {
                if !self.claims.contains_key(id) {
                    problems.push(format!("case {} shows `{id}`, which the checklist does not have", case.name));
                }
                shown.insert(id.as_str());
            }
        }
        for (id, summary) in &self.claims {
            let test = summary.split_once("[test: ").and_then(|(_, rest)| rest.split_once(']')).map(|(name, _)| name);
            match test {
                Some(name) if !has_test(name) => {
                    problems.push(format!("`{id}` names the test {name}, which is nowhere"));
                }
                None if !shown.contains(id.as_str()) => problems.push(format!("no case shows `{id}`: {summary}")),
                _ => {}
            }
        }
        problems
    }
}

//! Modes and times that do not depend on how the context was checked out: what a build with the same bytes twice takes.
//!
//! Git keeps of a file's mode whether it can be executed, and nothing of a folder's; a check-out gives the rest by the user's
//! umask. So files that git tracks get git's modes, folders with such files 0755, and all else loses what umasks take most
//! often: write for group and others. What git tracks is asked of the git program, as its index has several forms.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::process::{Command, Stdio};

/// What the file system says of umasks rather than of content.
const WRITE_OF_OTHERS: u32 = 0o022;

/// How git calls the kind of a submodule.
const SUBMODULE: &[u8] = b"160000";

/// Modes for the entries of one context.
#[derive(Clone, Debug, Default)]
pub struct Modes {
    /// Tracked files, by path in the context, with whether they can be executed.
    files: HashMap<Vec<u8>, bool>,
    /// Folders that hold tracked files, and submodules, which are empty where they are not checked out.
    folders: HashSet<Vec<u8>>,
    /// When the commit that is checked out was made, in seconds since 1970.
    committed_at: Option<i64>,
}

/// What can be had of git.
#[derive(Debug)]
pub enum Git {
    /// The context is no part of a check-out.
    Absent,
    /// It is, and this is known of it.
    Known(Modes),
    /// It is, and git could not be asked, for this reason.
    Silent(String),
}

impl Modes {
    /// Asks git about a context.
    #[must_use]
    pub fn ask(context: &Path) -> Git {
        let Ok(context) = context.canonicalize() else { return Git::Absent };
        if !context.ancestors().any(|folder| folder.join(".git").exists()) {
            return Git::Absent;
        }
        // `./` keeps to the context and makes the paths relative to it.
        let list = |how: &[&str]| git(&context, &[&["ls-files", "--stage", "-z"], how, &["--", "./"]].concat());
        let mut listed = match list(&[]) {
            Ok(listed) => listed,
            Err(reason) => return Git::Silent(reason),
        };
        if listed.split(|byte| *byte == 0).any(|row| row.starts_with(SUBMODULE)) {
            // Beside the first list: this one leaves out those that are not checked out. Only newer gits make it.
            listed.extend(list(&["--recurse-submodules"]).unwrap_or_default());
        }
        let mut modes = Self::parse(&listed);
        // A repository without a commit has tracked files too.
        modes.committed_at = git(&context, &["log", "-1", "--no-show-signature", "--format=%ct", "HEAD"])
            .ok()
            .and_then(|text| String::from_utf8_lossy(&text).trim().parse().ok());
        Git::Known(modes)
    }

    /// Reads what `git ls-files --stage -z` prints: `100644 <hash> <stage>TAB<path>NUL`.
    fn parse(listed: &[u8]) -> Self {
        let mut modes = Self::default();
        for row in listed.split(|byte| *byte == 0) {
            let Some(tab) = row.iter().position(|byte| *byte == b'\t') else { continue };
            let (about, path) = (&row[..tab], &row[tab + 1..]);
            match about.get(..6) {
                Some(b"100755") => modes.files.insert(path.to_vec(), true).is_some(),
                Some(b"100644") => modes.files.insert(path.to_vec(), false).is_some(),
                Some(SUBMODULE) => modes.folders.insert(path.to_vec()),
                // Links have no modes.
                _ => continue,
            };
            let mut folder = path;
            while let Some(end) = folder.iter().rposition(|byte| *byte == b'/') {
                folder = &folder[..end];
                if !modes.folders.insert(folder.to_vec()) {
                    break;
                }
            }
        }
        modes
    }

    /// Those of a copy that has git's modes already, of a commit of that time.
    #[must_use]
    pub fn committed(committed_at: Option<i64>) -> Self {
        Self { committed_at, ..Self::default() }
    }

    /// When the commit that is checked out was made, in seconds since 1970.
    #[must_use]
    pub fn committed_at(&self) -> Option<i64> {
        self.committed_at
    }

    /// The mode that an entry gets: `path` is relative to the context.
    pub(super) fn of(&self, path: &[u8], mode: u32, is_folder: bool) -> u32 {
        match (is_folder, self.files.get(path)) {
            (false, Some(true)) => 0o755,
            (false, Some(false)) => 0o644,
            // What git writes at the top of a submodule.
            (false, None) if path.strip_suffix(b"/.git").is_some_and(|top| self.folders.contains(top)) => 0o644,
            // The context's own folder is there on every machine that has the files.
            (true, _) if self.folders.contains(path) || (path.is_empty() && !self.files.is_empty()) => 0o755,
            _ => mode & !WRITE_OF_OTHERS,
        }
    }
}

/// Runs git without anything that a repository's own settings could make it run, and without writing to it.
fn git(context: &Path, arguments: &[&str]) -> Result<Vec<u8>, String> {
    let mut command = Command::new("git");
    // Whoever may build here may read here; that a check-out is another user's is no reason to refuse.
    command.args(["-c", "safe.directory=*", "-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null"]);
    command.arg("-C").arg(context).args(arguments);
    command.env("GIT_OPTIONAL_LOCKS", "0").env("LC_ALL", "C");
    for name in ["GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"] {
        command.env_remove(name);
    }
    let output = command.stdin(Stdio::null()).output().map_err(|error| format!("git cannot be run: {error}"))?;
    match output.status.success() {
        true => Ok(output.stdout),
        false => {
            let said = String::from_utf8_lossy(&output.stderr);
            Err(said.lines().next().unwrap_or("git failed and said nothing").to_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tracked_files_have_gits_modes_and_others_lose_what_umasks_take() {
        let rows =
            ["100644 aa 0\ta", "100755 bb 0\tsrc/deep/run.sh", "120000 cc 0\tlink", "160000 dd 0\tsub", "rubbish"];
        let modes = Modes::parse(rows.join("\0").as_bytes());
        for (path, mode, is_folder, expected) in [
            ("a", 0o600, false, 0o644),
            ("a", 0o777, false, 0o644),
            ("src/deep/run.sh", 0o700, false, 0o755),
            ("src", 0o700, true, 0o755),
            ("sub", 0o700, true, 0o755),
            ("sub/.git", 0o600, false, 0o644),
            ("untracked/.git", 0o600, false, 0o600),
            ("src/deep", 0o775, true, 0o755),
            ("", 0o700, true, 0o755),
            ("untracked", 0o664, false, 0o644),
            ("untracked", 0o600, false, 0o600),
            ("untracked-folder", 0o777, true, 0o755),
            ("setuid", 0o4775, false, 0o4755),
        ] {
            assert_eq!(modes.of(path.as_bytes(), mode, is_folder), expected, "{path} {mode:o}");
        }
        assert_eq!(Modes::default().of(b"", 0o770, true), 0o750);
    }

    #[test]
    fn git_is_asked_for_a_checkout_alone() {
        let folder = tempfile::tempdir().unwrap();
        let context = folder.path().join("repository/context");
        std::fs::create_dir_all(&context).unwrap();
        std::fs::write(context.join("file"), "x").unwrap();
        assert!(matches!(Modes::ask(&context), Git::Absent));
        let repository = folder.path().join("repository");
        let run = |arguments: &[&str]| {
            let mut command = Command::new("git");
            command.args(["-c", "user.name=n", "-c", "user.email=e", "-C"]).arg(&repository).args(arguments);
            command.env("GIT_COMMITTER_DATE", "1700000000 +0000").env("GIT_CONFIG_GLOBAL", "/dev/null");
            assert!(command.output().unwrap().status.success(), "{arguments:?}");
        };
        run(&["init", "-q"]);
        run(&["add", "."]);
        run(&["commit", "-q", "-m", "first"]);
        let Git::Known(modes) = Modes::ask(&context) else { panic!("git was not asked") };
        assert_eq!(modes.files, HashMap::from([(b"file".to_vec(), false)]));
        assert_eq!(modes.committed_at(), Some(1_700_000_000));
        std::fs::write(repository.join(".git/index"), "broken").unwrap();
        assert!(matches!(Modes::ask(&context), Git::Silent(_)));
    }
}

//! What a user of kaniko, or of `docker`, types here at first: what stands for kaniko's flags, and Docker's longer names of
//! commands.

use std::ffi::OsString;

/// What stands for a flag of kaniko's that this command line does not have. A name that ends in `*` stands for all that begin so.
const FLAGS: &[(&str, &str)] = &[
    ("--dockerfile", "`-f FILE`"),
    ("--destination", "`-t NAME --push`"),
    ("--context", "the folder or address alone, as the argument CONTEXT"),
    ("--context-sub-path", "the folder itself as CONTEXT, or `URL#REF:FOLDER` of a repository"),
    ("--no-push*", "nothing: without `--push` nothing is pushed"),
    ("--tar-path", "`-o type=docker,dest=FILE`"),
    ("--oci-layout-path", "`-o type=oci,dest=FOLDER,tar=false`"),
    ("--image-name-with-digest-file", "`--metadata-file FILE`"),
    ("--image-name-tag-with-digest-file", "`--metadata-file FILE`"),
    ("--cache*", "`--store DIR`: steps are always looked for there, and kept there"),
    ("--insecure*", "`--insecure-registry HOST`"),
    ("--skip-tls-verify*", "`--skip-tls-verify-registry HOST`"),
    ("--push-retry", "`--retry N`"),
    ("--image-download-retry", "`--retry N`"),
    ("--image-fs-extract-retry", "`--retry N`"),
    ("--custom-platform", "`--platform`"),
    ("--customPlatform", "`--platform`"),
    ("--verbosity", "`--debug`, or `--progress quiet` for less"),
    ("--registry-map", "`--registry-mirror HOST=URL`"),
    ("--git", "`URL#REF:FOLDER` as the argument CONTEXT"),
    ("--snapshot-mode", NOTHING),
    ("--snapshotMode", NOTHING),
    ("--use-new-run", NOTHING),
    ("--single-snapshot", "nothing: each step is a layer; `COPY --from=STAGE / /` in a last stage makes one of all"),
    ("--cleanup", NOTHING),
    ("--force", NOTHING),
    ("--compressed-caching", NOTHING),
    ("--ignore-var-run", NOTHING),
    ("--ignore-path", NOTHING),
    ("--skip-unused-stages", "nothing: stages that are not needed never run"),
    ("--kaniko-dir", "`--store DIR`"),
    ("--log-format", NOTHING),
    ("--log-timestamp", NOTHING),
];

const NOTHING: &str = "nothing: leave it out";

/// What to say of a flag that is not known here.
pub(super) fn hint(flag: &str) -> Option<String> {
    let is = |name: &str| name.strip_suffix('*').map_or(name == flag, |begin| flag.starts_with(begin));
    FLAGS.iter().find(|(name, _)| is(name)).map(|(_, instead)| format!("in place of kaniko's `{flag}`: {instead}"))
}

/// What stands for a context that only kaniko knows.
pub(super) fn context_hint(context: &str) -> Option<String> {
    if let Some(folder) = context.strip_prefix("dir://") {
        return Some(format!("write the folder alone: `{folder}`"));
    }
    let file = context.strip_prefix("tar://")?;
    let file = if file == "stdin" { String::new() } else { format!(" < {file}") };
    Some(format!("give the archive on standard input: `-{file}`"))
}

/// The words of a command line, where they name a command as Docker does.
pub(super) fn own_words(typed: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let mut words: Vec<OsString> = typed.collect();
    let word = |number: usize| words.get(number).and_then(|word| word.to_str()).unwrap_or_default();
    let own: Option<(usize, &[&str])> = match (word(1), word(2)) {
        ("help", "") => Some((1, &["--help"])),
        // The flag goes behind the command.
        ("help", _) => {
            words.remove(1);
            words.push("--help".into());
            None
        }
        ("du", _) => Some((1, &["cache", "du"])),
        ("image", "ls" | "list") => Some((2, &["images"])),
        ("builder" | "buildx", "prune") => Some((2, &["prune"])),
        ("builder" | "buildx", "build") => Some((2, &["build"])),
        ("builder" | "buildx", "du") => Some((2, &["cache", "du"])),
        _ => None,
    };
    if let Some((count, own)) = own {
        words.splice(1..=count, own.iter().map(OsString::from));
    }
    words
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory as _, Parser as _};

    use super::*;
    use crate::cli::args::Arguments;

    fn refused(line: &str) -> String {
        let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
        let error = Arguments::try_parse_from(&words).unwrap_err();
        crate::cli::with_usage(error, words.into_iter()).to_string()
    }

    #[test]
    fn a_flag_of_kanikos_is_answered_with_what_stands_for_it() {
        for (line, instead) in [
            ("build --dockerfile F .", "`-f FILE`"),
            ("build --destination=r/a:1 .", "`-t NAME --push`"),
            ("build --tar-path x .", "type=docker,dest=FILE"),
            ("build --cache-repo=r/c .", "`--store DIR`"),
            ("build --insecure-pull .", "`--insecure-registry HOST`"),
            ("build --skip-tls-verify .", "`--skip-tls-verify-registry HOST`"),
            ("--destination r/a:1", "`-t NAME --push`"),
        ] {
            let said = refused(&format!("fluyt {line}"));
            assert!(said.contains(instead) && !said.contains("--reproducible"), "{said}");
            assert!(!said.contains("a similar argument") && !said.contains("use '--"), "{said}");
        }
        assert!(refused("fluyt prune --cache").contains("unexpected argument '--cache' found"));
        assert!(!refused("fluyt prune --cache").contains("kaniko"));
        assert!(refused("fluyt build --taget x .").contains("a similar argument exists: '--target'"));
    }

    #[test]
    fn no_flag_of_the_table_is_one_of_ours() {
        let mut all = Arguments::command();
        all.build();
        let build = all.find_subcommand("build").unwrap();
        for ours in build.get_arguments().filter_map(|argument| argument.get_long()) {
            let hidden = FLAGS.iter().any(|(name, _)| name.trim_start_matches("--") == ours);
            assert!(!hidden, "--{ours}");
        }
    }

    #[test]
    fn dockers_names_of_commands_are_taken() {
        for (typed, own) in [
            ("help", "--help"),
            ("help build", "build --help"),
            ("help cache du", "cache du --help"),
            ("du --json", "cache du --json"),
            ("image ls -q", "images -q"),
            ("builder prune --all", "prune --all"),
            ("buildx build -t a .", "build -t a ."),
            ("build help", "build help"),
            ("inspect du", "inspect du"),
        ] {
            let words = format!("fluyt {typed}");
            let found = own_words(words.split(' ').map(OsString::from));
            assert_eq!(found.join(" ".as_ref()).to_str().unwrap(), format!("fluyt {own}"));
        }
    }

    #[test]
    fn contexts_of_kanikos_are_named_as_they_are_here() {
        assert_eq!(context_hint("dir:///workspace").unwrap(), "write the folder alone: `/workspace`");
        assert_eq!(context_hint("tar:///a.tar.gz").unwrap(), "give the archive on standard input: `- < /a.tar.gz`");
        assert_eq!(context_hint("."), None);
    }
}

//! The syntax tree: what a Dockerfile says, before any variable is expanded.

use super::checks::Rule;
use super::heredoc::parse_heredoc;
use super::position::{Lines, Span};
use super::problem::Problem;

/// A Dockerfile as it was written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dockerfile {
    /// The `# key=value` lines at the top.
    pub directives: Directives,
    /// `ARG`s before the first `FROM`, in order.
    pub global_args: Vec<Instruction>,
    /// The stages, in order.
    pub stages: Vec<Stage>,
}

impl Dockerfile {
    /// The place of the instruction that a line belongs to; that of nothing, where it belongs to none.
    #[must_use]
    pub fn span_of_line(&self, line: usize) -> Span {
        self.instruction_at(line).map(|instruction| instruction.span).unwrap_or_default()
    }

    /// The lines that a problem is about: all of its instruction.
    #[must_use]
    pub fn lines_of(&self, problem: &Problem) -> Lines {
        let own = problem.span.lines();
        if problem.check == Some(Rule::NoEmptyContinuation) {
            return own;
        }
        self.instruction_at(own.first).map_or(own, Instruction::lines)
    }

    /// The instruction that a line belongs to.
    #[must_use]
    pub fn instruction_at(&self, line: usize) -> Option<&Instruction> {
        let stages = self.stages.iter().flat_map(|stage| std::iter::once(&stage.from).chain(&stage.instructions));
        self.global_args.iter().chain(stages).find(|instruction| {
            let lines = instruction.lines();
            (lines.first..=lines.last).contains(&line)
        })
    }
}

/// The parser directives at the top of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Directives {
    /// `# syntax=`: the frontend it names.
    pub syntax: Option<Word>,
    /// `# escape=`: `\` (the default) or a backquote.
    pub escape: char,
    /// `# check=`: which build checks to skip or to treat as errors.
    pub check: Option<Word>,
    /// How many lines they take; comments that describe something begin below.
    pub lines: usize,
}

impl Default for Directives {
    fn default() -> Self {
        Self { syntax: None, escape: '\\', check: None, lines: 0 }
    }
}

/// One `FROM` and all that follows it up to the next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stage {
    /// The `FROM` instruction as a whole: place, text.
    pub from: Instruction,
    /// What it names: an image, an earlier stage or `scratch`; may hold variables.
    pub image: Word,
    /// `--platform=`; may hold variables.
    pub platform: Option<Word>,
    /// `AS name`, in lower case.
    pub name: Option<Word>,
    /// The instructions after `FROM`.
    pub instructions: Vec<Instruction>,
}

/// A piece of text as typed (quotes and variables still in it), and where it stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Word {
    /// The text.
    pub text: String,
    /// Where it stands.
    pub span: Span,
}

/// One instruction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instruction {
    /// The instruction's name and arguments, where they stand.
    pub command: Command,
    /// As typed, continuation lines joined, without heredoc bodies.
    pub text: String,
    /// The whole of it, heredoc bodies included.
    pub span: Span,
    /// The comment lines directly before it, without `#`.
    pub comments: Vec<String>,
}

impl Instruction {
    /// The lines it occupies.
    #[must_use]
    pub fn lines(&self) -> Lines {
        self.span.lines()
    }

    /// Its name as it was typed.
    #[must_use]
    pub fn typed_name(&self) -> &str {
        self.text.split_whitespace().next().unwrap_or_default()
    }
}

/// The 18 instructions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// `ADD`.
    Add(Transfer),
    /// `ARG`: one or more declarations.
    Arg(Vec<Declaration>),
    /// `CMD`.
    Cmd(CommandLine),
    /// `COPY`.
    Copy(Transfer),
    /// `ENTRYPOINT`.
    Entrypoint(CommandLine),
    /// `ENV`.
    Env(Vec<Pair>),
    /// `EXPOSE`: the words, still to be expanded.
    Expose(Vec<Word>),
    /// `FROM`; its parts are in [`Stage`].
    From,
    /// `HEALTHCHECK`.
    Healthcheck(HealthcheckSyntax),
    /// `LABEL`.
    Label(Vec<Pair>),
    /// `MAINTAINER`: taken as it is.
    Maintainer(Word),
    /// `ONBUILD`: the instruction it defers, and its text for the image's configuration.
    Onbuild {
        /// The deferred instruction.
        trigger: Box<Instruction>,
        /// Its text as stored in the configuration.
        text: String,
    },
    /// `RUN`.
    Run(RunSyntax),
    /// `SHELL`.
    Shell(Vec<String>),
    /// `STOPSIGNAL`.
    Stopsignal(Word),
    /// `USER`.
    User(Word),
    /// `VOLUME`.
    Volume(Vec<Word>),
    /// `WORKDIR`.
    Workdir(Word),
}

impl Command {
    /// The instruction's name in upper case.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Add(_) => "ADD",
            Self::Arg(_) => "ARG",
            Self::Cmd(_) => "CMD",
            Self::Copy(_) => "COPY",
            Self::Entrypoint(_) => "ENTRYPOINT",
            Self::Env(_) => "ENV",
            Self::Expose(_) => "EXPOSE",
            Self::From => "FROM",
            Self::Healthcheck(_) => "HEALTHCHECK",
            Self::Label(_) => "LABEL",
            Self::Maintainer(_) => "MAINTAINER",
            Self::Onbuild { .. } => "ONBUILD",
            Self::Run(_) => "RUN",
            Self::Shell(_) => "SHELL",
            Self::Stopsignal(_) => "STOPSIGNAL",
            Self::User(_) => "USER",
            Self::Volume(_) => "VOLUME",
            Self::Workdir(_) => "WORKDIR",
        }
    }
}

/// `NAME` or `NAME=default` of an `ARG`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Declaration {
    /// The name.
    pub name: Word,
    /// The default, quotes still in it.
    pub default: Option<Word>,
}

/// `key=value` of `ENV` and `LABEL`, quotes and variables still in both.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    /// The key.
    pub key: Word,
    /// The value.
    pub value: Word,
    /// `key value`, the old form without `=`.
    pub is_legacy: bool,
}

/// What to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CommandLine {
    /// One text for the shell.
    Shell(Word),
    /// The JSON form: the words themselves.
    Exec(Vec<String>),
}

/// `ADD` and `COPY`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Transfer {
    /// Sources as typed; may hold variables and wildcards.
    pub sources: Vec<Word>,
    /// Files given in the Dockerfile itself.
    pub documents: Vec<Heredoc>,
    /// Destination as typed.
    pub destination: Word,
    /// `--from=` (`COPY`).
    pub from: Option<Word>,
    /// `--chown=`.
    pub chown: Option<Word>,
    /// `--chmod=`.
    pub chmod: Option<Word>,
    /// `--link`.
    pub link: bool,
    /// `--parents` (`COPY`).
    pub parents: bool,
    /// `--exclude=`, in order.
    pub exclude: Vec<Word>,
    /// `--checksum=` (`ADD`).
    pub checksum: Option<Word>,
    /// `--keep-git-dir` (`ADD`).
    pub keep_git_dir: Option<bool>,
    /// `--unpack` (`ADD`).
    pub unpack: Option<bool>,
}

/// `<<NAME` and the lines up to `NAME`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Heredoc {
    /// The word that ends it, unquoted: in `COPY` also the file's name.
    pub name: Word,
    /// The number before `<<`: the file descriptor for the shell; 0 when there is none.
    pub descriptor: u32,
    /// Whether variables in the body are expanded: no part of the word was quoted.
    pub expand: bool,
    /// `<<-`: leading tabs of the body and the terminator are removed.
    pub strip_tabs: bool,
    /// The lines, each with its line end, as typed (tabs not yet removed).
    pub body: String,
}

impl Heredoc {
    /// The body with leading tabs removed where `<<-` asks for it.
    #[must_use]
    pub fn content(&self) -> String {
        if !self.strip_tabs {
            return self.body.clone();
        }
        self.body.split_inclusive('\n').map(|line| line.trim_start_matches('\t')).collect()
    }
}

/// `RUN`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunSyntax {
    /// The command.
    pub command: CommandLine,
    /// Heredocs that the command line names, in order.
    pub documents: Vec<Heredoc>,
    /// `--mount=` values as typed, in order.
    pub mounts: Vec<Word>,
    /// `--network=`.
    pub network: Option<Word>,
    /// `--security=`.
    pub security: Option<Word>,
    /// `--device=` values as typed, in order.
    pub devices: Vec<Word>,
}

impl RunSyntax {
    /// The heredoc that is all of the command (`RUN <<EOF`): its body is the script.
    #[must_use]
    pub fn script(&self) -> Option<&Heredoc> {
        match (&self.command, &self.documents[..]) {
            (CommandLine::Shell(line), [document]) if parse_heredoc(&line.text).is_some() => Some(document),
            _ => None,
        }
    }
}

/// `HEALTHCHECK`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HealthcheckSyntax {
    /// `HEALTHCHECK NONE`.
    None,
    /// `HEALTHCHECK CMD ...`; times in nanoseconds, 0 = inherit.
    Check {
        /// What to run.
        command: CommandLine,
        /// `--interval`.
        interval: i64,
        /// `--timeout`.
        timeout: i64,
        /// `--start-period`.
        start_period: i64,
        /// `--start-interval`.
        start_interval: i64,
        /// `--retries`.
        retries: i64,
    },
}

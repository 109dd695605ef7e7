//! Dockerfile text to a syntax tree plus problems. Pure: no I/O, no panic, never stops half way.
//!
//! The language is that of the reference builder. What is accepted:
//!
//! ```text
//! file         = [byte-order mark] directive* (comment | blank | instruction)*
//! directive    = "#" ("syntax" | "escape" | "check") "=" value      only at the top, each once
//! comment      = blanks "#" ...                                      also between continued lines
//! instruction  = NAME flag* arguments, joined over lines that end in the escape character
//! flag         = "--" name ["=" value]                               "--" alone ends them
//! arguments    = JSON array of texts (exec form) | words | the rest of the line
//! heredoc      = [digits] "<<" ["-"] word                            in RUN, COPY and ADD; bodies follow the line
//! ```
//!
//! [`parse`] never fails: what it cannot read becomes a [`Problem`] with its place, and it goes on with the next line.
//! Variables are not expanded here ([`Expander`] does that when a stage is lowered and its environment is known).

mod checks;
mod duration;
mod expand;
mod flags;
mod heredoc;
mod instruction;
mod lines;
mod position;
mod problem;
mod read;
mod source;
mod words;

#[cfg(test)]
mod tests;

pub use checks::{CheckOptions, Rule, did_you_mean};
pub use expand::{EXPANDED_MAX_BYTES, ExpandError, Expander, Expansion, NESTING_MAX};
pub use instruction::{
    Command, CommandLine, Declaration, Directives, Dockerfile, HealthcheckSyntax, Heredoc, Instruction, Pair,
    RunSyntax, Stage, Transfer, Word,
};
pub use position::{Lines, Position, Span};
pub use problem::{Problem, Severity};

use source::Source;

/// Reads a whole file. Never fails: what it cannot read becomes a [`Problem`].
#[must_use]
pub fn parse(text: &str) -> (Dockerfile, Vec<Problem>) {
    let source = Source::new(text);
    let mut problems = Vec::new();
    let directives = lines::read_directives(&source, &mut problems);
    if let Some(syntax) = &directives.syntax {
        check_syntax(syntax, &mut problems);
    }
    let escape = directives.escape;
    let mut file = Dockerfile { directives, ..Dockerfile::default() };
    let mut lines = lines::Lines::behind_directives(&source, &file.directives);
    let mut any = false;
    let mut told_about_from = false;
    while let Some(line) = lines.next_line(&mut problems) {
        any = true;
        let read = read::read_instruction(&source, &line, &mut lines, escape, &mut problems);
        if let Some(from) = read.from {
            let span = source.span(line.start, line.end);
            let from_line = read.instruction.unwrap_or(Instruction {
                command: Command::From,
                text: line.text.trim().to_owned(),
                span,
                comments: Vec::new(),
            });
            file.stages.push(Stage {
                from: from_line,
                image: from.image,
                platform: from.platform,
                name: from.name,
                instructions: Vec::new(),
            });
            continue;
        }
        let Some(instruction) = read.instruction else { continue };
        match (file.stages.last_mut(), &instruction.command) {
            (Some(stage), _) => stage.instructions.push(instruction),
            (None, Command::Arg(_)) => file.global_args.push(instruction),
            (None, command) => {
                // One such line usually means that all are.
                if !told_about_from {
                    problems.push(
                        Problem::error(instruction.span, format!("`{}` stands before any `FROM`", command.name()))
                            .hint("only `ARG` may; a stage begins with `FROM IMAGE` or `FROM scratch`"),
                    );
                }
                told_about_from = true;
            }
        }
    }
    if !any {
        let end = source.span(text.len(), text.len());
        problems.push(Problem::error(end, "file with no instructions").hint("a Dockerfile begins with `FROM`"));
    } else if file.stages.is_empty() && !problems.iter().any(Problem::is_error) {
        let end = source.span(text.len(), text.len());
        problems.push(Problem::error(end, "dockerfile contains no stages to build").hint("add a `FROM`"));
    }
    checks::check_file(&file, &mut problems);
    problems.sort_by_key(|problem| problem.span.start);
    (file, problems)
}

/// Reads the text of an `ONBUILD` trigger that a base image or stage holds. All its places are `at`, the `FROM` that
/// brought it.
///
/// # Errors
///
/// The problems, when it is not exactly one instruction that may be a trigger.
pub fn parse_trigger(text: &str, at: Span) -> Result<Instruction, Vec<Problem>> {
    let source = Source::at(text, at);
    let mut problems = Vec::new();
    let mut lines = lines::Lines::new(&source, '\\');
    let mut instructions = Vec::new();
    while let Some(line) = lines.next_line(&mut problems) {
        let read = read::read_instruction(&source, &line, &mut lines, '\\', &mut problems);
        instructions.extend(read.instruction);
    }
    problems.retain(Problem::is_error);
    match instructions.pop() {
        Some(instruction) if problems.is_empty() && instructions.is_empty() => match instruction.command {
            Command::From | Command::Maintainer(_) | Command::Onbuild { .. } => Err(vec![Problem::error(
                at,
                format!("the base image has an `ONBUILD` trigger that may not be one: `{text}`"),
            )]),
            _ => Ok(instruction),
        },
        _ => {
            let told = format!("the base image has an `ONBUILD` trigger that cannot be read: `{text}`");
            problems.insert(0, Problem::error(at, told));
            Err(problems)
        }
    }
}

/// Whether a frontend (`# syntax=`) is the reference's own, which this room stands for, also by way of a mirror; any other
/// cannot be had.
#[must_use]
pub fn is_own_frontend(name: &str) -> bool {
    let is_host = |first: &str| first.contains(['.', ':']) || first == "localhost";
    let (host, rest) = match name.split_once('/') {
        Some((first, rest)) if is_host(first) => (true, rest),
        _ => (false, name),
    };
    let path = rest.split([':', '@']).next().unwrap_or_default();
    name == "dockerfile.v0"
        || ["docker/dockerfile", "docker/dockerfile-upstream"].iter().any(|frontend| {
            let above = path.strip_suffix(frontend);
            above.is_some_and(|above| above.is_empty() || host && above.ends_with('/'))
        })
}

fn check_syntax(syntax: &Word, problems: &mut Vec<Problem>) {
    let name = syntax.text.split_whitespace().next().unwrap_or_default();
    if !is_own_frontend(name) {
        let message = format!("the frontend `{name}` is not there: only `docker/dockerfile` is built in");
        let problem = Problem::error(syntax.span, message);
        problems.push(problem.hint(
            "if the file is an ordinary Dockerfile, remove the `# syntax=` line, or give \
             `--build-arg BUILDKIT_SYNTAX=docker/dockerfile:1`",
        ));
    }
}

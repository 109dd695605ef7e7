//! One logical line to one typed instruction.

use std::ops::Range;

use super::duration::parse_duration;
use super::flags::{Flags, Takes};
use super::heredoc::{HeredocWord, heredocs_of, parse_heredoc};
use super::instruction::{
    Command, CommandLine, Declaration, HealthcheckSyntax, Heredoc, Instruction, Pair, RunSyntax, Transfer, Word,
};
use super::lines::{Lines, LogicalLine};
use super::position::Span;
use super::problem::Problem;
use super::source::Source;
use super::words::{Flag, Json, read_json, split_at_blanks, split_words, take_flags};
use crate::notation;

/// Every instruction's name.
pub(super) const INSTRUCTIONS: [&str; 18] = [
    "ADD",
    "ARG",
    "CMD",
    "COPY",
    "ENTRYPOINT",
    "ENV",
    "EXPOSE",
    "FROM",
    "HEALTHCHECK",
    "LABEL",
    "MAINTAINER",
    "ONBUILD",
    "RUN",
    "SHELL",
    "STOPSIGNAL",
    "USER",
    "VOLUME",
    "WORKDIR",
];

/// Shortest time of a `HEALTHCHECK`, in nanoseconds; 0 means "as the base image has it".
const HEALTHCHECK_MIN_NS: i64 = 1_000_000;

/// The parts of a `FROM`.
#[derive(Debug)]
pub(super) struct From {
    pub(super) image: Word,
    pub(super) platform: Option<Word>,
    pub(super) name: Option<Word>,
}

/// What a line turned out to be.
#[derive(Debug)]
pub(super) struct Read {
    /// `None` when it has a problem that leaves nothing usable.
    pub(super) instruction: Option<Instruction>,
    /// Given for every `FROM`, even a broken one, so that what follows has a stage to belong to.
    pub(super) from: Option<From>,
}

/// Reads one line.
pub(super) struct Reader<'r, 'a> {
    source: &'r Source<'a>,
    line: &'r LogicalLine,
    escape: char,
    pub(super) problems: &'r mut Vec<Problem>,
    documents: Vec<Heredoc>,
    from: Option<From>,
}

/// Reads the instruction that starts with `line`, and takes its heredoc bodies from `lines`.
pub(super) fn read_instruction(
    source: &Source<'_>,
    line: &LogicalLine,
    lines: &mut Lines<'_, '_>,
    escape: char,
    problems: &mut Vec<Problem>,
) -> Read {
    let mut end = line.end;
    let documents = read_heredocs(source, line, lines, escape, problems, &mut end);
    let mut reader = Reader { source, line, escape, problems, documents, from: None };
    let command = reader.command(0);
    let from = reader.from.take();
    let instruction = command.map(|command| Instruction {
        command,
        text: line.text.trim().to_owned(),
        span: source.span(line.start, end),
        comments: line.comments.clone(),
    });
    Read { instruction, from }
}

/// The heredocs of a `RUN`, `COPY` or `ADD` in shell form, bodies included.
fn read_heredocs(
    source: &Source<'_>,
    line: &LogicalLine,
    lines: &mut Lines<'_, '_>,
    escape: char,
    problems: &mut Vec<Problem>,
    end: &mut usize,
) -> Vec<Heredoc> {
    let (mut name, mut rest) = first_word(&line.text);
    if name.eq_ignore_ascii_case("ONBUILD") {
        (name, rest) = first_word(rest);
    }
    if !["RUN", "COPY", "ADD"].iter().any(|able| name.eq_ignore_ascii_case(able)) {
        return Vec::new();
    }
    let (_, arguments) = take_flags(rest, 0, escape);
    if read_json(&rest[arguments..]) != Json::No {
        return Vec::new();
    }
    let mut documents = Vec::new();
    for HeredocWord { name, descriptor, expand, strip_tabs } in heredocs_of(&line.text) {
        let at = line.text.find("<<").unwrap_or(0);
        let span = line.span(source, at, line.text.len());
        let Some((body, behind)) = lines.heredoc_body(&name, strip_tabs, problems) else {
            problems.push(
                Problem::error(span, format!("unterminated heredoc `{name}`"))
                    .hint(format!("a line with nothing but `{name}` ends it")),
            );
            *end = source.text.trim_end_matches(['\r', '\n']).len();
            break;
        };
        *end = behind;
        documents.push(Heredoc { name: Word { text: name, span }, descriptor, expand, strip_tabs, body });
    }
    documents
}

/// The first word and what follows it. Blanks of other alphabets, as a no-break space, end no name of an instruction.
fn first_word(text: &str) -> (&str, &str) {
    let text = text.trim_start();
    let blank = |character: char| matches!(character, ' ' | '\t' | '\r' | '\n' | '\x0B' | '\x0C');
    text.split_at(text.find(blank).unwrap_or(text.len()))
}

impl Reader<'_, '_> {
    /// Where a piece of the line stands.
    pub(super) fn span(&self, place: &Range<usize>) -> Span {
        self.line.span(self.source, place.start, place.end)
    }

    fn word(&self, place: &Range<usize>) -> Word {
        Word { text: self.line.text[place.clone()].to_owned(), span: self.span(place) }
    }

    fn fail<T>(&mut self, place: &Range<usize>, message: String) -> Option<T> {
        self.problems.push(Problem::error(self.span(place), message));
        None
    }

    /// Reads the instruction that starts at `from` in the line.
    fn command(&mut self, from: usize) -> Option<Command> {
        let text = &self.line.text[from..];
        let start = from + (text.len() - text.trim_start().len());
        let (name, rest) = first_word(text);
        let place = start..start + name.len();
        let Some(known) = INSTRUCTIONS.into_iter().find(|known| name.eq_ignore_ascii_case(known)) else {
            let shown: String = name.chars().take(80).collect();
            let problem = Problem::error(self.span(&place), format!("unknown instruction `{shown}`"));
            self.problems.push(match notation::nearest(name, INSTRUCTIONS) {
                _ if name.contains(char::is_whitespace) => {
                    problem.hint("a blank in it is a no-break space or another special one: type a plain one")
                }
                Some(near) => problem.hint(format!("did you mean `{near}`?")),
                None => problem.hint("a line that continues the one before it needs a `\\` at the end of that one"),
            });
            return None;
        };
        let base = place.end;
        let (flags, arguments) = take_flags(rest, base, self.escape);
        let rest = rest[arguments..].trim_end();
        let arguments = base + arguments..base + arguments + rest.len();
        let name = known;
        match known {
            "FROM" => self.stage(flags, &arguments, &place),
            "RUN" => self.run(flags, &arguments, &place),
            "COPY" | "ADD" => self.transfer(name, flags, &arguments, &place),
            "ONBUILD" => self.onbuild(flags, &arguments, &place),
            "HEALTHCHECK" => self.healthcheck(flags, &arguments, &place),
            "CMD" | "ENTRYPOINT" => {
                Flags::check(self, name, flags, &[]);
                // Without arguments it is the shell form of an empty command.
                let command = self.command_line(&arguments)?;
                Some(if name == "CMD" { Command::Cmd(command) } else { Command::Entrypoint(command) })
            }
            _ => {
                Flags::check(self, name, flags, &[]);
                if arguments.is_empty() {
                    let needs = if matches!(name, "USER" | "WORKDIR" | "STOPSIGNAL" | "MAINTAINER") {
                        "exactly one argument"
                    } else {
                        "at least one argument"
                    };
                    return self.fail(&place, format!("`{name}` requires {needs}"));
                }
                self.plain(name, &arguments, &place)
            }
        }
    }

    /// The instructions without flags.
    fn plain(&mut self, name: &'static str, arguments: &Range<usize>, place: &Range<usize>) -> Option<Command> {
        match name {
            "ARG" => self.declarations(arguments).map(Command::Arg),
            "ENV" => self.pairs(name, arguments).map(Command::Env),
            "LABEL" => self.pairs(name, arguments).map(Command::Label),
            "EXPOSE" => Some(Command::Expose(self.blank_words(arguments))),
            "MAINTAINER" => Some(Command::Maintainer(self.word(arguments))),
            "STOPSIGNAL" => Some(Command::Stopsignal(self.word(arguments))),
            "USER" => Some(Command::User(self.word(arguments))),
            "WORKDIR" => Some(Command::Workdir(self.word(arguments))),
            "VOLUME" => {
                let words = self.words_or_json(arguments)?;
                if words.is_empty() {
                    return self.fail(place, "`VOLUME` requires at least one argument".to_owned());
                }
                if words.iter().any(|word| word.text.trim().is_empty()) {
                    return self.fail(arguments, "`VOLUME` names an empty path".to_owned());
                }
                Some(Command::Volume(words))
            }
            _ => match read_json(&self.line.text[arguments.clone()]) {
                Json::Words(words) if !words.is_empty() => Some(Command::Shell(words)),
                Json::Words(_) => self.fail(place, "`SHELL` requires at least one argument".to_owned()),
                Json::NotTexts | Json::No => {
                    let problem =
                        Problem::error(self.span(arguments), "`SHELL` requires its arguments as a JSON array of texts");
                    self.problems.push(problem.hint("for example `SHELL [\"/bin/bash\", \"-c\"]`"));
                    None
                }
            },
        }
    }

    fn stage(&mut self, flags: Vec<Flag>, arguments: &Range<usize>, place: &Range<usize>) -> Option<Command> {
        let flags = Flags::check(self, "FROM", flags, &[("platform", Takes::Text)]);
        let words = self.blank_words(arguments);
        let image = words.first().cloned().unwrap_or_else(|| Word { text: String::new(), span: self.span(place) });
        let mut from = From { image, platform: flags.text("platform"), name: None };
        let name = match &words[..] {
            [_] => Some(None),
            [_, keyword, name] if keyword.text.eq_ignore_ascii_case("as") => Some(Some(name.clone())),
            _ => None,
        };
        if let Some(Some(mut name)) = name.clone() {
            let typed = name.text.clone();
            name.text = typed.to_lowercase();
            if !is_stage_name(&name.text) {
                let problem = Problem::error(name.span, format!("invalid name for a build stage: `{typed}`"))
                    .hint("a name starts with a letter and holds letters, digits, `-`, `_` and `.`");
                self.problems.push(problem);
            }
            from.name = Some(name);
        }
        self.from = Some(from);
        if name.is_none() {
            return self.fail(place, "`FROM` takes `IMAGE` or `IMAGE AS NAME`".to_owned());
        }
        Some(Command::From)
    }

    fn run(&mut self, flags: Vec<Flag>, arguments: &Range<usize>, place: &Range<usize>) -> Option<Command> {
        let flags = Flags::check(
            self,
            "RUN",
            flags,
            &[("mount", Takes::Texts), ("network", Takes::Text), ("security", Takes::Text), ("device", Takes::Texts)],
        );
        let command = self.command_line(arguments)?;
        if command == CommandLine::Exec(Vec::new()) {
            return self.fail(place, "`RUN` has no command".to_owned());
        }
        Some(Command::Run(RunSyntax {
            command,
            documents: std::mem::take(&mut self.documents),
            mounts: flags.texts("mount"),
            network: flags.text("network"),
            security: flags.text("security"),
            devices: flags.texts("device"),
        }))
    }

    fn transfer(
        &mut self,
        name: &'static str,
        flags: Vec<Flag>,
        arguments: &Range<usize>,
        place: &Range<usize>,
    ) -> Option<Command> {
        let both = [("chown", Takes::Text), ("chmod", Takes::Text), ("link", Takes::Truth), ("exclude", Takes::Texts)];
        let only = if name == "COPY" {
            &[("from", Takes::Text), ("parents", Takes::Truth)][..]
        } else {
            &[("checksum", Takes::Text), ("keep-git-dir", Takes::Truth), ("unpack", Takes::Truth)]
        };
        let allowed: Vec<(&'static str, Takes)> = both.iter().chain(only).copied().collect();
        let flags = Flags::check(self, name, flags, &allowed);
        let mut words = self.words_or_json(arguments)?;
        let destination = match words.pop() {
            Some(destination) if !words.is_empty() => destination,
            Some(_) => {
                let message = format!(
                    "`{name}` requires at least two arguments, but only one was provided: destination could not be \
                     determined"
                );
                return self.fail(arguments, message);
            }
            None => {
                let message = format!("`{name}` requires at least two arguments: sources and a destination");
                return self.fail(place, message);
            }
        };
        let mut transfer = Transfer {
            destination,
            from: flags.text("from"),
            chown: flags.text("chown"),
            chmod: flags.text("chmod"),
            link: flags.truth("link").unwrap_or(false),
            parents: flags.truth("parents").unwrap_or(false),
            exclude: flags.texts("exclude"),
            checksum: flags.text("checksum"),
            keep_git_dir: flags.truth("keep-git-dir"),
            unpack: flags.truth("unpack"),
            ..Transfer::default()
        };
        let is_json = read_json(&self.line.text[arguments.clone()]) != Json::No;
        if !is_json && parse_heredoc(&transfer.destination.text).is_some() {
            let span = transfer.destination.span;
            self.problems.push(Problem::error(span, format!("`{name}` cannot accept a heredoc as a destination")));
            return None;
        }
        let mut documents = std::mem::take(&mut self.documents).into_iter();
        for word in words {
            if is_json || parse_heredoc(&word.text).is_none() {
                transfer.sources.push(word);
            } else if let Some(mut document) = documents.next() {
                document.name.span = word.span;
                transfer.documents.push(document);
            }
        }
        Some(if name == "COPY" { Command::Copy(transfer) } else { Command::Add(transfer) })
    }

    fn onbuild(&mut self, flags: Vec<Flag>, arguments: &Range<usize>, place: &Range<usize>) -> Option<Command> {
        Flags::check(self, "ONBUILD", flags, &[]);
        if arguments.is_empty() {
            return self.fail(place, "`ONBUILD` requires at least one argument".to_owned());
        }
        let (name, _) = first_word(&self.line.text[arguments.clone()]);
        let trigger = arguments.start..arguments.start + name.len();
        match name.to_ascii_uppercase().as_str() {
            "ONBUILD" => return self.fail(&trigger, "`ONBUILD` cannot hold another `ONBUILD`".to_owned()),
            forbidden @ ("FROM" | "MAINTAINER") => {
                return self.fail(&trigger, format!("`{forbidden}` isn't allowed as an `ONBUILD` trigger"));
            }
            _ => {}
        }
        // With the blanks at its end, which the reference keeps in the image.
        let mut text = self.line.text[arguments.start..].to_owned();
        for document in &self.documents {
            text.push('\n');
            text.push_str(&document.body);
            text.push_str(&document.name.text);
        }
        let command = self.command(arguments.start)?;
        let trigger = Instruction {
            command,
            text: self.line.text[arguments.clone()].to_owned(),
            span: self.span(arguments),
            comments: Vec::new(),
        };
        Some(Command::Onbuild { trigger: Box::new(trigger), text })
    }

    fn healthcheck(&mut self, flags: Vec<Flag>, arguments: &Range<usize>, place: &Range<usize>) -> Option<Command> {
        let allowed = [
            ("interval", Takes::Text),
            ("timeout", Takes::Text),
            ("start-period", Takes::Text),
            ("start-interval", Takes::Text),
            ("retries", Takes::Text),
        ];
        let flags = Flags::check(self, "HEALTHCHECK", flags, &allowed);
        let (kind, rest) = first_word(&self.line.text[arguments.clone()]);
        let rest = arguments.start + kind.len() + (rest.len() - rest.trim_start().len())..arguments.end;
        match kind.to_ascii_uppercase().as_str() {
            "" => self.fail(place, "`HEALTHCHECK` requires at least one argument".to_owned()),
            "NONE" if rest.is_empty() => Some(Command::Healthcheck(HealthcheckSyntax::None)),
            "NONE" => self.fail(&rest, "`HEALTHCHECK NONE` takes no arguments".to_owned()),
            "CMD" => {
                let command = if rest.is_empty() { None } else { Some(self.command_line(&rest)?) };
                let command = command.filter(|command| *command != CommandLine::Exec(Vec::new()));
                let Some(command) = command else {
                    return self.fail(arguments, "missing command after `HEALTHCHECK CMD`".to_owned());
                };
                Some(Command::Healthcheck(HealthcheckSyntax::Check {
                    command,
                    interval: self.duration(&flags, "interval")?,
                    timeout: self.duration(&flags, "timeout")?,
                    start_period: self.duration(&flags, "start-period")?,
                    start_interval: self.duration(&flags, "start-interval")?,
                    retries: self.retries(&flags)?,
                }))
            }
            _ => {
                let kind = kind.to_owned();
                self.fail(arguments, format!("unknown type `{kind}` in `HEALTHCHECK`: expected `CMD` or `NONE`"))
            }
        }
    }

    fn duration(&mut self, flags: &Flags, name: &str) -> Option<i64> {
        let Some(word) = flags.text(name) else { return Some(0) };
        let problem = match parse_duration(&word.text) {
            Some(nanoseconds) if nanoseconds == 0 || nanoseconds >= HEALTHCHECK_MIN_NS => return Some(nanoseconds),
            Some(_) => Problem::error(word.span, format!("`--{name}={}` cannot be less than 1ms", word.text)),
            None => Problem::error(word.span, format!("`--{name}={}` is no duration", word.text))
                .hint("for example `30s`, `1m30s` or `500ms`"),
        };
        self.problems.push(problem);
        None
    }

    fn retries(&mut self, flags: &Flags) -> Option<i64> {
        let Some(word) = flags.text("retries").filter(|word| !word.text.is_empty()) else { return Some(0) };
        match word.text.parse::<i32>() {
            Ok(retries) if retries >= 0 => Some(i64::from(retries)),
            _ => {
                let message = format!("`--retries={}` is no number of at least 0", word.text);
                self.problems.push(Problem::error(word.span, message));
                None
            }
        }
    }

    fn command_line(&mut self, place: &Range<usize>) -> Option<CommandLine> {
        match read_json(&self.line.text[place.clone()]) {
            Json::Words(words) => Some(CommandLine::Exec(words)),
            Json::No => Some(CommandLine::Shell(self.word(place))),
            Json::NotTexts => self.not_texts(place),
        }
    }

    fn not_texts<T>(&mut self, place: &Range<usize>) -> Option<T> {
        self.fail(place, "when using JSON array syntax, arrays must be comprised of strings only".to_owned())
    }

    fn blank_words(&self, place: &Range<usize>) -> Vec<Word> {
        split_at_blanks(&self.line.text[place.clone()], place.start).iter().map(|place| self.word(place)).collect()
    }

    fn words_or_json(&mut self, place: &Range<usize>) -> Option<Vec<Word>> {
        match read_json(&self.line.text[place.clone()]) {
            Json::Words(words) => {
                let span = self.span(place);
                Some(words.into_iter().map(|text| Word { text, span }).collect())
            }
            Json::No => Some(self.blank_words(place)),
            Json::NotTexts => self.not_texts(place),
        }
    }

    fn declarations(&mut self, arguments: &Range<usize>) -> Option<Vec<Declaration>> {
        let mut declarations = Vec::new();
        for place in split_words(&self.line.text[arguments.clone()], arguments.start, self.escape) {
            let (name, default) = self.halves(&place);
            if name.text.is_empty() {
                return self.fail(&place, "`ARG` names can not be blank".to_owned());
            }
            declarations.push(Declaration { name, default });
        }
        if declarations.is_empty() {
            return self.fail(arguments, "`ARG` requires at least one argument".to_owned());
        }
        Some(declarations)
    }

    /// A word cut at its first `=`.
    fn halves(&self, place: &Range<usize>) -> (Word, Option<Word>) {
        match self.line.text[place.clone()].find('=') {
            None => (self.word(place), None),
            Some(at) => {
                let at = place.start + at;
                (self.word(&(place.start..at)), Some(self.word(&(at + 1..place.end))))
            }
        }
    }

    fn pairs(&mut self, name: &str, arguments: &Range<usize>) -> Option<Vec<Pair>> {
        let text = &self.line.text[arguments.clone()];
        let words = split_words(text, arguments.start, self.escape);
        // A lone escape character is no word.
        let Some(first) = words.first() else {
            return self.fail(arguments, format!("`{name}` requires at least one argument"));
        };
        if !self.line.text[first.clone()].contains('=') {
            // The old form: a key, and all the rest of the line as its value.
            let (key, rest) = first_word(text);
            let value = rest.trim_start();
            if value.is_empty() {
                let problem = Problem::error(self.span(arguments), format!("`{name}` must have two arguments"));
                self.problems.push(problem.hint(format!("write `{name} KEY=VALUE`")));
                return None;
            }
            let key = arguments.start..arguments.start + key.len();
            let value = arguments.end - value.len()..arguments.end;
            return Some(vec![Pair { key: self.word(&key), value: self.word(&value), is_legacy: true }]);
        }
        let mut pairs = Vec::new();
        for place in words {
            let (key, value) = self.halves(&place);
            let Some(value) = value else {
                let problem = Problem::error(key.span, format!("can't find `=` in `{}`", key.text));
                self.problems
                    .push(problem.hint(format!("`{name}` takes `KEY=VALUE`; put a value with blanks in quotes")));
                return None;
            };
            if key.text.is_empty() {
                return self.fail(&place, format!("`{name}` names can not be blank"));
            }
            pairs.push(Pair { key, value, is_legacy: false });
        }
        Some(pairs)
    }
}

fn is_stage_name(name: &str) -> bool {
    name.starts_with(|first: char| first.is_ascii_lowercase())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_' | b'.'))
}

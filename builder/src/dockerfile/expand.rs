//! `$NAME` and `${NAME...}` in an instruction's words, with shell-like quotes.
//!
//! ```text
//! $v ${v}                    the value; nothing when unset
//! ${v:-w} ${v-w}             w when v is unset (with `:` also when it is empty)
//! ${v:+w} ${v+w}             w when v is set (with `:` and not empty)
//! ${v:?e} ${v?e}             stops with the message e when v is unset (with `:` also when it is empty)
//! ${v#p} ${v##p}             without the shortest, longest prefix that p matches
//! ${v%p} ${v%%p}             without the shortest, longest suffix that p matches
//! ${v/p/r} ${v//p/r}         with the first, every match of p replaced by r
//! ```
//!
//! `w`, `e`, `p` and `r` may hold variables and quotes again. In `p`, `*` is any text, `?` any character, and `\*`, `\?`,
//! `\\`, `\}` and `\/` are themselves. `$1`, `$@`, `$*`, `$#`, `$?`, `$-`, `$$`, `$!` and `$0` are names that nothing
//! sets. Single quotes keep everything; double quotes keep all but `$` and an escaped `"`, `$` or escape character;
//! elsewhere the escape character goes and what follows it stays.

use std::collections::BTreeSet;

use regex::Regex;

/// Longest result, in bytes. The kernel takes no argument or variable above 128 KiB, and doubling (`ENV A=$A$A`) must not
/// eat the machine's memory.
pub const EXPANDED_MAX_BYTES: usize = 1024 * 1024;

/// How deep `${a:-${b:-...}}` may nest; each level takes stack.
pub const NESTING_MAX: usize = 64;

/// What may follow a variable's name in braces.
const MODIFIERS: &str = "expected `-`, `+` or `?`, each also behind `:`, or `#`, `##`, `%`, `%%`, `/` or `//`";

/// Why a text could not be expanded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExpandError {
    /// `${` without its `}`.
    #[error("missing `}}` after `${{`")]
    MissingBrace,
    /// `${v/p` without the second `/`.
    #[error("missing `/` in `${{{name}/pattern/replacement}}`")]
    MissingSlash {
        /// The variable.
        name: String,
    },
    /// `${}`, `${:}`, `${{`.
    #[error("bad substitution: a variable's name must follow `${{`")]
    BadSubstitution,
    /// `${v^}` and the like.
    #[error("unsupported modifier `{modifier}` in `${{{name}{modifier}...}}`")]
    UnsupportedModifier {
        /// The variable.
        name: String,
        /// What follows its name.
        modifier: String,
    },
    /// A quote that does not end.
    #[error("unexpected end while looking for the matching {0}")]
    UnclosedQuote(&'static str),
    /// `${v:?message}` of a variable that is not there.
    #[error("{name}: {message}")]
    Refused {
        /// The variable.
        name: String,
        /// The author's message, or a usual one.
        message: String,
    },
    /// A pattern with an unknown escape.
    #[error("invalid pattern `{pattern}`: {reason}")]
    InvalidPattern {
        /// The pattern.
        pattern: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Deeper than [`NESTING_MAX`].
    #[error("substitutions nest deeper than {NESTING_MAX} levels")]
    TooDeep,
    /// Longer than [`EXPANDED_MAX_BYTES`].
    #[error("the expanded text is longer than {EXPANDED_MAX_BYTES} bytes")]
    TooLong,
}

impl ExpandError {
    /// What would have been understood.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        matches!(self, Self::UnsupportedModifier { .. }).then_some(MODIFIERS)
    }
}

/// What came out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expansion {
    /// The text.
    pub text: String,
    /// The text split at blanks that were not quoted; splitting happens after the expansion.
    pub words: Vec<String>,
    /// Names that were asked for and are set.
    pub used: BTreeSet<String>,
    /// Names that were asked for and are not set.
    pub unset: BTreeSet<String>,
}

/// Expands texts; its fields say how.
#[derive(Clone, Copy, Debug)]
pub struct Expander {
    /// The escape character.
    pub escape: char,
    /// Quotes stay in the result.
    pub keep_quotes: bool,
    /// Escape characters stay in the result.
    pub keep_escapes: bool,
    /// Quotes are ordinary characters (heredoc bodies).
    pub ignore_quotes: bool,
    /// References to unset variables stay as they are.
    pub keep_unset: bool,
}

impl Expander {
    /// The usual rules with this escape character.
    #[must_use]
    pub fn new(escape: char) -> Self {
        Self { escape, keep_quotes: false, keep_escapes: false, ignore_quotes: false, keep_unset: false }
    }

    /// Expands `text`; `variable` gives a variable's value.
    ///
    /// # Errors
    ///
    /// When the text is malformed, when `${v:?}` says so, and above the limits of this module.
    pub fn expand(&self, text: &str, variable: &dyn Fn(&str) -> Option<String>) -> Result<Expansion, ExpandError> {
        let mut run = Run {
            rules: *self,
            characters: text.chars().collect(),
            at: 0,
            depth: 0,
            variable,
            used: BTreeSet::new(),
            unset: BTreeSet::new(),
        };
        let collected = run.until(None, if self.keep_escapes { Escapes::Stay } else { Escapes::Go })?;
        let (text, words) = collected.finish();
        Ok(Expansion { text, words, used: run.used, unset: run.unset })
    }
}

/// A text that grows, and its words.
#[derive(Default)]
struct Collected {
    text: String,
    word: String,
    words: Vec<String>,
}

impl Collected {
    /// A character that ends a word when it is blank.
    fn push(&mut self, character: char) {
        self.text.push(character);
        if !character.is_whitespace() {
            self.word.push(character);
        } else if !self.word.is_empty() {
            self.words.push(std::mem::take(&mut self.word));
        }
    }

    /// A character that was quoted or escaped.
    fn push_literally(&mut self, character: char) {
        self.text.push(character);
        self.word.push(character);
    }

    fn check(&self) -> Result<(), ExpandError> {
        if self.text.len() > EXPANDED_MAX_BYTES { Err(ExpandError::TooLong) } else { Ok(()) }
    }

    fn finish(mut self) -> (String, Vec<String>) {
        if !self.word.is_empty() {
            self.words.push(self.word);
        }
        (self.text, self.words)
    }
}

/// What becomes of escape characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Escapes {
    /// They go, and what follows them stays.
    Go,
    /// They stay.
    Stay,
    /// They stay, and those that quotes make ordinary are doubled: the pattern is read once more.
    OfPattern,
}

struct Run<'v> {
    rules: Expander,
    characters: Vec<char>,
    at: usize,
    depth: usize,
    variable: &'v dyn Fn(&str) -> Option<String>,
    used: BTreeSet<String>,
    unset: BTreeSet<String>,
}

impl Run<'_> {
    fn peek(&self) -> Option<char> {
        self.characters.get(self.at).copied()
    }

    fn take(&mut self) -> Option<char> {
        let character = self.peek()?;
        self.at += 1;
        Some(character)
    }

    fn value(&mut self, name: &str) -> Option<String> {
        let value = (self.variable)(name);
        if value.is_some() { &mut self.used } else { &mut self.unset }.insert(name.to_owned());
        value
    }

    /// Reads up to `stop`, which is consumed, or to the end of the text when there is none.
    fn until(&mut self, stop: Option<char>, escapes: Escapes) -> Result<Collected, ExpandError> {
        let mut collected = Collected::default();
        while let Some(character) = self.peek() {
            if stop == Some(character) {
                self.at += 1;
                return Ok(collected);
            }
            match character {
                '$' => {
                    for character in self.dollar()?.chars() {
                        collected.push(character);
                    }
                }
                // The blanks of `<< NAME` do not end a word: it is one heredoc.
                '<' => {
                    self.at += 1;
                    collected.push_literally(character);
                    if self.peek() == Some('<') {
                        self.at += 1;
                        collected.push_literally('<');
                        while let Some(blank) = self.peek().filter(|next| matches!(next, ' ' | '\t' | '\r')) {
                            self.at += 1;
                            collected.push_literally(blank);
                        }
                    }
                }
                '\'' if !self.rules.ignore_quotes => {
                    let quoted = self.single_quoted(escapes)?;
                    collected.text.push_str(&quoted);
                    collected.word.push_str(&quoted);
                }
                '"' if !self.rules.ignore_quotes => {
                    let quoted = self.double_quoted(escapes)?;
                    collected.text.push_str(&quoted);
                    collected.word.push_str(&quoted);
                }
                _ => {
                    self.at += 1;
                    if character == self.rules.escape {
                        if escapes != Escapes::Go {
                            collected.push_literally(character);
                        }
                        let Some(escaped) = self.take() else { break };
                        collected.push_literally(escaped);
                    } else {
                        collected.push(character);
                    }
                }
            }
            collected.check()?;
        }
        match stop {
            None => Ok(collected),
            Some(_) => Err(ExpandError::MissingBrace),
        }
    }

    fn single_quoted(&mut self, escapes: Escapes) -> Result<String, ExpandError> {
        let mut quoted = String::new();
        self.at += 1;
        if self.rules.keep_quotes {
            quoted.push('\'');
        }
        loop {
            match self.take().ok_or(ExpandError::UnclosedQuote("single quote"))? {
                '\'' => {
                    if self.rules.keep_quotes {
                        quoted.push('\'');
                    }
                    return Ok(quoted);
                }
                other => {
                    if escapes == Escapes::OfPattern && other == self.rules.escape {
                        quoted.push(other);
                    }
                    quoted.push(other);
                }
            }
        }
    }

    fn double_quoted(&mut self, escapes: Escapes) -> Result<String, ExpandError> {
        let mut quoted = String::new();
        self.at += 1;
        if self.rules.keep_quotes {
            quoted.push('"');
        }
        loop {
            if quoted.len() > EXPANDED_MAX_BYTES {
                return Err(ExpandError::TooLong);
            }
            let character = self.peek().ok_or(ExpandError::UnclosedQuote("double quote"))?;
            if character == '$' {
                quoted.push_str(&self.dollar()?);
                continue;
            }
            self.at += 1;
            if character == '"' {
                if self.rules.keep_quotes {
                    quoted.push('"');
                }
                return Ok(quoted);
            }
            if character != self.rules.escape {
                quoted.push(character);
                continue;
            }
            match self.peek() {
                Some(escaped) if escaped == '"' || escaped == '$' || escaped == self.rules.escape => {
                    if escapes != Escapes::Go {
                        quoted.push(character);
                    }
                    quoted.push(escaped);
                    self.at += 1;
                }
                // Before anything else it is an ordinary character, which a reader of escapes must not take for one.
                _ => {
                    let is_read_again = match escapes {
                        Escapes::Go => false,
                        Escapes::Stay => !self.rules.keep_quotes,
                        Escapes::OfPattern => true,
                    };
                    if is_read_again {
                        quoted.push(character);
                    }
                    quoted.push(character);
                }
            }
        }
    }

    fn name(&mut self) -> String {
        let mut name = String::new();
        match self.peek() {
            Some(first) if first.is_numeric() => {
                while let Some(digit) = self.peek().filter(|character| character.is_numeric()) {
                    name.push(digit);
                    self.at += 1;
                }
            }
            Some(special @ ('@' | '*' | '#' | '?' | '-' | '$' | '!')) => {
                name.push(special);
                self.at += 1;
            }
            _ => {
                while let Some(character) =
                    self.peek().filter(|character| character.is_alphanumeric() || *character == '_')
                {
                    name.push(character);
                    self.at += 1;
                }
            }
        }
        name
    }

    fn dollar(&mut self) -> Result<String, ExpandError> {
        self.at += 1;
        if self.peek() != Some('{') {
            let name = self.name();
            if name.is_empty() {
                return Ok("$".to_owned());
            }
            return Ok(match self.value(&name) {
                Some(value) => value,
                None if self.rules.keep_unset => format!("${name}"),
                None => String::new(),
            });
        }
        self.at += 1;
        match self.peek() {
            None => return Err(ExpandError::MissingBrace),
            Some('{' | '}' | ':') => return Err(ExpandError::BadSubstitution),
            Some(_) => {}
        }
        if self.depth == NESTING_MAX {
            return Err(ExpandError::TooDeep);
        }
        self.depth += 1;
        let result = self.braced();
        self.depth -= 1;
        result
    }

    /// What follows `${`.
    fn braced(&mut self) -> Result<String, ExpandError> {
        let name = self.name();
        let operator = self.take().ok_or(ExpandError::MissingBrace)?;
        let unsupported = |modifier: String| ExpandError::UnsupportedModifier { name: name.clone(), modifier };
        match operator {
            '}' => Ok(match self.value(&name) {
                Some(value) => value,
                None if self.rules.keep_unset => format!("${{{name}}}"),
                None => String::new(),
            }),
            ':' => {
                let operator = self.take().ok_or(ExpandError::MissingBrace)?;
                if !matches!(operator, '-' | '+' | '?') {
                    return Err(unsupported(format!(":{operator}")));
                }
                self.alternative(&name, operator, true)
            }
            '-' | '+' | '?' => self.alternative(&name, operator, false),
            '#' | '%' => self.trimmed(&name, operator),
            '/' => self.replaced(&name),
            other => Err(unsupported(other.to_string())),
        }
    }

    /// `-`, `+` and `?`.
    fn alternative(&mut self, name: &str, operator: char, empty_is_unset: bool) -> Result<String, ExpandError> {
        let word = self.until(Some('}'), Escapes::Go)?.text;
        let value = self.value(name);
        if value.is_none() && self.rules.keep_unset {
            let colon = if empty_is_unset { ":" } else { "" };
            return Ok(format!("${{{name}{colon}{operator}{word}}}"));
        }
        let set = value.as_deref().is_some_and(|value| !(empty_is_unset && value.is_empty()));
        match operator {
            '-' => Ok(if set { value.unwrap_or_default() } else { word }),
            '+' => Ok(if set { word } else { String::new() }),
            _ if set => Ok(value.unwrap_or_default()),
            _ => {
                let usual = if value.is_none() { "is not allowed to be unset" } else { "is not allowed to be empty" };
                let message = if word.is_empty() { usual.to_owned() } else { word };
                Err(ExpandError::Refused { name: name.to_owned(), message })
            }
        }
    }

    /// `#` and `%`.
    fn trimmed(&mut self, name: &str, operator: char) -> Result<String, ExpandError> {
        let word = self.until(Some('}'), Escapes::OfPattern)?.text;
        let value = self.value(name);
        if value.is_none() && self.rules.keep_unset {
            return Ok(format!("${{{name}{operator}{word}}}"));
        }
        // A wrong pattern is wrong for an unset variable too.
        let value = value.unwrap_or_default();
        let (pattern, longest) = word.strip_prefix(operator).map_or((&word[..], false), |rest| (rest, true));
        let mut tokens = Token::parse(pattern)?;
        if operator == '#' {
            let matcher = compile(pattern, &tokens, longest, true)?;
            return Ok(matcher.find(&value).map_or(value.clone(), |found| value[found.end()..].to_owned()));
        }
        // The shortest match that *ends* somewhere is the shortest that begins there when both are reversed.
        tokens.reverse();
        let matcher = compile(pattern, &tokens, longest, true)?;
        let reversed: String = value.chars().rev().collect();
        let cut = matcher.find(&reversed).map_or(0, |found| found.end());
        Ok(reversed[cut..].chars().rev().collect())
    }

    /// `/` and `//`.
    fn replaced(&mut self, name: &str) -> Result<String, ExpandError> {
        let every = self.peek() == Some('/');
        if every {
            self.at += 1;
        }
        let missing_slash = |error| match error {
            ExpandError::MissingBrace => ExpandError::MissingSlash { name: name.to_owned() },
            other => other,
        };
        let pattern = self.until(Some('/'), Escapes::OfPattern).map_err(missing_slash)?.text;
        let replacement = self.until(Some('}'), Escapes::Stay)?.text;
        let value = self.value(name);
        if value.is_none() && self.rules.keep_unset {
            let slash = if every { "//" } else { "/" };
            return Ok(format!("${{{name}{slash}{pattern}/{replacement}}}"));
        }
        let value = value.unwrap_or_default();
        let matcher = compile(&pattern, &Token::parse(&pattern)?, true, false)?;
        let mut result = String::new();
        let mut copied = 0;
        for captures in matcher.captures_iter(&value).take(if every { usize::MAX } else { 1 }) {
            let Some(found) = captures.get(0) else { break };
            result.push_str(&value[copied..found.start()]);
            if every {
                // As in the reference, a `$0` is what was matched here, and any other `$NAME` is nothing.
                captures.expand(&replacement, &mut result);
            } else {
                result.push_str(&replacement);
            }
            copied = found.end();
            if result.len() > EXPANDED_MAX_BYTES {
                return Err(ExpandError::TooLong);
            }
        }
        result.push_str(&value[copied..]);
        Ok(result)
    }
}

/// A piece of a pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token {
    AnyText,
    AnyCharacter,
    Literal(char),
}

impl Token {
    fn parse(pattern: &str) -> Result<Vec<Self>, ExpandError> {
        let mut tokens = Vec::new();
        let mut characters = pattern.chars();
        while let Some(character) = characters.next() {
            tokens.push(match character {
                '*' => Self::AnyText,
                '?' => Self::AnyCharacter,
                '\\' => match characters.next() {
                    Some(escaped @ ('*' | '?' | '\\' | '}' | '/')) => Self::Literal(escaped),
                    other => {
                        let reason = match other {
                            Some(other) => format!("invalid escape `\\{other}`"),
                            None => "a lone `\\` at its end".to_owned(),
                        };
                        return Err(ExpandError::InvalidPattern { pattern: pattern.to_owned(), reason });
                    }
                },
                other => Self::Literal(other),
            });
        }
        Ok(tokens)
    }
}

fn compile(pattern: &str, tokens: &[Token], longest: bool, anchored: bool) -> Result<Regex, ExpandError> {
    let mut text = String::from(if anchored { "^" } else { "" });
    for token in tokens {
        match token {
            Token::AnyText => text.push_str(if longest { ".*" } else { ".*?" }),
            Token::AnyCharacter => text.push('.'),
            Token::Literal(character) => text.push_str(&regex::escape(character.encode_utf8(&mut [0; 4]))),
        }
    }
    Regex::new(&text).map_err(|_| ExpandError::InvalidPattern {
        pattern: pattern.chars().take(80).collect(),
        reason: "it is too long".to_owned(),
    })
}

#[cfg(test)]
mod tests;

//! What a failed command says, and the code it exits with.

use std::error::Error;
use std::fmt::Write as _;

use crate::event::Ending;
use crate::pipeline::Fault;
use crate::secrets::Redactor;
use crate::stop::Stopped;

/// Whose fault it is; decides the exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blame {
    /// The user can mend it: a RUN failed, something was not found, refused. Exit code 1.
    User,
    /// Wrong usage. Exit code 2.
    Usage,
    /// Ours or the environment's: a full disk, a registry that is down, a kernel that refuses. Exit code 3.
    Environment,
    /// The user stopped it. Exit code 130.
    Interrupted,
}

impl Blame {
    /// The process's exit code.
    #[must_use]
    pub fn exit_code(self) -> u8 {
        match self {
            Self::User => 1,
            Self::Usage => 2,
            Self::Environment => 3,
            Self::Interrupted => 130,
        }
    }
}

impl From<Fault> for Blame {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::User => Self::User,
            Fault::Usage => Self::Usage,
            Fault::Environment => Self::Environment,
            Fault::Interrupted => Self::Interrupted,
        }
    }
}

/// An error on its way to the user.
#[derive(Debug)]
pub struct Failure {
    /// Whose fault it is.
    pub blame: Blame,
    /// What failed; lower case, no full stop. May have several lines (a source excerpt).
    pub message: String,
    /// Why, outermost first.
    pub causes: Vec<String>,
    /// What to do.
    pub hints: Vec<String>,
    /// What failed beside it.
    pub others: Vec<Failure>,
}

impl From<Stopped> for Failure {
    fn from(_: Stopped) -> Self {
        Self::new(Blame::Interrupted, "interrupted")
    }
}

impl Ending for Failure {
    fn why(&self) -> Option<String> {
        (self.blame != Blame::Interrupted).then(|| self.causes.first().unwrap_or(&self.message).clone())
    }
}

impl Failure {
    /// A failure with this message alone.
    #[must_use]
    pub fn new(blame: Blame, message: impl Into<String>) -> Self {
        Self { blame, message: message.into(), causes: Vec::new(), hints: Vec::new(), others: Vec::new() }
    }

    /// Wrong usage.
    #[must_use]
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Blame::Usage, message)
    }

    /// A failure from an error and the errors that caused it. A cause that its effect repeats is left out.
    #[must_use]
    pub fn from_error(blame: Blame, error: &(dyn Error + 'static)) -> Self {
        let mut failure = Self::new(blame, error.to_string());
        let mut last = failure.message.clone();
        let mut source = error.source();
        while let Some(cause) = source {
            let text = cause.to_string();
            if !last.contains(&text) {
                failure.causes.push(text.clone());
                last = text;
            }
            source = cause.source();
        }
        failure
    }

    /// Adds why.
    #[must_use]
    pub fn caused_by(mut self, error: &(dyn Error + 'static)) -> Self {
        let cause = Self::from_error(self.blame, error);
        self.causes.push(cause.message);
        self.causes.extend(cause.causes);
        self
    }

    /// Adds what to do.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    /// Adds what to do, where there is something.
    #[must_use]
    pub fn hints(mut self, hints: impl IntoIterator<Item = String>) -> Self {
        self.hints.extend(hints);
        self
    }

    /// The same without secrets.
    #[must_use]
    pub fn without(mut self, secrets: &Redactor) -> Self {
        self.message = secrets.text(self.message);
        for text in self.causes.iter_mut().chain(&mut self.hints) {
            *text = secrets.text(std::mem::take(text));
        }
        self.others = self.others.into_iter().map(|other| other.without(secrets)).collect();
        self
    }

    /// Adds what failed beside it.
    #[must_use]
    pub fn beside(mut self, others: impl IntoIterator<Item = Self>) -> Self {
        self.others.extend(others);
        self
    }

    /// The lines that the user reads on standard error.
    #[must_use]
    pub fn render(&self) -> String {
        // Where all is said elsewhere, only the exit code is left.
        let mut text = match self.message.as_str() {
            "" => String::new(),
            message => format!("error: {message}\n"),
        };
        for cause in &self.causes {
            let _ = writeln!(text, "caused by: {cause}");
        }
        for hint in &self.hints {
            let _ = writeln!(text, "hint: {hint}");
        }
        for other in &self.others {
            text.push_str(&other.render());
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_names_causes_and_hints_in_order() {
        #[derive(Debug, thiserror::Error)]
        #[error("cannot write `a`")]
        struct Outer(#[source] std::io::Error);
        let error = Outer(std::io::Error::from_raw_os_error(28));
        let text = Failure::from_error(Blame::Environment, &error).hint("free some space").render();
        assert_eq!(
            text,
            "error: cannot write `a`\ncaused by: No space left on device (os error 28)\nhint: free some space\n"
        );
        assert_eq!(Blame::Environment.exit_code(), 3);
    }
}

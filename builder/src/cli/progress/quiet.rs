//! Nothing while all goes well. When a step failed, what led there: warnings, and the step as the other views show it.

use std::time::Duration;

use super::View;
use super::book::Book;
use super::plain::remark;
use crate::event::Event;

/// The view.
#[derive(Debug, Default)]
pub(super) struct Quiet {
    warnings: String,
    colour: bool,
}

impl Quiet {
    pub(super) fn new(colour: bool) -> Self {
        Self { colour, ..Self::default() }
    }
}

impl View for Quiet {
    fn event(&mut self, _book: &Book, _now: Duration, event: &Event) -> String {
        if matches!(event, Event::Warning { .. } | Event::Check { .. }) {
            self.warnings += &remark(event);
        }
        String::new()
    }

    fn end(&mut self, book: &Book, _now: Duration) -> String {
        let failures = book.failures(self.colour);
        // As with Docker's `-q`, a build that succeeds says nothing; why one failed may stand in a warning.
        if failures.is_empty() { failures } else { std::mem::take(&mut self.warnings) + &failures }
    }
}

//! Events to a view: plain lines, a terminal that is redrawn, groups in a CI service's log, or `BuildKit`'s JSON lines.
//!
//! Every view sees the same book of what happened, and gives text for standard error; it neither writes nor asks for the time. So
//! each is tested with a recorded build.

mod book;
mod excerpt;
mod groups;
mod log;
mod plain;
mod quiet;
mod rawjson;
#[cfg(test)]
mod tests;
mod text;
mod timeline;
mod tty;

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::args::Progress;
use super::output;
use super::settings::Surroundings;
use crate::event::{Event, Events, Sink, StepId};
use book::{Book, Line};
use groups::{Groups, Service};
use log::Log;

pub use crate::event::size;

/// How a build looks. `now` is the time since the build's start.
trait View: Send {
    /// Something happened; the book knows it already.
    fn event(&mut self, book: &Book, now: Duration, event: &Event) -> String;

    /// A step printed whole lines.
    fn lines(&mut self, book: &Book, now: Duration, step: StepId, lines: &[Line]) -> String {
        let _ = (book, now, step, lines);
        String::new()
    }

    /// Something must be read now, whatever is shown otherwise.
    fn say(&mut self, book: &Book, now: Duration, text: &str) -> String {
        let _ = (book, now);
        format!("{text}\n")
    }

    /// Time passed.
    fn tick(&mut self, book: &Book, now: Duration) -> String {
        let _ = (book, now);
        String::new()
    }

    /// The build is over; what failed is shown once more.
    fn end(&mut self, book: &Book, now: Duration) -> String {
        let _ = (book, now);
        String::new()
    }
}

/// How often a view hears that time passed.
const TICK: Duration = Duration::from_millis(100);

/// What is shown of a build, from its begin to its end.
#[derive(Debug)]
pub struct Shown {
    reporter: Arc<Reporter>,
    ticker: Option<JoinHandle<()>>,
}

/// What a shown build leaves.
#[derive(Debug, Default)]
pub struct Left {
    /// The file with everything that was printed, where a step failed or printed something.
    pub log: Option<PathBuf>,
    /// The build as trace events.
    pub timeline: Vec<u8>,
}

impl Shown {
    /// Begins to show. `Auto` is the redrawn view on a terminal, plain lines elsewhere; nothing is redrawn where there is no
    /// terminal. With `logs`, everything is also written to a file in that folder.
    #[must_use]
    pub fn begin(kind: Progress, around: &Surroundings, logs: Option<&Path>) -> Self {
        let began = Timestamp::now();
        let view = view(kind, around, began);
        let log = logs.map(|folder| Log::begin(folder, began));
        let (log, refused) = match log {
            Some(Ok(log)) => (Some(log), None),
            Some(Err(error)) => (None, Some(error)),
            None => (None, None),
        };
        let reporter = Arc::new(Reporter::new(view, log, output::message));
        if let (Some(error), Some(folder)) = (refused, logs) {
            let text = format!("this build's log is not kept: cannot write to {}: {error}", folder.display());
            reporter.hear(Event::Warning { text });
        }
        let ticker = {
            let reporter = reporter.clone();
            std::thread::Builder::new().name("progress".to_owned()).spawn(move || reporter.tick_until_end()).ok()
        };
        Self { reporter, ticker }
    }

    /// Who hears what happens.
    #[must_use]
    pub fn events(&self) -> Events {
        self.reporter.clone()
    }

    /// Says something at once, whatever the view.
    pub fn say(&self) -> impl Fn(&str) + Send + Sync + 'static + use<> {
        let reporter = self.reporter.clone();
        move |text| reporter.say(text)
    }

    /// Ends the view. What is heard later is not shown.
    pub fn end(mut self) -> Left {
        let left = self.reporter.end();
        if let Some(ticker) = self.ticker.take() {
            let _ = ticker.join();
        }
        left
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        self.reporter.end();
    }
}

fn view(kind: Progress, around: &Surroundings, began: Timestamp) -> Box<dyn View> {
    let terminal = std::io::stderr().is_terminal() && !around.dumb_terminal;
    let colour = !around.no_colour;
    let plain = || -> Box<dyn View> {
        let service = match (&around.github_workspace, around.gitlab) {
            (Some((workspace, below)), _) => Service::GitHub { workspace: workspace.clone(), below: below.clone() },
            (None, true) => Service::GitLab { began_s: began.as_second() },
            (None, false) => return Box::new(plain::Plain::new(colour)),
        };
        Box::new(Groups::new(service, colour))
    };
    match kind {
        Progress::Quiet => Box::new(quiet::Quiet::new(colour)),
        Progress::Rawjson => Box::new(rawjson::RawJson::new(began)),
        Progress::Auto | Progress::Tty if terminal => Box::new(tty::Terminal::new(colour, terminal_size)),
        Progress::Plain | Progress::Auto | Progress::Tty => plain(),
    }
}

/// The size of the terminal behind standard error, asked each time because it may change.
fn terminal_size() -> tty::Size {
    match rustix::termios::tcgetwinsize(std::io::stderr()) {
        Ok(size) if size.ws_col > 0 && size.ws_row > 0 => {
            tty::Size { columns: size.ws_col.into(), rows: size.ws_row.into() }
        }
        _ => tty::Size { columns: 80, rows: 24 },
    }
}

/// Hears events from all threads, and hands them to the view, the log and the book one after the other: so no line is torn.
struct Reporter {
    began: Instant,
    state: Mutex<State>,
    ended: Condvar,
}

struct State {
    book: Book,
    view: Box<dyn View>,
    log: Option<Log>,
    write: Box<dyn FnMut(&str) + Send>,
    over: bool,
}

impl std::fmt::Debug for Reporter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reporter").field("began", &self.began).finish_non_exhaustive()
    }
}

impl Reporter {
    fn new(view: Box<dyn View>, log: Option<Log>, write: impl FnMut(&str) + Send + 'static) -> Self {
        let state = State { book: Book::default(), view, log, write: Box::new(write), over: false };
        Self { began: Instant::now(), state: Mutex::new(state), ended: Condvar::new() }
    }

    fn tick_until_end(&self) {
        let mut state = self.lock();
        while !state.over {
            state = self.ended.wait_timeout(state, TICK).unwrap_or_else(PoisonError::into_inner).0;
            if !state.over {
                state.tick(self.began.elapsed());
            }
        }
    }

    fn say(&self, text: &str) {
        let mut state = self.lock();
        if state.over {
            (state.write)(&format!("{text}\n"));
        } else {
            state.say(self.began.elapsed(), text);
        }
    }

    fn end(&self) -> Left {
        let mut state = self.lock();
        if std::mem::replace(&mut state.over, true) {
            return Left::default();
        }
        self.ended.notify_all();
        state.end(self.began.elapsed())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sink for Reporter {
    fn hear(&self, event: Event) {
        let mut state = self.lock();
        if !state.over {
            state.hear(self.began.elapsed(), &event);
        }
    }
}

impl State {
    fn hear(&mut self, now: Duration, event: &Event) {
        if let Some((step, lines)) = self.book.hear(now, event) {
            self.lines(now, step, &lines);
        }
        if let Some(log) = &mut self.log {
            log.event(&self.book, now, event);
        }
        let text = self.view.event(&self.book, now, event);
        self.show(&text);
    }

    fn lines(&mut self, now: Duration, step: StepId, lines: &[Line]) {
        if let Some(log) = &mut self.log {
            log.lines(step, lines);
        }
        let text = self.view.lines(&self.book, now, step, lines);
        self.show(&text);
    }

    fn tick(&mut self, now: Duration) {
        for (step, lines) in self.book.overdue(now) {
            self.lines(now, step, &lines);
        }
        let text = self.view.tick(&self.book, now);
        self.show(&text);
    }

    fn say(&mut self, now: Duration, text: &str) {
        let text = self.view.say(&self.book, now, text);
        self.show(&text);
    }

    fn end(&mut self, now: Duration) -> Left {
        self.book.has_log = self.log.as_ref().is_some_and(Log::is_whole);
        let text = self.view.end(&self.book, now);
        self.show(&text);
        let timeline = timeline::timeline(&self.book, now);
        let worth_it = self.book.steps.values().any(|step| step.line_count > 0) || self.book.failed().next().is_some();
        let mut left = Left { log: None, timeline };
        if let Some(log) = &mut self.log {
            if let Some(error) = log.end(&self.book) {
                let text = format!("warning: the log {} is not whole: {error}\n", log.path().display());
                (self.write)(&text);
            }
            left.log = worth_it.then(|| log.path().to_owned());
        }
        left
    }

    fn show(&mut self, text: &str) {
        if !text.is_empty() {
            (self.write)(text);
        }
    }
}

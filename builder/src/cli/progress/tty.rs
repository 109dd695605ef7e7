//! A view that is redrawn: what ended stands above and stays; below it the steps that run, with their bytes and last
//! lines, those that wait and for what, and a line for the whole.

use std::fmt::Write as _;
use std::time::Duration;

use super::View;
use super::book::{Book, Line, Stand, Step};
use super::plain::remark;
use super::text::{cut, duration, of_total, one_line, short_digests, width};
use crate::event::{DOWNLOAD, Event, StepId};

/// Last lines shown of each step that runs.
const LINES_MAX: usize = 6;

/// Waiting steps that are named; the others are counted.
const WAITING_MAX: usize = 8;

/// What is shown of an address that is waited for.
const ADDRESS_MAX_COLUMNS: usize = 60;

/// Transfers that are shown of a step.
const TRANSFERS_MAX: usize = 4;

/// Columns and rows of the terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Size {
    pub(super) columns: usize,
    pub(super) rows: usize,
}

/// The view.
pub(super) struct Terminal {
    colour: bool,
    size: Box<dyn Fn() -> Size + Send>,
    /// What will stand above the part that is redrawn.
    pending: String,
    /// The widths of the lines drawn last, which the next drawing has to remove.
    drawn: Vec<usize>,
}

impl std::fmt::Debug for Terminal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Terminal").field("drawn", &self.drawn).finish_non_exhaustive()
    }
}

/// A line to draw: marks and texts with a style each.
#[derive(Debug, Default)]
struct Row(Vec<(Style, String)>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Style {
    Plain,
    Bold,
    Dim,
    Good,
    Bad,
}

impl Style {
    fn code(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Bold => "\u{1b}[1m",
            Self::Dim => "\u{1b}[2m",
            Self::Good => "\u{1b}[32m",
            Self::Bad => "\u{1b}[31m",
        }
    }
}

impl Row {
    fn with(mut self, style: Style, text: impl Into<String>) -> Self {
        self.0.push((style, text.into()));
        self
    }

    /// The line, cut to so many columns, with `end` at its right edge where there is room.
    fn render(self, columns: usize, end: &str, colour: bool) -> (String, usize) {
        let room = columns.saturating_sub(if end.is_empty() { 0 } else { width(end) + 1 });
        let (mut text, mut taken) = (String::new(), 0);
        for (style, part) in self.0 {
            let part = cut(&part, room - taken);
            taken += width(&part);
            if colour && style != Style::Plain && !part.is_empty() {
                let _ = write!(text, "{}{part}\u{1b}[0m", style.code());
            } else {
                text += &part;
            }
        }
        if !end.is_empty() && width(end) < columns {
            let gap = columns - taken - width(end);
            let _ = write!(text, "{}{end}", " ".repeat(gap));
            taken += gap + width(end);
        }
        (text, taken)
    }
}

impl Terminal {
    pub(super) fn new(colour: bool, size: impl Fn() -> Size + Send + 'static) -> Self {
        Self { colour, size: Box::new(size), pending: String::new(), drawn: Vec::new() }
    }

    /// A step that ended, as it stays.
    fn ended(&self, book: &Book, step: &Step, now: Duration, columns: usize) -> String {
        let stopped = book.why_stopped().map_or_else(|| "stopped".to_owned(), |why| format!("stopped: {why}"));
        let (style, mark, end) = match step.stand {
            Stand::Failed => (Style::Bad, " ✗ ", duration(step.age(now))),
            Stand::Stopped => (Style::Dim, " - ", stopped),
            _ if step.cached => (Style::Good, " ✓ ", "cached".to_owned()),
            _ => (Style::Good, " ✓ ", duration(step.age(now))),
        };
        let row = Row::default().with(style, mark).with(Style::Plain, one_line(&step.name));
        let mut text = row.render(columns, &end, self.colour).0 + "\n";
        if step.stand == Stand::Failed
            && let Some(error) = &step.error
        {
            let row = Row::default().with(Style::Bad, format!("   {}", one_line(error)));
            text += &(row.render(columns, "", self.colour).0 + "\n");
        }
        text
    }

    fn frame(&self, book: &Book, now: Duration, size: Size) -> Vec<(String, usize)> {
        let columns = size.columns;
        let colour = self.colour;
        let running: Vec<(StepId, &Step)> =
            book.steps.iter().filter(|(_, step)| step.stand == Stand::Running).map(|(id, step)| (*id, step)).collect();
        let waiting: Vec<(StepId, &Step)> =
            book.steps.iter().filter(|(_, step)| step.stand == Stand::Planned).map(|(id, step)| (*id, step)).collect();
        // The last row is the cursor's, and one is for the whole.
        let mut room = size.rows.saturating_sub(2);
        let mut rows = Vec::new();
        let shown = running.len().min(room);
        room -= shown;
        // What runs goes before what waits.
        let rows_of = |step: &Step| {
            let moving = step.transfers.iter().filter(|transfer| !transfer.is_done()).count();
            moving.min(TRANSFERS_MAX) + step.last_lines(LINES_MAX).len()
        };
        let wanted: usize = running.iter().take(shown).map(|(_, step)| rows_of(step)).sum();
        let for_waiting = (room / 3).max(room.saturating_sub(wanted));
        let waiting_rows = waiting_rows(book, &waiting, for_waiting.min(WAITING_MAX + 1));
        room -= waiting_rows.len();
        let each = room.checked_div(shown).unwrap_or(0);
        for (_, step) in running.iter().take(shown) {
            let row = Row::default().with(Style::Bold, " • ").with(Style::Bold, one_line(&step.name));
            rows.push(row.render(columns, &duration(step.age(now)), colour));
            let moving: Vec<_> = step.transfers.iter().filter(|transfer| !transfer.is_done()).collect();
            let mut left = each;
            for transfer in moving.iter().take(TRANSFERS_MAX.min(left)) {
                let row = Row::default().with(Style::Dim, format!("     {}", one_line(&short_digests(&transfer.what))));
                rows.push(row.render(columns, &of_total(transfer.done_bytes, transfer.total_bytes), colour));
                left -= 1;
            }
            for line in step.last_lines(LINES_MAX.min(left)) {
                let row = Row::default().with(Style::Dim, format!("   │ {line}"));
                rows.push(row.render(columns, "", colour));
            }
        }
        rows.extend(waiting_rows.into_iter().map(|(row, end)| row.render(columns, &end, colour)));
        rows.push(total(book, running.len() - shown).render(columns, &duration(now), colour));
        rows
    }

    /// How many rows what was drawn last takes. Lines that are now longer than the terminal is wide have been broken by it.
    fn rows_drawn(&mut self, columns: usize) -> usize {
        self.drawn.drain(..).map(|width| width.div_ceil(columns.max(1)).max(1)).sum()
    }

    /// Draws over what was drawn last: line by line, because some terminals keep a screen that is cleared as a whole.
    fn draw(&mut self, book: &Book, now: Duration, with_frame: bool) -> String {
        // Written as one piece, which terminals that know the sign show at once.
        const BEGIN: &str = "\u{1b}[?2026h";
        const END: &str = "\u{1b}[?2026l";
        const CLEAR_LINE: &str = "\u{1b}[K\n";
        const CLEAR_BELOW: &str = "\u{1b}[J";
        let size = (self.size)();
        let before = self.rows_drawn(size.columns);
        let mut text = std::mem::take(&mut self.pending).replace('\n', CLEAR_LINE);
        if with_frame {
            for (row, width) in self.frame(book, now, Size { columns: size.columns.saturating_sub(1), ..size }) {
                text += &row;
                text += CLEAR_LINE;
                self.drawn.push(width);
            }
        }
        match before {
            0 if text.is_empty() => String::new(),
            0 => format!("{BEGIN}{text}{END}"),
            _ => format!("{BEGIN}\u{1b}[{before}A\r{text}{CLEAR_BELOW}{END}"),
        }
    }
}

/// The steps that wait, each with what stands at its right edge: the bytes of the download that it waits for.
fn waiting_rows(book: &Book, waiting: &[(StepId, &Step)], room: usize) -> Vec<(Row, String)> {
    let named = if waiting.len() > room { room.saturating_sub(1) } else { waiting.len() };
    let mut rows: Vec<(Row, String)> = waiting
        .iter()
        .take(named)
        .map(|(id, step)| {
            let name = one_line(&step.name);
            let place = place(book, *id).unwrap_or_default();
            let on: Vec<String> = step.waits_for.iter().flatten().filter_map(|id| self::place(book, *id)).collect();
            let why = match (&step.waits_for, on.is_empty()) {
                (Some(_), false) => format!(" waits for {}", on.join(", ")),
                (Some(_), true) => " waits for its turn".to_owned(),
                (None, _) => String::new(),
            };
            let rest = name.strip_prefix(place.as_str()).unwrap_or_default();
            let row = Row::default().with(Style::Dim, format!(" ⋯ {place}{why}")).with(Style::Dim, format!(" {rest}"));
            (row, step.waits_for.as_deref().and_then(|on| awaited_bytes(book, on)).unwrap_or_default())
        })
        .collect();
    if named < waiting.len() && room > 0 {
        let row = Row::default().with(Style::Dim, format!("   and {} more that wait", waiting.len() - named));
        rows.push((row, String::new()));
    }
    rows
}

/// How far the only download is that a step waits for.
fn awaited_bytes(book: &Book, on: &[StepId]) -> Option<String> {
    let [step] = on else { return None };
    let step = book.steps.get(step).filter(|step| step.name.starts_with(DOWNLOAD))?;
    let transfer = step.transfers.iter().find(|transfer| !transfer.is_done())?;
    Some(of_total(transfer.done_bytes, transfer.total_bytes))
}

/// What a step is called where it is waited for: `[build 2/5]`, the address of a download, or its whole name.
fn place(book: &Book, step: StepId) -> Option<String> {
    let name = one_line(&book.steps.get(&step)?.name);
    if let Some(address) = name.strip_prefix(DOWNLOAD) {
        return Some(cut(address, ADDRESS_MAX_COLUMNS));
    }
    let end = name.starts_with('[').then(|| name.find(']')).flatten();
    Some(match end {
        Some(end) if !name.starts_with("[internal]") => name[..=end].to_owned(),
        _ => cut(&name, 40),
    })
}

fn total(book: &Book, hidden: usize) -> Row {
    let count = |wanted: fn(&Step) -> bool| book.steps.values().filter(|step| wanted(step)).count();
    let done = count(|step| step.stand == Stand::Done);
    let (cached, failed) = (count(|step| step.cached), count(|step| step.stand == Stand::Failed));
    let mut text = format!(" {done} of {} steps done", book.steps.len());
    if cached > 0 {
        let _ = write!(text, ", {cached} cached");
    }
    if hidden > 0 {
        let _ = write!(text, ", {hidden} more run");
    }
    let row = Row::default().with(Style::Bold, text);
    if failed > 0 { row.with(Style::Bad, format!(", {failed} failed")) } else { row }
}

impl View for Terminal {
    fn event(&mut self, book: &Book, now: Duration, event: &Event) -> String {
        let columns = (self.size)().columns.saturating_sub(1);
        match event {
            Event::Finished { step } | Event::Failed { step, .. } | Event::Stopped { step } => {
                if let Some(known) = book.steps.get(step) {
                    self.pending += &self.ended(book, known, now, columns);
                }
            }
            // The end shows it with its lines.
            Event::Check { rule: Some(_), .. } => {}
            Event::Warning { .. } | Event::Check { .. } | Event::Note { .. } => self.pending += &remark(event),
            _ => {}
        }
        String::new()
    }

    fn lines(&mut self, _book: &Book, _now: Duration, _step: StepId, _lines: &[Line]) -> String {
        // The book keeps the last lines, and the log all of them.
        String::new()
    }

    fn say(&mut self, book: &Book, now: Duration, text: &str) -> String {
        let _ = writeln!(self.pending, "{text}");
        self.draw(book, now, true)
    }

    fn tick(&mut self, book: &Book, now: Duration) -> String {
        self.draw(book, now, true)
    }

    fn end(&mut self, book: &Book, now: Duration) -> String {
        let columns = (self.size)().columns.saturating_sub(1);
        let built = book.steps.values().all(|step| matches!(step.stand, Stand::Done));
        let mut text = self.draw(book, now, false);
        if !book.steps.is_empty() && built {
            text += &(total(book, 0).render(columns, &duration(now), self.colour).0 + "\n");
        }
        text + &book.checks() + &book.failures(self.colour)
    }
}

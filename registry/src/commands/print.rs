//! What commands print: tables for people, JSON for machines. Whoever closed stdout does not want it.

use std::io::Write;

use serde::Serialize;

use super::Failure;

/// One JSON object, on several lines.
pub(crate) fn json(value: &impl Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(value).map_err(|error| Failure::Environment(error.into()))?;
    lines([text]);
    Ok(())
}

/// Lines of text.
pub(crate) fn lines(lines: impl IntoIterator<Item = impl AsRef<str>>) {
    let mut stdout = std::io::stdout().lock();
    for line in lines {
        let _ = writeln!(stdout, "{}", line.as_ref());
    }
    let _ = stdout.flush();
}

/// Rows of columns as wide as their widest cell; the first row is the head.
pub(crate) fn table(rows: &[Vec<String>]) {
    let columns = rows.iter().map(Vec::len).max().unwrap_or_default();
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or_default()).collect();
    lines(rows.iter().map(|row| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    }));
}

/// The beginning of a digest, enough to know it by and to give it to `--to`.
pub(crate) fn short(digest: &str) -> String {
    digest.chars().take("sha256:".len() + 12).collect()
}

//! What the specifications ask for, each with the tests that hold it. A requirement without a test fails the build's tests.
//!
//! One file for each document. Where the distribution specification numbers something itself (`end-N`, `code-N`), the id is
//! that; its other sentences are numbered by section. What it asks of clients only is not here.

mod distribution;
mod image;

/// How much the specification wants it (RFC 2119).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// A registry without it does not conform.
    Must,
    /// A registry without it has a reason.
    Should,
    /// A registry may leave it out; this one does it.
    May,
    /// The specification is silent; users rely on it all the same.
    Ours,
}

/// One requirement.
#[derive(Debug, Clone, Copy)]
pub struct Requirement {
    /// How much it is wanted.
    pub level: Level,
    /// Its id, unique in the table.
    pub id: &'static str,
    /// Document and section.
    pub section: &'static str,
    /// What is asked for, in one line.
    pub summary: &'static str,
    /// Names of the tests that fail when it is not met.
    pub tests: &'static [&'static str],
}

const fn row(
    level: Level,
    id: &'static str,
    section: &'static str,
    summary: &'static str,
    tests: &'static [&'static str],
) -> Requirement {
    Requirement { level, id, section, summary, tests }
}

/// All requirements.
pub fn requirements() -> impl Iterator<Item = &'static Requirement> {
    distribution::REQUIREMENTS.iter().chain(image::REQUIREMENTS)
}

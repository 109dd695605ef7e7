//! Which checks anybody wants to see: `# check=`, the build argument of the same use, and comments before instructions.
//!
//! ```text
//! options = option (";" option)*            at most three
//! option  = "skip=" names | "experimental=" names | "error=" boolean
//! names   = "all" | NAME ("," NAME)*
//! ```

use std::collections::BTreeSet;

use super::super::instruction::Dockerfile;
use super::super::lines::as_directive;
use super::super::position::Span;
use super::super::problem::Problem;
use super::rules::Rule;
use crate::notation::{nearest, truth};

/// What is asked of the checks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CheckOptions {
    skip: Names,
    experimental: Names,
    /// Whether a check that is not passed fails the build.
    pub error: bool,
}

/// Names of rules. A name that no rule has means nothing, so that files for later builders can be read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Names {
    all: bool,
    names: BTreeSet<String>,
}

impl Names {
    fn parse(text: &str) -> Self {
        match text.trim() {
            "all" => Self { all: true, names: BTreeSet::new() },
            names => Self { all: false, names: names.split(',').map(|name| name.trim().to_owned()).collect() },
        }
    }

    fn hold(&self, rule: Rule) -> bool {
        self.all || self.names.contains(rule.name())
    }
}

impl CheckOptions {
    /// Reads options.
    ///
    /// # Errors
    ///
    /// What is wrong with them.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut options = Self::default();
        if text.trim().is_empty() {
            return Ok(options);
        }
        for part in text.trim().splitn(3, ';') {
            let (key, value) = part.split_once('=').ok_or_else(|| format!("invalid check option `{part}`"))?;
            match key.trim() {
                "skip" => options.skip = Names::parse(value),
                "experimental" => options.experimental = Names::parse(value),
                "error" => {
                    options.error = truth(value.trim())
                        .ok_or_else(|| format!("invalid check option `{part}`: expected `true` or `false`"))?;
                }
                other => return Err(format!("invalid check option `{other}`")),
            }
        }
        Ok(options)
    }

    /// The options of a file. `argument` is what the build argument `BUILDKIT_DOCKERFILE_CHECK` says; the file's own
    /// `# check=` is not even read then.
    ///
    /// # Errors
    ///
    /// What cannot be read, at its place.
    pub fn of(file: &Dockerfile, argument: Option<&str>) -> Result<Self, Problem> {
        let (text, span, name) = match (argument.filter(|text| !text.is_empty()), &file.directives.check) {
            (Some(text), _) => (text, Span::default(), "build argument `BUILDKIT_DOCKERFILE_CHECK`"),
            (None, Some(word)) => (first_word(&word.text), word.span, "`# check=`"),
            (None, None) => return Ok(Self::default()),
        };
        Self::parse(text).map_err(|message| {
            Problem::error(span, format!("{name}: {message}"))
                .hint("write `skip=NAME,NAME` or `skip=all`, `experimental=NAME`, `error=true`, with `;` between them")
        })
    }

    /// Names that no check has, each with the nearest that one has.
    #[must_use]
    pub fn unknown(&self) -> Vec<(&str, Option<&'static str>)> {
        let names = self.skip.names.union(&self.experimental.names);
        let unknown = names.filter(|name| !name.is_empty() && Rule::all().all(|rule| rule.name() != name.as_str()));
        unknown.map(|name| (name.as_str(), nearest(name, Rule::all().map(Rule::name)))).collect()
    }

    /// Whether a problem is to be shown: errors always, and what is no check.
    #[must_use]
    pub fn show(&self, file: &Dockerfile, problem: &Problem) -> bool {
        let Some(rule) = problem.check else { return true };
        if problem.is_error() {
            return true;
        }
        let said = match rule.is_of_an_instruction() {
            true => file.instruction_at(problem.judged_at).and_then(|at| of_comments(&at.comments)),
            false => None,
        };
        let held = |names: fn(&Self) -> &Names| {
            names(self).hold(rule) || said.as_ref().is_some_and(|said| names(said).hold(rule))
        };
        match rule.is_experimental() {
            true => held(|options| &options.experimental),
            false => !held(|options| &options.skip),
        }
    }
}

/// What the comments before an instruction say; of several, the first. What cannot be read says nothing.
fn of_comments(comments: &[String]) -> Option<CheckOptions> {
    let found = comments.iter().filter_map(|comment| as_directive(comment)).find(|(key, _)| *key == "check");
    found.and_then(|(_, value)| CheckOptions::parse(first_word(value)).ok())
}

/// What stands behind a blank is a remark.
fn first_word(value: &str) -> &str {
    value.split(' ').next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::super::super::parse;
    use super::*;

    #[test]
    fn options_of_each_form() {
        let shown = |text: &str| {
            CheckOptions::parse(text).map(|found| {
                let names = |names: &Names| {
                    if names.all { "all".to_owned() } else { names.names.iter().cloned().collect::<Vec<_>>().join("+") }
                };
                format!("skip {} experimental {} error {}", names(&found.skip), names(&found.experimental), found.error)
            })
        };
        assert_eq!(shown(""), Ok("skip  experimental  error false".to_owned()));
        assert_eq!(shown("skip=all"), Ok("skip all experimental  error false".to_owned()));
        assert_eq!(shown("skip=A, B;error=T"), Ok("skip A+B experimental  error true".to_owned()));
        assert_eq!(shown("error=0; experimental=all ;skip=B"), Ok("skip B experimental all error false".to_owned()));
        assert_eq!(shown("skip"), Err("invalid check option `skip`".to_owned()));
        assert_eq!(shown("x=1"), Err("invalid check option `x`".to_owned()));
        assert_eq!(shown("error=yes"), Err("invalid check option `error=yes`: expected `true` or `false`".to_owned()));
        assert!(shown("skip=A;error=1;experimental=B;skip=C").is_ok_and(|text| text.contains("experimental B;skip=C")));
    }

    fn rules(text: &str, argument: Option<&str>) -> Vec<&'static str> {
        let (file, problems) = parse(text);
        let options = CheckOptions::of(&file, argument).unwrap();
        let shown = problems.iter().filter(|problem| options.show(&file, problem));
        shown.filter_map(|problem| problem.check.map(Rule::name)).collect()
    }

    #[test]
    fn a_check_is_skipped_by_the_file_by_the_argument_and_by_a_comment() {
        assert_eq!(rules("FROM a as B\n", None), ["FromAsCasing", "StageNameCasing"]);
        assert_eq!(rules("# check=skip=FromAsCasing\nFROM a as B\n", None), ["StageNameCasing"]);
        assert_eq!(rules("# CHECK = skip=all a remark\nFROM a as B\n", None), [""; 0]);
        assert_eq!(rules("# check=skip=all\nFROM a as B\n", Some("skip=FromAsCasing")), ["StageNameCasing"]);
        assert_eq!(rules("\n# check=skip=FromAsCasing\n\n# more\nFROM a as B\n", None), ["StageNameCasing"]);
        assert_eq!(rules("\n# check=skip=all\nFROM a as b\nMAINTAINER c\n", None), ["MaintainerDeprecated"]);
        assert_eq!(
            rules("FROM a AS b\n# check=skip=all\nfrom a as b\n", None),
            ["ConsistentInstructionCasing", "DuplicateStageName"]
        );
        assert_eq!(rules("FROM a as B\n", Some("skip=StageNameCasing;error=true")), ["FromAsCasing"]);
    }

    #[test]
    fn an_experimental_check_is_asked_for() {
        let file = "# b is fine\nARG b\n# other words\nFROM x AS y\n";
        assert_eq!(rules(file, None), [""; 0]);
        assert_eq!(rules(file, Some("experimental=all")), ["InvalidDefinitionDescription"]);
        assert_eq!(
            rules(file, Some("experimental=InvalidDefinitionDescription;skip=all")),
            ["InvalidDefinitionDescription"]
        );
    }

    #[test]
    fn what_cannot_be_read_is_shown_at_its_place() {
        let (file, _) = parse("# check=skp=A\nFROM x\n");
        let problem = CheckOptions::of(&file, None).unwrap_err();
        assert_eq!(
            (problem.span.start.line, problem.to_string().as_str()),
            (1, "`# check=`: invalid check option `skp`")
        );
        assert!(CheckOptions::of(&file, Some("x")).unwrap_err().to_string().contains("BUILDKIT_DOCKERFILE_CHECK"));
    }
}

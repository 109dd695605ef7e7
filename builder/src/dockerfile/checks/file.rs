//! The checks that need nothing but the text.

use std::collections::BTreeSet;

use super::super::instruction::{Command, Dockerfile, Instruction, Stage};
use super::super::problem::Problem;
use super::rules::Rule;

/// Names that mean something else.
const RESERVED: [&str; 2] = ["scratch", "context"];

/// Adds what the file as it was read shows.
pub(in super::super) fn check_file(file: &Dockerfile, problems: &mut Vec<Problem>) {
    for instruction in &file.global_args {
        check_description_of_arguments(instruction, problems);
    }
    for stage in &file.stages {
        check_stage(stage, problems);
        for instruction in &stage.instructions {
            check_description_of_arguments(instruction, problems);
            if let Command::Maintainer(_) = instruction.command {
                let message = "Maintainer instruction is deprecated in favor of using label";
                let problem = Problem::warning(instruction.span, Rule::MaintainerDeprecated, message);
                problems.push(problem.hint("use `LABEL org.opencontainers.image.authors=...`"));
            }
        }
    }
    check_names(file, problems);
    check_casing(file, problems);
}

/// `FROM image AS name`: how `AS` and the name are written, and the comment above.
fn check_stage(stage: &Stage, problems: &mut Vec<Problem>) {
    let Some(name) = &stage.name else { return };
    let mut words = stage.from.text.split_whitespace().rev();
    let (typed_name, keyword) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    if !is_lower(typed_name) {
        let message = format!("Stage name '{typed_name}' should be lowercase");
        problems.push(Problem::warning(name.span, Rule::StageNameCasing, message));
    }
    let from = stage.from.typed_name();
    // A `From` is told of by the check of casing, and nothing can match it.
    if (is_lower(from) && !is_lower(keyword)) || (is_upper(from) && !is_upper(keyword)) {
        let message = format!("'{keyword}' and '{from}' keywords' casing do not match");
        problems.push(Problem::warning(stage.from.span, Rule::FromAsCasing, message));
    }
    check_description("FROM", &[name.text.as_str()], &stage.from, problems);
}

fn check_description_of_arguments(instruction: &Instruction, problems: &mut Vec<Problem>) {
    if let Command::Arg(declarations) = &instruction.command {
        let names: Vec<&str> = declarations.iter().map(|declaration| declaration.name.text.as_str()).collect();
        check_description("ARG", &names, instruction, problems);
    }
}

/// A comment directly above is read as a description, which begins with a name.
fn check_description(kind: &str, names: &[&str], instruction: &Instruction, problems: &mut Vec<Problem>) {
    let (Some(comment), Some(first)) = (instruction.comments.last(), names.first()) else { return };
    let named = comment.split(' ').next().unwrap_or_default();
    if names.contains(&named) {
        return;
    }
    let name = if names.len() > 1 { "<arg_key>" } else { first };
    let message = format!("Comment for {kind} should follow the format: `# {name} <description>`");
    problems.push(Problem::warning(instruction.span, Rule::InvalidDefinitionDescription, message));
}

fn check_names(file: &Dockerfile, problems: &mut Vec<Problem>) {
    let mut seen = BTreeSet::new();
    for name in file.stages.iter().filter_map(|stage| stage.name.as_ref()) {
        let text = name.text.as_str();
        if RESERVED.contains(&text) {
            let message = format!("Stage name should not use the same name as reserved stage \"{text}\"");
            problems.push(Problem::warning(name.span, Rule::ReservedStageName, message));
        }
        if !seen.insert(text) {
            let message = format!("Duplicate stage name \"{text}\", stage names should be unique");
            let problem = Problem::warning(name.span, Rule::DuplicateStageName, message);
            problems.push(problem.hint("`COPY --from` takes the last of them"));
        }
    }
}

/// All instructions in small letters, or all in capitals: as most are. `ARG`s before the first `FROM` have no say.
fn check_casing(file: &Dockerfile, problems: &mut Vec<Problem>) {
    let all = || file.stages.iter().flat_map(|stage| std::iter::once(&stage.from).chain(&stage.instructions));
    let count = |is: fn(&str) -> bool| all().filter(|instruction| is(instruction.typed_name())).count();
    let (right, casing): (fn(&str) -> bool, _) = match count(is_lower) > count(is_upper) {
        true => (is_lower, "lowercase"),
        false => (is_upper, "uppercase"),
    };
    for instruction in all().filter(|instruction| !right(instruction.typed_name())) {
        let name = instruction.typed_name();
        let message = format!("Command '{name}' should match the case of the command majority ({casing})");
        problems.push(Problem::warning(instruction.span, Rule::ConsistentInstructionCasing, message));
    }
}

fn is_lower(text: &str) -> bool {
    text == text.to_lowercase()
}

fn is_upper(text: &str) -> bool {
    text == text.to_uppercase()
}

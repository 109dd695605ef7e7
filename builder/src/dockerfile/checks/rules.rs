//! All build checks, by the names that `# check=` knows them by.

/// A build check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "the table below says of each what it is about")]
pub enum Rule {
    StageNameCasing,
    FromAsCasing,
    NoEmptyContinuation,
    ConsistentInstructionCasing,
    DuplicateStageName,
    ReservedStageName,
    JsonArgsRecommended,
    MaintainerDeprecated,
    UndefinedArgInFrom,
    WorkdirRelativePath,
    UndefinedVar,
    MultipleInstructionsDisallowed,
    LegacyKeyValueFormat,
    InvalidBaseImagePlatform,
    RedundantTargetPlatform,
    SecretsUsedInArgOrEnv,
    InvalidDefaultArgInFrom,
    FromPlatformFlagConstDisallowed,
    CopyIgnoredFile,
    InvalidDefinitionDescription,
    ExposeProtoCasing,
    ExposeInvalidFormat,
}

/// What is known of a rule.
struct Row {
    rule: Rule,
    name: &'static str,
    /// The last part of the address that explains it; empty where nothing does.
    page: &'static str,
    description: &'static str,
    scope: Scope,
}

/// What a rule looks at, which is also what can switch it off.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Scope {
    /// The file as a whole: only the file's `# check=` can.
    File,
    /// One instruction: a `# check=skip=` before it can, too.
    Instruction,
    /// One instruction, and only where `experimental=` asks for it.
    Experimental,
}

/// In the order of [`Rule`].
const ROWS: [Row; 22] = [
    row(
        Rule::StageNameCasing,
        "StageNameCasing",
        "stage-name-casing",
        Scope::Instruction,
        "Stage names should be lowercase",
    ),
    row(
        Rule::FromAsCasing,
        "FromAsCasing",
        "from-as-casing",
        Scope::Instruction,
        "The 'as' keyword should match the case of the 'from' keyword",
    ),
    row(
        Rule::NoEmptyContinuation,
        "NoEmptyContinuation",
        "no-empty-continuation",
        Scope::File,
        "Empty continuation lines will become errors in a future release",
    ),
    row(
        Rule::ConsistentInstructionCasing,
        "ConsistentInstructionCasing",
        "consistent-instruction-casing",
        Scope::File,
        "All commands within the Dockerfile should use the same casing (either upper or lower)",
    ),
    row(
        Rule::DuplicateStageName,
        "DuplicateStageName",
        "duplicate-stage-name",
        Scope::File,
        "Stage names should be unique",
    ),
    row(
        Rule::ReservedStageName,
        "ReservedStageName",
        "reserved-stage-name",
        Scope::File,
        "Reserved words should not be used as stage names",
    ),
    row(
        Rule::JsonArgsRecommended,
        "JSONArgsRecommended",
        "json-args-recommended",
        Scope::Instruction,
        "JSON arguments recommended for ENTRYPOINT/CMD to prevent unintended behavior related to OS signals",
    ),
    row(
        Rule::MaintainerDeprecated,
        "MaintainerDeprecated",
        "maintainer-deprecated",
        Scope::Instruction,
        "The MAINTAINER instruction is deprecated, use a label instead to define an image author",
    ),
    row(
        Rule::UndefinedArgInFrom,
        "UndefinedArgInFrom",
        "undefined-arg-in-from",
        Scope::Instruction,
        "FROM command must use declared ARGs",
    ),
    row(
        Rule::WorkdirRelativePath,
        "WorkdirRelativePath",
        "workdir-relative-path",
        Scope::Instruction,
        "Relative workdir without an absolute workdir declared within the build can have unexpected results if the base \
         image changes",
    ),
    row(
        Rule::UndefinedVar,
        "UndefinedVar",
        "undefined-var",
        Scope::Instruction,
        "Variables should be defined before their use",
    ),
    row(
        Rule::MultipleInstructionsDisallowed,
        "MultipleInstructionsDisallowed",
        "multiple-instructions-disallowed",
        Scope::Instruction,
        "Multiple instructions of the same type should not be used in the same stage",
    ),
    row(
        Rule::LegacyKeyValueFormat,
        "LegacyKeyValueFormat",
        "legacy-key-value-format",
        Scope::Instruction,
        "Legacy key/value format with whitespace separator should not be used",
    ),
    row(
        Rule::InvalidBaseImagePlatform,
        "InvalidBaseImagePlatform",
        "",
        Scope::File,
        "Base image platform does not match expected target platform",
    ),
    row(
        Rule::RedundantTargetPlatform,
        "RedundantTargetPlatform",
        "redundant-target-platform",
        Scope::Instruction,
        "Setting platform to predefined $TARGETPLATFORM in FROM is redundant as this is the default behavior",
    ),
    row(
        Rule::SecretsUsedInArgOrEnv,
        "SecretsUsedInArgOrEnv",
        "secrets-used-in-arg-or-env",
        Scope::Instruction,
        "Sensitive data should not be used in the ARG or ENV commands",
    ),
    row(
        Rule::InvalidDefaultArgInFrom,
        "InvalidDefaultArgInFrom",
        "invalid-default-arg-in-from",
        Scope::File,
        "Default value for global ARG results in an empty or invalid base image name",
    ),
    row(
        Rule::FromPlatformFlagConstDisallowed,
        "FromPlatformFlagConstDisallowed",
        "from-platform-flag-const-disallowed",
        Scope::Instruction,
        "FROM --platform flag should not use a constant value",
    ),
    row(
        Rule::CopyIgnoredFile,
        "CopyIgnoredFile",
        "copy-ignored-file",
        Scope::Instruction,
        "Attempting to Copy file that is excluded by .dockerignore",
    ),
    row(
        Rule::InvalidDefinitionDescription,
        "InvalidDefinitionDescription",
        "invalid-definition-description",
        Scope::Experimental,
        "Comment for build stage or argument should follow the format: `# <arg/stage name> <description>`. If this is not \
         intended to be a description comment, add an empty line or comment between the instruction and the comment.",
    ),
    row(
        Rule::ExposeProtoCasing,
        "ExposeProtoCasing",
        "expose-proto-casing",
        Scope::Instruction,
        "Protocol in EXPOSE instruction should be lowercase",
    ),
    row(
        Rule::ExposeInvalidFormat,
        "ExposeInvalidFormat",
        "expose-invalid-format",
        Scope::Instruction,
        "IP address and host-port mapping should not be used in EXPOSE instruction. This will become an error in a future \
         release",
    ),
];

const fn row(rule: Rule, name: &'static str, page: &'static str, scope: Scope, description: &'static str) -> Row {
    Row { rule, name, page, description, scope }
}

impl Rule {
    /// All of them.
    pub fn all() -> impl Iterator<Item = Self> {
        ROWS.iter().map(|row| row.rule)
    }

    fn row(self) -> &'static Row {
        // The order is the same; a test holds it.
        &ROWS[self as usize]
    }

    /// Its name in `# check=`, and in front of its messages.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.row().name
    }

    /// What it is about, in a sentence.
    #[must_use]
    pub fn description(self) -> &'static str {
        self.row().description
    }

    /// Where it is explained; empty where nothing explains it.
    #[must_use]
    pub fn url(self) -> String {
        match self.row().page {
            "" => String::new(),
            page => format!("https://docs.docker.com/go/dockerfile/rule/{page}/"),
        }
    }

    /// Whether it is made only where `experimental=` asks for it.
    #[must_use]
    pub fn is_experimental(self) -> bool {
        self.row().scope == Scope::Experimental
    }

    /// Whether comments before an instruction have a say in it.
    #[must_use]
    pub fn is_of_an_instruction(self) -> bool {
        self.row().scope != Scope::File
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_in_the_order_of_the_rules() {
        for (index, row) in ROWS.iter().enumerate() {
            assert_eq!(row.rule as usize, index, "{}", row.name);
            assert_eq!(format!("{:?}", row.rule).to_lowercase(), row.name.to_lowercase());
        }
        let experimental: Vec<&str> = Rule::all().filter(|rule| rule.is_experimental()).map(Rule::name).collect();
        assert_eq!(experimental, ["InvalidDefinitionDescription"]);
    }
}

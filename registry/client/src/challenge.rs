//! What a registry asks for: the `WWW-Authenticate` header, and the scopes of its tokens.
//!
//! Pure. The grammar is RFC 9110, 11.6.1; the parameters of `Bearer` are the distribution project's
//! "Token Authentication Specification".

use std::collections::BTreeSet;
use std::fmt;

/// One way to authenticate that a registry offers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Challenge {
    /// User name and password with each request.
    Basic,
    /// A token from `realm`.
    Bearer { realm: String, service: Option<String>, scope: Option<String>, error: Option<String> },
    /// Something else, by its name.
    Other(String),
}

/// Reads one header value, which may hold several challenges. What it cannot read it leaves out.
pub(crate) fn parse(value: &str) -> Vec<Challenge> {
    let mut challenges = Vec::new();
    let mut rest = value;
    let mut current: Option<(String, Vec<(String, String)>)> = None;
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        if rest.is_empty() {
            break;
        }
        let end = rest.find(|c: char| !is_token_char(c)).unwrap_or(rest.len());
        if end == 0 {
            // Not a token: nothing to be understood from here to the next comma.
            rest = rest.find(',').map_or("", |comma| &rest[comma..]);
            continue;
        }
        let (word, after) = rest.split_at(end);
        let spaced = after.trim_start_matches([' ', '\t']);
        match (spaced.strip_prefix('='), &mut current) {
            (Some(text), Some((_, parameters))) => {
                let (parameter, left) = parameter_value(text.trim_start_matches([' ', '\t']));
                parameters.push((word.to_ascii_lowercase(), parameter));
                rest = left;
            }
            (Some(text), None) => rest = parameter_value(text.trim_start_matches([' ', '\t'])).1,
            (None, _) => {
                challenges.extend(current.take().map(finish));
                current = Some((word.to_owned(), Vec::new()));
                rest = after;
            }
        }
    }
    challenges.extend(current.map(finish));
    challenges
}

fn is_token_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c)
}

/// A quoted string or a token, and what follows it.
fn parameter_value(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([',', ' ', '\t']).unwrap_or(text.len());
        return (text[..end].to_owned(), &text[end..]);
    };
    let mut value = String::new();
    let mut escaped = false;
    for (at, c) in quoted.char_indices() {
        match c {
            _ if escaped => {
                value.push(c);
                escaped = false;
            }
            '\\' => escaped = true,
            '"' => return (value, &quoted[at + 1..]),
            c => value.push(c),
        }
    }
    (value, "")
}

fn finish((scheme, parameters): (String, Vec<(String, String)>)) -> Challenge {
    let find = |name: &str| parameters.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
    if scheme.eq_ignore_ascii_case("basic") {
        return Challenge::Basic;
    }
    if scheme.eq_ignore_ascii_case("bearer")
        && let Some(realm) = find("realm")
    {
        return Challenge::Bearer { realm, service: find("service"), scope: find("scope"), error: find("error") };
    }
    Challenge::Other(scheme)
}

/// A set of permissions, one `type:name:actions` per resource; asking twice for the same resource joins the actions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct ScopeSet(BTreeSet<(String, String)>);

impl ScopeSet {
    /// Reading from a repository.
    pub(crate) fn pull(repository: &str) -> Self {
        Self::default().with(repository, &["pull"])
    }

    /// Writing to a repository; registries ask for `pull` with it.
    pub(crate) fn push(repository: &str) -> Self {
        Self::default().with(repository, &["pull", "push"])
    }

    /// The same and reading from one more repository, as a mount needs it.
    pub(crate) fn and_pull(self, repository: &str) -> Self {
        self.with(repository, &["pull"])
    }

    fn with(mut self, repository: &str, actions: &[&str]) -> Self {
        let resource = format!("repository:{repository}");
        self.0.extend(actions.iter().map(|action| (resource.clone(), (*action).to_owned())));
        self
    }

    /// Adds what a challenge names: scopes apart by spaces, actions by commas. What is no scope is left out.
    pub(crate) fn join(&mut self, text: &str) {
        for scope in text.split_ascii_whitespace() {
            if let Some((resource, actions)) = scope.rsplit_once(':').filter(|(resource, _)| resource.contains(':')) {
                self.0.extend(
                    actions
                        .split(',')
                        .filter(|action| !action.is_empty())
                        .map(|action| (resource.to_owned(), action.to_owned())),
                );
            }
        }
    }

    /// Whether a token for `self` is good for `needed`.
    pub(crate) fn covers(&self, needed: &Self) -> bool {
        needed.0.is_subset(&self.0)
    }

    /// One text per resource, sorted.
    pub(crate) fn texts(&self) -> Vec<String> {
        let mut texts: Vec<String> = Vec::new();
        let mut last: Option<&str> = None;
        for (resource, action) in &self.0 {
            match texts.last_mut() {
                Some(text) if last == Some(resource) => {
                    text.push(',');
                    text.push_str(action);
                }
                _ => texts.push(format!("{resource}:{action}")),
            }
            last = Some(resource);
        }
        texts
    }
}

impl fmt::Display for ScopeSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.texts().join(" "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn outline(value: &str) -> String {
        parse(value)
            .into_iter()
            .map(|challenge| match challenge {
                Challenge::Basic => "basic".to_owned(),
                Challenge::Bearer { realm, service, scope, error } => format!(
                    "bearer realm={realm} service={} scope={} error={}",
                    service.as_deref().unwrap_or("-"),
                    scope.as_deref().unwrap_or("-"),
                    error.as_deref().unwrap_or("-")
                ),
                Challenge::Other(name) => format!("other {name}"),
            })
            .collect::<Vec<_>>()
            .join("; ")
    }

    #[test]
    fn challenges_of_real_registries_are_read() {
        let table = [
            (
                r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:library/alpine:pull""#,
                "bearer realm=https://auth.docker.io/token service=registry.docker.io scope=repository:library/alpine:pull error=-",
            ),
            (
                r#"Bearer realm="https://a/token", service="s", scope="repository:a/b:pull,push", error="insufficient_scope""#,
                "bearer realm=https://a/token service=s scope=repository:a/b:pull,push error=insufficient_scope",
            ),
            (r#"Basic realm="Registry""#, "basic"),
            ("basic", "basic"),
            (r#"BEARER  REALM = "https://a/t" , Service=s"#, "bearer realm=https://a/t service=s scope=- error=-"),
            (
                r#"Basic realm="a, b", Bearer realm="https://a/t""#,
                "basic; bearer realm=https://a/t service=- scope=- error=-",
            ),
            (r#"Negotiate, Basic realm="x""#, "other Negotiate; basic"),
            (r#"Bearer realm="https://a/\"t\"""#, r#"bearer realm=https://a/"t" service=- scope=- error=-"#),
            (r#"Bearer service="no realm""#, "other Bearer"),
            (r#"Bearer realm="unclosed"#, "bearer realm=unclosed service=- scope=- error=-"),
            ("", ""),
            (", ,", ""),
            ("=x", ""),
            (r#"realm="x""#, ""),
        ];
        for (value, expected) in table {
            assert_eq!(outline(value), expected, "{value}");
        }
    }

    #[test]
    fn scopes_are_joined() {
        let mut scopes = ScopeSet::push("a/b").and_pull("c/d");
        assert_eq!(scopes.to_string(), "repository:a/b:pull,push repository:c/d:pull");
        scopes.join("repository:a/b:pull,delete registry:catalog:* nonsense also:nonsense repository:host:5000/x:pull");
        let expected = [
            "registry:catalog:*",
            "repository:a/b:delete,pull,push",
            "repository:c/d:pull",
            "repository:host:5000/x:pull",
        ];
        assert_eq!(scopes.texts(), expected);
        assert!(ScopeSet::push("a").covers(&ScopeSet::pull("a")));
        assert!(!ScopeSet::pull("a").covers(&ScopeSet::push("a")));
        assert!(!ScopeSet::push("a").covers(&ScopeSet::pull("b")));
    }

    proptest! {
        #[test]
        fn any_header_gives_an_answer(value in "\\PC{0,200}") {
            let _ = parse(&value);
        }

        #[test]
        fn near_misses_give_an_answer(value in "(Bearer|Basic|realm|=|\"|\\\\|,| |x){0,40}") {
            let _ = parse(&value);
        }

        #[test]
        fn what_is_quoted_is_read_back(realm in "[ -~]{1,40}", scope in "[ -~]{0,40}") {
            let quote = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"");
            let value = format!("Bearer realm=\"{}\",scope=\"{}\"", quote(&realm), quote(&scope));
            prop_assert_eq!(parse(&value), vec![Challenge::Bearer { realm, service: None, scope: Some(scope), error: None }]);
        }
    }
}

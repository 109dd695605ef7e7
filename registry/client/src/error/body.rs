//! The error bodies of the distribution specification ("Error Codes").

use std::fmt;

use serde::Deserialize;

use crate::quote::clean;

/// Most messages of one answer that are kept.
const MESSAGES_MAX: usize = 5;

/// One error of a registry's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegistryMessage {
    /// The specification's code, such as `MANIFEST_UNKNOWN`; empty when the answer was no JSON.
    pub code: String,
    /// The registry's words, without control characters.
    pub message: String,
}

/// What a registry said, ready to be put behind a message of ours.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Said(Vec<RegistryMessage>);

#[derive(Deserialize)]
struct Body {
    errors: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    #[serde(default)]
    code: serde_json::Value,
    #[serde(default)]
    message: Option<String>,
    #[serde(default)]
    detail: serde_json::Value,
}

/// Other servers' forms: token services and proxies.
#[derive(Deserialize)]
struct OtherBody {
    #[serde(alias = "error_description", alias = "details", alias = "error")]
    message: String,
}

impl Said {
    /// Reads an error body. Anything is accepted: text is shortened, a page of HTML is left out.
    pub(crate) fn read(body: &[u8]) -> Self {
        if let Ok(body) = serde_json::from_slice::<Body>(body) {
            let entries = body.errors.into_iter().take(MESSAGES_MAX);
            return Self(
                entries
                    .map(|entry| RegistryMessage { code: clean(&scalar(&entry.code)), message: entry.text() })
                    .collect(),
            );
        }
        let text = match serde_json::from_slice::<OtherBody>(body) {
            Ok(other) => other.message,
            Err(_) => String::from_utf8_lossy(body).into_owned(),
        };
        let message = clean(&text);
        if message.is_empty() || message.starts_with('<') {
            return Self::default();
        }
        Self(vec![RegistryMessage { code: String::new(), message }])
    }

    /// The single messages.
    #[must_use]
    pub fn messages(&self) -> &[RegistryMessage] {
        &self.0
    }

    /// Whether one of the errors has that code of the specification.
    #[must_use]
    pub fn has_code(&self, code: &str) -> bool {
        self.0.iter().any(|message| message.code == code)
    }
}

impl Entry {
    fn text(&self) -> String {
        let message = self.message.as_deref().map(clean).unwrap_or_default();
        match &self.detail {
            serde_json::Value::String(detail) if !detail.is_empty() && !message.contains(detail.as_str()) => {
                let detail = clean(detail);
                if message.is_empty() { detail } else { format!("{message} ({detail})") }
            }
            _ => message,
        }
    }
}

fn scalar(value: &serde_json::Value) -> String {
    match value {
        serde_json::Value::String(text) => text.clone(),
        serde_json::Value::Number(number) => number.to_string(),
        _ => String::new(),
    }
}

impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let texts: Vec<String> = self
            .0
            .iter()
            .map(|RegistryMessage { code, message }| match (code.is_empty(), message.is_empty()) {
                (false, false) => format!("{code}: {message}"),
                (false, true) => code.clone(),
                (true, _) => message.clone(),
            })
            .filter(|text| !text.is_empty())
            .collect();
        if texts.is_empty() {
            return Ok(());
        }
        write!(f, " (it says: {})", texts.join("; "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(body: &str) -> String {
        Said::read(body.as_bytes()).to_string()
    }

    #[test]
    fn bodies_of_all_sorts_are_read() {
        assert_eq!(said(r#"{"errors":[{"code":"DENIED","message":"no","detail":null}]}"#), " (it says: DENIED: no)");
        assert_eq!(
            said(r#"{"errors":[{"code":"A"},{"message":"b","detail":"because"}]}"#),
            " (it says: A; b (because))"
        );
        assert_eq!(said(r#"{"errors":[]}"#), "");
        assert_eq!(
            said(r#"{"details":"incorrect username or password"}"#),
            " (it says: incorrect username or password)"
        );
        assert_eq!(said(r#"{"error":"invalid_grant"}"#), " (it says: invalid_grant)");
        assert_eq!(said("404 page not found\n"), " (it says: 404 page not found)");
        assert_eq!(said("<html><body>Bad Gateway"), "");
        assert_eq!(said("\u{1b}[31mred\nline"), " (it says:  [31mred line)");
        assert_eq!(said(""), "");
        assert!(said(&"x".repeat(5000)).chars().count() < 450);
    }

    proptest::proptest! {
        #[test]
        fn any_body_gives_one_harmless_line(body in proptest::collection::vec(proptest::num::u8::ANY, 0..300)) {
            proptest::prop_assert!(!Said::read(&body).to_string().chars().any(char::is_control));
        }
    }
}

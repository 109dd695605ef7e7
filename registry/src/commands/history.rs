//! `history`: what a tag was.

use std::process::ExitCode;

use fluyt_registry::admin::{State, Value};

use super::open::open_to_read;
use super::{Failure, print};
use crate::settings::History;

pub(crate) async fn run(settings: History) -> Result<ExitCode, Failure> {
    let admin = open_to_read(&settings.store).await?;
    let history = admin.history(&settings.of.repo, &settings.of.tag).await?;
    if settings.json {
        print::json(&history)?;
    } else {
        let head = ["id", "written", "by", "digest", "what became of it"].map(str::to_owned).to_vec();
        let rows = history.values.iter().map(|value| {
            let by = value.by.clone().unwrap_or_else(|| "-".into());
            vec![value.id.clone(), value.time.clone(), by, print::short(&value.digest), became(value)]
        });
        print::table(&[head].into_iter().chain(rows).collect::<Vec<_>>());
    }
    Ok(ExitCode::SUCCESS)
}

fn became(value: &Value) -> String {
    let by = |by: &Option<String>| by.as_ref().map(|by| format!(" by {by}")).unwrap_or_default();
    let state = match (value.state, &value.ended) {
        (State::Current, _) => "current".to_owned(),
        (State::Unpublished, _) => "never published: its push broke off".to_owned(),
        (State::Refused, _) => "refused: the tag is immutable".to_owned(),
        (State::Past, Some(ended)) => match &ended.by_value {
            Some(value) => format!("until {}, then {value}", ended.time),
            None => format!("until {}, then the tag was deleted{}", ended.time, by(&ended.by)),
        },
        (State::Past, None) => "ended; when is not known any more".to_owned(),
    };
    if value.there { state } else { format!("{state}; its manifest is gone") }
}

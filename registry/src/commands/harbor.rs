//! What tags there are, by a Harbor's API (`/api/v2.0`).
//!
//! Harbor's registry is CNCF distribution, so `adopt` reads its store. A push writes the tag there too, but a tag that is
//! deleted, added or moved by Harbor itself (its pages, retention, replication) changes in its database alone: that is
//! what is asked. Everything is asked before anything is taken over.

use std::time::SystemTime;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use fluyt_client::{Client, Environment, FileAnswer, FileRequest, Settings};
use fluyt_registry::adopt::TagsBy;
use fluyt_registry::storage::{AdoptedTag, StoreTime};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::Failure;
use crate::settings::Adopt;

/// So many are asked for; how many come at most is the server's to say.
const PAGE_ITEMS: usize = 100;
/// No page of that many artifacts comes near.
const PAGE_MAX_BYTES: usize = 64 * 1024 * 1024;

#[derive(Deserialize)]
struct Named {
    name: String,
}

#[derive(Deserialize)]
struct Artifact {
    digest: String,
    /// `null` where there is none.
    tags: Option<Vec<Tag>>,
}

#[derive(Deserialize)]
struct Tag {
    name: String,
    push_time: Option<String>,
}

/// All tags of all repositories that the user may see.
pub(super) async fn tags(address: &str, settings: &Adopt) -> Result<TagsBy, Failure> {
    let password = settings.tags_password().map_err(|error| {
        let path = settings.tags_password_file.as_deref().unwrap_or("".as_ref()).display();
        Failure::User(format!("cannot read the password of Harbor's user from {path}: {error}").into())
    })?;
    let authorization = match (&settings.tags_user, password) {
        (Some(user), Some(password)) => Some(format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))),
        (None, None) => None,
        _ => return Err(Failure::User("Harbor is asked by a user with a password, or by nobody: give both".into())),
    };
    let transport = Settings { environment: Environment::from_process(), ..Settings::default() };
    let client = Client::new(transport).map_err(|error| Failure::User(error.into()))?;
    let harbor = Harbor { client, base: format!("{}/api/v2.0", address.trim_end_matches('/')), authorization };
    let mut found = TagsBy::new();
    for project in harbor.all::<Named>("/projects", "with_detail=false").await? {
        let project = project.name;
        for repository in harbor.all::<Named>(&format!("/projects/{project}/repositories"), "").await? {
            let name = repository.name;
            let inside = name.strip_prefix(&format!("{project}/")).unwrap_or(&name);
            // Encoded twice: the proxy before Harbor decodes once.
            let path = format!("/projects/{project}/repositories/{}/artifacts", inside.replace('/', "%252F"));
            let mut tags = Vec::new();
            for artifact in harbor.all::<Artifact>(&path, "with_tag=true").await? {
                let digest = artifact.digest.parse().map_err(|_| {
                    Failure::User(format!("Harbor names `{}` in {name}, which is no digest", artifact.digest).into())
                })?;
                tags.extend(artifact.tags.into_iter().flatten().map(|tag| AdoptedTag {
                    name: tag.name,
                    digest: Clone::clone(&digest),
                    since: moment(tag.push_time.as_deref()),
                }));
            }
            found.insert(name, tags);
        }
    }
    Ok(found)
}

/// RFC 3339. It is for people to read: one that cannot be read is no reason to leave the tag behind.
fn moment(text: Option<&str>) -> SystemTime {
    let moment = text.and_then(|text| text.parse::<jiff::Timestamp>().ok());
    StoreTime(moment.map_or(0, |moment| moment.as_millisecond())).into()
}

struct Harbor {
    client: Client,
    base: String,
    authorization: Option<String>,
}

impl Harbor {
    /// Every page of a list: the first without items is behind the last.
    async fn all<T: DeserializeOwned>(&self, path: &str, more: &str) -> Result<Vec<T>, Failure> {
        let mut all = Vec::new();
        for page in 1.. {
            let url = format!("{}{path}?page={page}&page_size={PAGE_ITEMS}&{more}", self.base);
            let items: Vec<T> = self.page(url.trim_end_matches('&')).await?;
            if items.is_empty() {
                break;
            }
            all.extend(items);
        }
        Ok(all)
    }

    async fn page<T: DeserializeOwned>(&self, url: &str) -> Result<Vec<T>, Failure> {
        let authorization = self.authorization.clone();
        let request = FileRequest { url: url.to_owned(), authorization, ..FileRequest::default() };
        let answer = self.client.file(&request, &mut || Ok(Page(Vec::new())), &|_, _| {}).await;
        let page = match answer.map_err(|error| Failure::User(Box::new(error)))? {
            FileAnswer::File { sink, .. } => sink.0,
            FileAnswer::Unchanged => Vec::new(),
        };
        serde_json::from_slice(&page).map_err(|error| {
            Failure::User(
                format!("what answers at {url} is no Harbor of version 2, or its answer cannot be read: {error}")
                    .into(),
            )
        })
    }
}

/// A page on its way.
struct Page(Vec<u8>);

impl std::io::Write for Page {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if self.0.len() + bytes.len() > PAGE_MAX_BYTES {
            return Err(std::io::Error::other("the answer is longer than any page of Harbor's"));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

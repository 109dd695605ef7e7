//! The orders that write, as commands: done by whoever has the store open, this process or a server.

use async_trait::async_trait;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Admin;
use super::control::{Command, Commands, Order, Progress, Refusal};

/// What an order takes, and what it answers.
pub trait Orderable: Serialize + DeserializeOwned + Send {
    /// The name of the command.
    const NAME: &'static str;
    /// What is done.
    type Answer: Serialize + DeserializeOwned;

    /// As it is sent.
    fn order(&self) -> Result<Order, Refusal> {
        let arguments = serde_json::to_value(self).map_err(Refusal::environment)?;
        Ok(Order { command: Self::NAME.to_owned(), arguments })
    }

    /// Reads the answer to it.
    fn answer(value: Value) -> Result<Self::Answer, Refusal> {
        serde_json::from_value(value).map_err(|error| {
            Refusal::environment(format!("the server's answer is not understood: {error}: is it of another version?"))
        })
    }
}

/// Take everything out of a repository.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DeleteRepository {
    /// Which.
    pub repo: String,
}

impl Orderable for DeleteRepository {
    const NAME: &'static str = "delete-repository";
    type Answer = super::Deleted;
}

/// Give a tag an earlier value again.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct UndoTag {
    /// The repository.
    pub repo: String,
    /// The tag.
    pub tag: String,
    /// The value: an id or a digest; none for the one before.
    pub to: Option<String>,
}

impl Orderable for UndoTag {
    const NAME: &'static str = "undo";
    type Answer = super::Undone;
}

/// Check the store, and repair it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Fsck {
    /// Whether all data is read and compared.
    pub rehash: bool,
}

impl Orderable for Fsck {
    const NAME: &'static str = "fsck";
    type Answer = super::Report;
}

impl Admin {
    /// Everything that can be ordered of this store.
    pub fn commands(&self) -> Commands {
        Commands::default().with(Undoing(self.clone())).with(Mending(self.clone())).with(Deleting(self.clone()))
    }
}

pub(super) fn taken<T: Orderable>(arguments: Value) -> Result<T, Refusal> {
    serde_json::from_value(arguments).map_err(|error| {
        Refusal::user(format!(
            "the arguments of `{}` are not understood: {error}: is the server of another version?",
            T::NAME
        ))
    })
}

pub(super) fn given(answer: impl Serialize) -> Result<Value, Refusal> {
    serde_json::to_value(answer).map_err(Refusal::environment)
}

struct Deleting(Admin);

#[async_trait]
impl Command for Deleting {
    fn name(&self) -> &'static str {
        DeleteRepository::NAME
    }

    async fn run(&self, arguments: Value, progress: &Progress) -> Result<Value, Refusal> {
        let order: DeleteRepository = taken(arguments)?;
        let repo = order.repo.parse().map_err(Refusal::user)?;
        given(self.0.delete_repository(&repo, progress).await?)
    }
}

struct Undoing(Admin);

#[async_trait]
impl Command for Undoing {
    fn name(&self) -> &'static str {
        UndoTag::NAME
    }

    async fn run(&self, arguments: Value, _: &Progress) -> Result<Value, Refusal> {
        let order: UndoTag = taken(arguments)?;
        let repo = order.repo.parse().map_err(Refusal::user)?;
        let tag = order.tag.parse().map_err(Refusal::user)?;
        given(self.0.undo(&repo, &tag, order.to.as_deref()).await?)
    }
}

struct Mending(Admin);

#[async_trait]
impl Command for Mending {
    fn name(&self) -> &'static str {
        Fsck::NAME
    }

    async fn run(&self, arguments: Value, progress: &Progress) -> Result<Value, Refusal> {
        let order: Fsck = taken(arguments)?;
        let plan = super::FsckPlan { rehash: order.rehash, repair: true };
        given(self.0.fsck(plan, progress).await?)
    }
}

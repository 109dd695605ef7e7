//! Images to registries: blobs first, the manifest last, so that nobody sees half an image.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{self, Seek as _, SeekFrom};
use std::sync::{Arc, Mutex, PoisonError};

use fluyt_client::{Blob, ClientError, Pushed, Reference};
use oci_spec::image::{Descriptor, Digest, ImageManifest};
use tokio::sync::OnceCell;

use super::{DEPTH_MAX, Remote, RemoteError, places};
use crate::event::{Event, StepId};
use crate::image::{DOCUMENT_SIZE_MAX_BYTES, Manifest, manifest, media_type};
use crate::task::given;

/// Where blobs can be had that the store need not have: layers of base images.
pub type Origins = HashMap<Digest, Reference>;

/// Blobs on their way into repositories. Clones share what they have sent: each blob goes to each repository once,
/// however many tags and however many callers want it there.
#[derive(Clone, Debug)]
pub struct Uploads {
    remote: Remote,
    sent: Arc<Mutex<HashMap<(String, Digest), Sent>>>,
}

/// Filled once the blob is there.
type Sent = Arc<OnceCell<()>>;

impl Remote {
    /// Uploads that remember what they sent.
    #[must_use]
    pub fn uploads(&self) -> Uploads {
        Uploads { remote: self.clone(), sent: Arc::default() }
    }

    /// Pushes one image to one name; see [`Uploads::push`].
    ///
    /// # Errors
    /// Those of [`Uploads::push`].
    pub async fn push(
        &self,
        image: &Descriptor,
        target: &Reference,
        origins: &Origins,
        step: StepId,
    ) -> Result<Digest, RemoteError> {
        self.uploads().push(image, target, origins, step).await
    }
}

impl Uploads {
    /// Asks whether the repository of `target` takes blobs.
    ///
    /// # Errors
    /// Those of the registry.
    pub async fn check(&self, target: &Reference) -> Result<(), RemoteError> {
        Ok(self.remote.client.check_push(target).await?)
    }

    /// Sees that the repository of `target` has a blob: it may be there, come from another repository of the registry, from
    /// the store, or from its `origin`. Waits for another caller that is at it already.
    ///
    /// # Errors
    /// Those of the registries and of the store; the next caller tries again then.
    pub async fn blob(
        &self,
        target: &Reference,
        blob: Blob,
        origin: Option<Reference>,
        step: StepId,
    ) -> Result<(), RemoteError> {
        let place = (target.name(), blob.digest.clone());
        let cell = {
            let mut sent = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(sent.entry(place).or_default())
        };
        cell.get_or_try_init(|| self.remote.push_blob(target, blob, origin, step)).await.map(|_| ())
    }

    /// Pushes the image that `image` describes to `target`, with all that it names, and gives its digest.
    ///
    /// What the registry has already is not sent; what another of its repositories has is mounted.
    ///
    /// # Errors
    /// Those of the registry and of the store; [`RemoteError::Incomplete`] when a blob is neither here nor at its origin.
    pub async fn push(
        &self,
        image: &Descriptor,
        target: &Reference,
        origins: &Origins,
        step: StepId,
    ) -> Result<Digest, RemoteError> {
        self.push_within(image, target, origins, step, 0).await
    }

    /// Pushes what stands in so many indexes.
    async fn push_within(
        &self,
        image: &Descriptor,
        target: &Reference,
        origins: &Origins,
        step: StepId,
        depth: usize,
    ) -> Result<Digest, RemoteError> {
        let bytes = self.remote.manifest_bytes(image, target)?;
        match parse(&bytes, target)? {
            Manifest::Image(manifest) => self.push_manifest(image, bytes, &manifest, target, origins, step).await,
            Manifest::Index(_) if depth == DEPTH_MAX => {
                let problem = format!("its indexes name each other, more than {DEPTH_MAX} deep");
                Err(RemoteError::Malformed { reference: target.to_string(), problem })
            }
            Manifest::Index(index) => {
                for child in index.manifests() {
                    // Children go by digest; the tag comes last, with the index.
                    let child_target = target.with_digest(child.digest());
                    Box::pin(self.push_within(child, &child_target, origins, step, depth + 1)).await?;
                }
                self.remote.put(image, bytes, target).await
            }
        }
    }

    async fn push_manifest(
        &self,
        image: &Descriptor,
        bytes: Vec<u8>,
        manifest: &ImageManifest,
        target: &Reference,
        origins: &Origins,
        step: StepId,
    ) -> Result<Digest, RemoteError> {
        let mut seen = HashSet::new();
        let mut running = tokio::task::JoinSet::new();
        for descriptor in manifest.layers().iter().chain([manifest.config()]) {
            // Layers that may not be distributed stay where their urls say.
            if media_type::is_foreign(descriptor.media_type()) || !seen.insert(descriptor.digest().clone()) {
                continue;
            }
            let (uploads, target, origin) = (self.clone(), target.clone(), origins.get(descriptor.digest()).cloned());
            let blob = Blob { digest: descriptor.digest().clone(), size_bytes: descriptor.size() };
            // The client bounds how many of these are under way.
            running.spawn(async move { uploads.blob(&target, blob, origin, step).await });
        }
        while let Some(result) = running.join_next().await {
            given(result)?;
        }
        self.remote.put(image, bytes, target).await
    }
}

impl Remote {
    async fn put(&self, image: &Descriptor, bytes: Vec<u8>, target: &Reference) -> Result<Digest, RemoteError> {
        Ok(self.client.push_manifest(target, image.media_type().as_ref(), bytes.into()).await?)
    }

    async fn push_blob(
        &self,
        target: &Reference,
        blob: Blob,
        origin: Option<Reference>,
        step: StepId,
    ) -> Result<(), RemoteError> {
        let same_registry = origin.as_ref().filter(|origin| origin.host() == target.host());
        let mount_from = same_registry.map(|origin| origin.repository().to_owned());
        let mount_from = mount_from.or_else(|| places::other_repository(&self.store, &blob.digest, target));
        let mount_from: Vec<String> = mount_from.into_iter().collect();
        let (events, what, total_bytes) = (self.events.clone(), format!("pushing {}", blob.digest), blob.size_bytes);
        let progress = move |done_bytes: u64| {
            events.hear(Event::Moved { step, what: what.clone(), done_bytes, total_bytes: Some(total_bytes) });
        };
        if !self.store.contains(&blob.digest) {
            let pushed = match &origin {
                // It passes through memory: nothing here needs it.
                Some(origin) => self.client.copy_blob(origin, target, &blob, &mount_from, &progress).await?,
                None if self.client.has_blob(target, &blob.digest).await? => Pushed::Present,
                None => {
                    return Err(RemoteError::Incomplete {
                        reference: target.to_string(),
                        what: format!("blob {}", blob.digest),
                    });
                }
            };
            tracing::debug!(blob.digest = %blob.digest, ?pushed, "from its origin");
            return Ok(());
        }
        let store = self.store.clone();
        let digest = blob.digest.clone();
        let source = move |offset_bytes: u64| -> io::Result<File> {
            let mut file = store.open_blob(&digest).map_err(io::Error::other)?;
            file.seek(SeekFrom::Start(offset_bytes))?;
            Ok(file)
        };
        let pushed = match self.client.push_blob(target, &blob, &mount_from, source, &progress).await {
            Err(error @ ClientError::Damaged { .. }) => return Err(self.damaged(&blob.digest, error)),
            pushed => pushed?,
        };
        if pushed != Pushed::Uploaded {
            tracing::debug!(blob.digest = %blob.digest, ?pushed, "not sent");
        }
        places::remember(&self.store, &blob, target);
        Ok(())
    }

    /// Reads a blob that is said to be damaged once more by the store itself, which removes it if that is so and says
    /// what to do; else `error` stands.
    fn damaged(&self, digest: &Digest, error: ClientError) -> RemoteError {
        self.store.check(digest).err().map_or_else(|| error.into(), RemoteError::Store)
    }

    fn manifest_bytes(&self, image: &Descriptor, target: &Reference) -> Result<Vec<u8>, RemoteError> {
        if !self.store.contains(image.digest()) {
            return Err(RemoteError::Incomplete {
                reference: target.to_string(),
                what: format!("manifest {}", image.digest()),
            });
        }
        Ok(self.store.read(image.digest(), DOCUMENT_SIZE_MAX_BYTES)?)
    }
}

fn parse(bytes: &[u8], target: &Reference) -> Result<Manifest, RemoteError> {
    manifest::parse(bytes)
        .map_err(|error| RemoteError::Malformed { reference: target.to_string(), problem: error.to_string() })
}

//! Images to registries: blobs first, the manifest last, so that nobody sees half an image.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{self, Seek as _, SeekFrom};

use fluyt_client::{Blob, ClientError, Pushed, Reference};
use oci_spec::image::{Descriptor, Digest, MediaType};

use super::{Remote, RemoteError};
use crate::blob::StoreError;
use crate::event::{Event, StepId};
use crate::image::{Manifest, manifest};

/// Largest manifest that is pushed, in bytes: registries need not take more than 4 MiB, and ours takes 8.
const MANIFEST_SIZE_MAX_BYTES: u64 = 8 * 1024 * 1024;

/// Where blobs can be had that the store need not have: layers of base images.
pub type Origins = HashMap<Digest, Reference>;

impl Remote {
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
        let bytes = self.manifest_bytes(image, target)?;
        if let Manifest::Index(index) = parse(&bytes, target)? {
            for child in index.manifests() {
                // Children go by digest; the tag comes last, with the index.
                let child_target = target.with_digest(child.digest());
                let child_bytes = self.manifest_bytes(child, target)?;
                self.push_manifest(child, child_bytes, &child_target, origins, step).await?;
            }
            return self.put(image, bytes, target).await;
        }
        self.push_manifest(image, bytes, target, origins, step).await
    }

    async fn push_manifest(
        &self,
        image: &Descriptor,
        bytes: Vec<u8>,
        target: &Reference,
        origins: &Origins,
        step: StepId,
    ) -> Result<Digest, RemoteError> {
        let Manifest::Image(manifest) = parse(&bytes, target)? else {
            let problem = "an index of it names another index".to_owned();
            return Err(RemoteError::Malformed { reference: target.to_string(), problem });
        };
        let mut seen = HashSet::new();
        let mut running = tokio::task::JoinSet::new();
        for descriptor in manifest.layers().iter().chain([manifest.config()]) {
            // Layers that may not be distributed stay where their urls say.
            if matches!(descriptor.media_type(), MediaType::ImageLayerNonDistributable)
                || !seen.insert(descriptor.digest().clone())
            {
                continue;
            }
            let (remote, target, origin) = (self.clone(), target.clone(), origins.get(descriptor.digest()).cloned());
            let blob = Blob { digest: descriptor.digest().clone(), size_bytes: descriptor.size() };
            // The client bounds how many of these are under way.
            running.spawn(async move { remote.push_blob(&target, blob, origin, step).await });
        }
        while let Some(result) = running.join_next().await {
            match result {
                Ok(result) => result?,
                Err(error) => std::panic::resume_unwind(error.into_panic()),
            }
        }
        self.put(image, bytes, target).await
    }

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
        if !self.store.contains(&blob.digest) {
            if self.client.has_blob(target, &blob.digest).await? {
                return Ok(());
            }
            if let Some(origin) = same_registry
                && self.client.mount(target, &blob.digest, origin.repository()).await?
            {
                return Ok(());
            }
            let Some(origin) = &origin else {
                return Err(RemoteError::Incomplete {
                    reference: target.to_string(),
                    what: format!("blob {}", blob.digest),
                });
            };
            self.fetch_blob(origin, &blob.digest, blob.size_bytes, step).await?;
        }
        let mount_from: Vec<String> = same_registry.map(|origin| origin.repository().to_owned()).into_iter().collect();
        let store = self.store.clone();
        let digest = blob.digest.clone();
        let source = move |offset_bytes: u64| -> io::Result<File> {
            let mut file = store.open_blob(&digest).map_err(io::Error::other)?;
            file.seek(SeekFrom::Start(offset_bytes))?;
            Ok(file)
        };
        let (events, what, total_bytes) = (self.events.clone(), format!("pushing {}", blob.digest), blob.size_bytes);
        let progress = move |done_bytes: u64| {
            events.hear(Event::Moved { step, what: what.clone(), done_bytes, total_bytes: Some(total_bytes) });
        };
        let pushed = match self.client.push_blob(target, &blob, &mount_from, source, &progress).await {
            Err(error @ ClientError::Damaged { .. }) => return Err(self.damaged(&blob.digest, error)?),
            pushed => pushed?,
        };
        if pushed != Pushed::Uploaded {
            tracing::debug!(blob.digest = %blob.digest, ?pushed, "not sent");
        }
        Ok(())
    }

    /// Reads a blob that is said to be damaged once more by the store itself, which removes it if that is so and says
    /// what to do; else `error` stands.
    fn damaged(&self, digest: &Digest, error: ClientError) -> Result<RemoteError, RemoteError> {
        let read = io::copy(&mut self.store.open_verified(digest)?, &mut io::sink());
        let told = read.err().and_then(|error| error.into_inner()?.downcast::<StoreError>().ok());
        Ok(told.map_or_else(|| error.into(), |told| RemoteError::Store(*told)))
    }

    fn manifest_bytes(&self, image: &Descriptor, target: &Reference) -> Result<Vec<u8>, RemoteError> {
        if !self.store.contains(image.digest()) {
            return Err(RemoteError::Incomplete {
                reference: target.to_string(),
                what: format!("manifest {}", image.digest()),
            });
        }
        Ok(self.store.read(image.digest(), MANIFEST_SIZE_MAX_BYTES)?)
    }
}

fn parse(bytes: &[u8], target: &Reference) -> Result<Manifest, RemoteError> {
    manifest::parse(bytes)
        .map_err(|error| RemoteError::Malformed { reference: target.to_string(), problem: error.to_string() })
}

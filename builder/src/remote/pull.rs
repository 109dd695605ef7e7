//! Images from registries.

use std::io::Write as _;
use std::str::FromStr;

use fluyt_client::{Blob, BlobStream, Manifest as FoundManifest, Reference};
use oci_spec::image::{Descriptor, Digest, ImageIndex, ImageManifest};

use super::{DEPTH_MAX, Remote, RemoteError, places};
use crate::blob::Arriving;
use crate::event::{Event, PULLING, StepId};
use crate::image::{self, DOCUMENT_SIZE_MAX_BYTES, ImageConfig, ImageError, Manifest, Platform, manifest};
use crate::task::{blocking, given};

/// Most manifests that are looked at for one image, where an index does not say what they are for.
const CANDIDATES_MAX: usize = 32;

/// What may be the image, or an index of it.
struct Candidate {
    /// None for what the reference itself names.
    digest: Option<Digest>,
    /// Whether it is taken without asking what it is for, as its index says so.
    is_for_it: bool,
    /// Indexes around it.
    depth: usize,
}

/// An image for one platform as its manifest and configuration say; its layers stay where they are.
#[derive(Clone, Debug)]
pub struct RemoteImage {
    /// Where it was found.
    pub reference: Reference,
    /// Digest of the manifest.
    pub digest: Digest,
    /// Media type of the manifest.
    pub media_type: String,
    /// Length of the manifest.
    pub size_bytes: u64,
    /// The manifest.
    pub manifest: ImageManifest,
    /// The configuration.
    pub config: ImageConfig,
}

impl Remote {
    /// Resolves a reference to the image for `platform`, and keeps its manifest and configuration in the store. Where there is
    /// no index to choose from, the image is taken whatever it is for, as the reference takes it; the caller says so.
    ///
    /// # Errors
    /// Those of the registry; [`RemoteError::NoPlatform`]; [`RemoteError::Malformed`] for what is no image.
    pub async fn image(&self, reference: &Reference, platform: &Platform) -> Result<RemoteImage, RemoteError> {
        let malformed = |problem: String| RemoteError::Malformed { reference: reference.to_string(), problem };
        let mut available = Vec::new();
        // The likeliest last.
        let mut candidates = Vec::new();
        let mut candidate = Candidate { digest: None, is_for_it: true, depth: 0 };
        for _ in 0..CANDIDATES_MAX {
            let at = candidate.digest.as_ref().map(|digest| reference.with_digest(digest));
            let found = self.client.manifest(at.as_ref().unwrap_or(reference), &[]).await?;
            match manifest::parse(&found.bytes).map_err(|error| malformed(error.to_string()))? {
                Manifest::Image(manifest) => match self.of_manifest(reference, found, *manifest).await {
                    Ok(image) if candidate.is_for_it => return Ok(image),
                    Ok(image) => {
                        let said = image.config.platform();
                        if said.as_ref().is_some_and(|said| platform.accepts(said).is_some()) {
                            return Ok(image);
                        }
                        available.extend(said.map(|said| said.to_string()));
                    }
                    // Other things than images stand in indexes too.
                    Err(RemoteError::Malformed { .. }) if !candidate.is_for_it => {}
                    Err(error) => return Err(error),
                },
                Manifest::Index(_) if candidate.depth == DEPTH_MAX => {
                    return Err(malformed(format!("its indexes name each other, more than {DEPTH_MAX} deep")));
                }
                Manifest::Index(index) => {
                    self.store.put(&found.bytes)?;
                    let depth = candidate.depth + 1;
                    match image::select(&index, platform) {
                        Some(row) => {
                            candidates.push(Candidate { digest: Some(row.digest().clone()), is_for_it: true, depth });
                        }
                        None => {
                            available.extend(platforms(&index));
                            let rows = image::without_platform(&index).into_iter().rev();
                            candidates.extend(rows.map(|row| {
                                let digest = Some(row.digest().clone());
                                Candidate { digest, is_for_it: false, depth }
                            }));
                        }
                    }
                }
            }
            let Some(next) = candidates.pop() else { break };
            candidate = next;
        }
        Err(RemoteError::NoPlatform { reference: reference.to_string(), wanted: platform.to_string(), available })
    }

    async fn of_manifest(
        &self,
        reference: &Reference,
        found: FoundManifest,
        manifest: ImageManifest,
    ) -> Result<RemoteImage, RemoteError> {
        let malformed = |problem: String| RemoteError::Malformed { reference: reference.to_string(), problem };
        let unreadable = |error: ImageError| malformed(error.to_string());
        self.store.put(&found.bytes)?;
        let config = manifest::parse_config(&self.config(reference, manifest.config()).await?).map_err(unreadable)?;
        manifest::layers(&manifest, &config).map_err(unreadable)?;
        if let Some(bad) = config.rootfs.diff_ids.iter().find(|id| Digest::from_str(id).is_err()) {
            return Err(malformed(format!("its configuration names the layer `{bad}`, which is no digest")));
        }
        Ok(RemoteImage {
            reference: reference.clone(),
            digest: found.digest,
            media_type: found.media_type,
            size_bytes: found.bytes.len() as u64,
            manifest,
            config,
        })
    }

    async fn config(&self, reference: &Reference, descriptor: &Descriptor) -> Result<Vec<u8>, RemoteError> {
        let digest = descriptor.digest();
        if descriptor.size() > DOCUMENT_SIZE_MAX_BYTES {
            let problem = format!(
                "its configuration has {} bytes; at most {DOCUMENT_SIZE_MAX_BYTES} are read",
                descriptor.size()
            );
            return Err(RemoteError::Malformed { reference: reference.to_string(), problem });
        }
        self.transfer(reference, digest, descriptor.size(), None, None).await?;
        Ok(self.store.read(digest, DOCUMENT_SIZE_MAX_BYTES)?)
    }

    /// Brings a blob into the store, unless it is there; its digest is checked on the way. Who has the other side of
    /// `arriving` reads it meanwhile.
    ///
    /// # Errors
    /// Those of the registry and of the store.
    pub async fn fetch_blob(
        &self,
        reference: &Reference,
        digest: &Digest,
        size_bytes: u64,
        step: StepId,
        arriving: Option<&Arriving>,
    ) -> Result<(), RemoteError> {
        self.transfer(reference, digest, size_bytes, Some(step), arriving).await
    }

    async fn transfer(
        &self,
        reference: &Reference,
        digest: &Digest,
        size_bytes: u64,
        step: Option<StepId>,
        arriving: Option<&Arriving>,
    ) -> Result<(), RemoteError> {
        if self.store.contains(digest) {
            return Ok(());
        }
        let blob = Blob { digest: digest.clone(), size_bytes };
        let mut stream = self.client.blob_stream(reference, &blob).await?;
        if let Err(error) = self.receive(&mut stream, &blob, step, arriving).await {
            if !(stream.is_from_mirror() && error.is_of_the_content()) {
                return Err(error);
            }
            if let Some(arriving) = arriving {
                arriving.spoil();
            }
            self.events.hear(Event::Warning { text: format!("it is fetched from elsewhere: {error}") });
            // Its place among the downloads is needed.
            drop(stream);
            let mut stream = self.client.blob_stream(reference, &blob).await?;
            self.receive(&mut stream, &blob, step, None).await?;
        }
        places::remember(&self.store, &blob, reference);
        Ok(())
    }

    /// Writes into the store what comes, if it is the blob.
    async fn receive(
        &self,
        stream: &mut BlobStream,
        Blob { digest, size_bytes }: &Blob,
        step: Option<StepId>,
        arriving: Option<&Arriving>,
    ) -> Result<(), RemoteError> {
        let mut writer = self.store.writer_for(digest)?;
        if let Some(arriving) = arriving {
            arriving.begin(writer.path()).map_err(|error| writer.failure(error))?;
        }
        let mut done_bytes = 0;
        let moved = |done_bytes| {
            if let Some(step) = step {
                let (what, total_bytes) = (format!("{PULLING}{digest}"), Some(*size_bytes));
                self.events.hear(Event::Moved { step, what, done_bytes, total_bytes });
            }
        };
        moved(0);
        while let Some(bytes) = stream.chunk().await? {
            // Blocks the thread for as long as the disk takes, which is less than handing the bytes over would cost.
            if let Err(error) = writer.write_all(&bytes) {
                return Err(writer.failure(error).into());
            }
            done_bytes += bytes.len() as u64;
            if let Some(arriving) = arriving {
                arriving.here(done_bytes);
            }
            moved(done_bytes);
        }
        // The stream ended, so the client found size and digest right: who reads along need not wait for the disk.
        if let Some(arriving) = arriving {
            arriving.whole();
        }
        let digest = digest.clone();
        blocking(move || writer.commit(Some(&digest))).await?;
        Ok(())
    }

    /// Brings all layers of an image into the store.
    ///
    /// # Errors
    /// Those of the registry and of the store.
    pub async fn fetch_layers(&self, image: &RemoteImage, step: StepId) -> Result<(), RemoteError> {
        let layers = image.manifest.layers().iter();
        let blob = |layer: &Descriptor| Blob { digest: layer.digest().clone(), size_bytes: layer.size() };
        self.fetch_blobs(layers.map(|layer| (image.reference.clone(), blob(layer))), step).await
    }

    /// Brings blobs into the store beside each other.
    ///
    /// # Errors
    /// Those of the registry and of the store; the other transfers are given up then.
    pub async fn fetch_blobs(
        &self,
        blobs: impl Iterator<Item = (Reference, Blob)>,
        step: StepId,
    ) -> Result<(), RemoteError> {
        let mut running = tokio::task::JoinSet::new();
        for (reference, Blob { digest, size_bytes }) in blobs {
            let remote = self.clone();
            // The client bounds how many of these are under way.
            running.spawn(async move { remote.transfer(&reference, &digest, size_bytes, Some(step), None).await });
        }
        while let Some(result) = running.join_next().await {
            given(result)?;
        }
        Ok(())
    }
}

/// The platforms that an index names. Attestations stand in indexes as images for no platform.
fn platforms(index: &ImageIndex) -> impl Iterator<Item = String> {
    let rows = index.manifests().iter().filter_map(|row| row.platform().as_ref());
    rows.map(Platform::from).filter(|row| row.os != "unknown").map(|row| row.to_string())
}

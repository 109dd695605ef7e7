//! The few blobs, images and indexes that all simulations push: few, so that they meet.

use std::sync::LazyLock;

use crate::spec::{Algorithm, Digest};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// Contents of blobs; the first is the config of every image. One is so large that a client that sends it slowly makes parts
/// of it.
pub(crate) static BLOBS: LazyLock<[&str; 5]> =
    LazyLock::new(|| ["{}", "layer one", "layer two", String::leak("layer three ".repeat(12_000)), "layer four"]);

/// Their digests, made once: simulations ask for them all the time.
static DIGESTS: LazyLock<[Digest; 5]> = LazyLock::new(|| BLOBS.map(digest));

pub(crate) fn blob_digest(blob: usize) -> &'static Digest {
    &DIGESTS[blob]
}

/// A manifest.
pub(crate) struct Image {
    pub(crate) media_type: &'static str,
    pub(crate) manifest: String,
    pub(crate) digest: Digest,
    /// Which blobs it names.
    pub(crate) blobs: &'static [usize],
    /// Which images it lists.
    pub(crate) children: &'static [usize],
}

fn digest(content: &str) -> Digest {
    Digest::of(Algorithm::Sha256, content.as_bytes())
}

fn image(blobs: &'static [usize], more: &str) -> Image {
    let content = |blob: &usize| {
        let text = BLOBS[*blob];
        format!(r#"{{"mediaType":"application/x","digest":"{}","size":{}}}"#, blob_digest(*blob), text.len())
    };
    let layers: Vec<String> = blobs[1..].iter().map(content).collect();
    let manifest = format!(
        r#"{{"schemaVersion":2,"mediaType":"{MANIFEST}","config":{},"layers":[{}]{more}}}"#,
        content(&blobs[0]),
        layers.join(",")
    );
    Image { media_type: MANIFEST, digest: digest(&manifest), manifest, blobs, children: &[] }
}

fn index(of: &[Image], children: &'static [usize]) -> Image {
    let child = |child: &usize| {
        let Image { digest, manifest, .. } = &of[*child];
        format!(r#"{{"mediaType":"{MANIFEST}","digest":"{digest}","size":{}}}"#, manifest.len())
    };
    let children_text: Vec<String> = children.iter().map(child).collect();
    let manifest = format!(r#"{{"schemaVersion":2,"mediaType":"{INDEX}","manifests":[{}]}}"#, children_text.join(","));
    Image { media_type: INDEX, digest: digest(&manifest), manifest, blobs: &[], children }
}

/// An index that lists blobs as if they were manifests, as caches of build tools are.
fn cache(blobs: &'static [usize]) -> Image {
    let content = |blob: &usize| {
        let text = BLOBS[*blob];
        format!(r#"{{"mediaType":"application/x","digest":"{}","size":{}}}"#, blob_digest(*blob), text.len())
    };
    let listed: Vec<String> = blobs.iter().map(content).collect();
    let manifest = format!(r#"{{"schemaVersion":2,"mediaType":"{INDEX}","manifests":[{}]}}"#, listed.join(","));
    Image { media_type: INDEX, digest: digest(&manifest), manifest, blobs, children: &[] }
}

/// All of them; an index comes after what it lists.
pub(crate) static IMAGES: LazyLock<Vec<Image>> = LazyLock::new(|| {
    let mut images = vec![image(&[0, 1], ""), image(&[0, 2], ""), image(&[0, 1, 2, 3], ""), image(&[0, 4], "")];
    let subject = format!(
        r#","subject":{{"mediaType":"{MANIFEST}","digest":"{}","size":{}}}"#,
        images[0].digest,
        images[0].manifest.len()
    );
    images.push(image(&[0], &subject));
    images.push(index(&images, &[0, 1]));
    images.push(cache(&[2, 4]));
    images
});

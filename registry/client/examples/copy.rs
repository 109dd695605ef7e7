//! Copies one image (a manifest and its blobs, or an index with all of its images) from a registry to another:
//! `cargo run -p fluyt-client --example copy -- alpine:3.20 127.0.0.1:5000/alpine:3.20`
#![expect(clippy::print_stdout, reason = "its output is for people")]

use std::error::Error;
use std::fs::File;
use std::io::{Seek as _, SeekFrom};

use fluyt_client::{Blob, Client, Environment, Reference, Settings};
use oci_spec::image::{Digest, ImageIndex, ImageManifest};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(from), Some(to)) = (arguments.next(), arguments.next()) else {
        return Err("expected two references: FROM TO".into());
    };
    let (from, to) = (Reference::parse(&from)?, Reference::parse(&to)?);
    let client = Client::new(Settings { environment: Environment::from_process(), ..Settings::default() })?;
    let mut waiting = vec![(from, to)];
    // Images before the index that names them: a registry may refuse an index of what it has not.
    let mut manifests = Vec::new();
    while let Some((from, to)) = waiting.pop() {
        let manifest = client.manifest(&from, &[]).await?;
        if let Ok(index) = ImageIndex::from_reader(manifest.bytes.as_ref()) {
            for image in index.manifests() {
                waiting.push((from.with_digest(image.digest()), to.with_digest(image.digest())));
            }
        } else {
            let image = ImageManifest::from_reader(manifest.bytes.as_ref())?;
            for part in image.layers().iter().chain([image.config()]) {
                copy_blob(&client, &from, &to, part.digest(), part.size()).await?;
            }
        }
        manifests.push((to, manifest));
    }
    for (to, manifest) in manifests.iter().rev() {
        let digest = client.push_manifest(to, &manifest.media_type, manifest.bytes.clone()).await?;
        println!("{digest} {to}");
    }
    Ok(())
}

async fn copy_blob(
    client: &Client,
    from: &Reference,
    to: &Reference,
    digest: &Digest,
    size_bytes: u64,
) -> Result<(), Box<dyn Error>> {
    let blob = Blob { digest: digest.clone(), size_bytes };
    if client.has_blob(to, digest).await? {
        return Ok(());
    }
    let mut file = tempfile::NamedTempFile::new()?;
    client.blob(from, &blob, &mut file, &|_| ()).await?;
    let source = |offset| -> std::io::Result<File> {
        let mut file = file.reopen()?;
        file.seek(SeekFrom::Start(offset))?;
        Ok(file)
    };
    let pushed = client.push_blob(to, &blob, &[], source, &|_| ()).await?;
    println!("{digest} {size_bytes} bytes, {pushed:?}");
    Ok(())
}

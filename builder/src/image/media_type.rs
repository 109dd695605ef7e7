//! The two families of media types: OCI's, and Docker's older ones for the same bytes.

use oci_spec::image::MediaType;

/// Which family an image is written in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Format {
    /// The OCI image specification's.
    #[default]
    Oci,
    /// Docker's image manifest, version 2, schema 2.
    Docker,
}

/// Docker's manifest.
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// Docker's manifest list.
pub const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
/// Docker's configuration.
pub const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";

/// The same kind of content in both families. The first of a row is OCI's.
const PAIRS: &[(&str, &str)] = &[
    ("application/vnd.oci.image.manifest.v1+json", DOCKER_MANIFEST),
    ("application/vnd.oci.image.index.v1+json", DOCKER_INDEX),
    ("application/vnd.oci.image.config.v1+json", DOCKER_CONFIG),
    ("application/vnd.oci.image.layer.v1.tar", "application/vnd.docker.image.rootfs.diff.tar"),
    ("application/vnd.oci.image.layer.v1.tar+gzip", "application/vnd.docker.image.rootfs.diff.tar.gzip"),
    ("application/vnd.oci.image.layer.v1.tar+zstd", "application/vnd.docker.image.rootfs.diff.tar.zstd"),
    (
        "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
        "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
    ),
];

impl Format {
    /// The media type of this family for the same bytes. One that has no counterpart stays.
    #[must_use]
    pub fn media_type(self, media_type: &MediaType) -> MediaType {
        let text = media_type.as_ref();
        let row = PAIRS.iter().find(|(oci, docker)| text == *oci || text == *docker);
        row.map_or_else(
            || media_type.clone(),
            |(oci, docker)| MediaType::from(if self == Self::Oci { *oci } else { *docker }),
        )
    }
}

/// Whether the media type is that of an image manifest, of either family.
#[must_use]
pub fn is_manifest(media_type: &MediaType) -> bool {
    Format::Oci.media_type(media_type) == MediaType::ImageManifest
}

/// Whether the media type is that of a layer that may not be passed on, of either family and however it is compressed: whoever
/// needs it fetches it from its own place.
#[must_use]
pub fn is_foreign(media_type: &MediaType) -> bool {
    media_type.as_ref().contains("nondistributable") || media_type.as_ref().contains("foreign")
}

/// Whether the media type is that of an index, of either family.
#[must_use]
pub fn is_index(media_type: &MediaType) -> bool {
    Format::Oci.media_type(media_type) == MediaType::ImageIndex
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_translate_both_ways_and_unknown_ones_stay() {
        for (oci, docker) in PAIRS {
            let (oci, docker) = (MediaType::from(*oci), MediaType::from(*docker));
            assert_eq!(Format::Oci.media_type(&docker), oci);
            assert_eq!(Format::Docker.media_type(&oci), docker);
            assert_eq!(Format::Oci.media_type(&oci), oci);
        }
        let other = MediaType::from("application/x-other");
        assert_eq!(Format::Docker.media_type(&other), other);
        assert!(is_index(&MediaType::from(DOCKER_INDEX)) && !is_index(&MediaType::ImageManifest));
    }

    #[test]
    fn layers_that_may_not_be_passed_on_are_known_in_all_their_forms() {
        for end in ["", "+gzip", "+zstd"] {
            let text = format!("application/vnd.oci.image.layer.nondistributable.v1.tar{end}");
            assert!(is_foreign(&MediaType::from(text.as_str())), "{text}");
        }
        assert!(is_foreign(&MediaType::from("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip")));
        let (_, docker) = PAIRS[4];
        assert!(!is_foreign(&MediaType::ImageLayerGzip) && !is_foreign(&MediaType::from(docker)));
    }
}

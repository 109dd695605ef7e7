//! Which of an index's images is for a platform.

use oci_spec::image::{Descriptor, ImageIndex};

use super::media_type;

/// The manifest in `index` that is best for a platform, by Go's names; the first of equally good ones, as all readers do.
///
/// Without a variant, `arm` means `v7` and `arm64` means `v8`; an `arm` machine also runs images of lower variants, and an
/// image that names no variant is for all. Attestations, which stand in an index beside images, have no platform of this kind.
#[must_use]
pub fn select<'a>(
    index: &'a ImageIndex,
    os: &str,
    architecture: &str,
    variant: Option<&str>,
) -> Option<&'a Descriptor> {
    let wanted = normal(architecture, variant);
    let fitting = index.manifests().iter().filter_map(|row| {
        if !media_type::is_manifest(row.media_type()) && !media_type::is_index(row.media_type()) {
            return None;
        }
        let platform = row.platform().as_ref()?;
        if platform.os().to_string() != os || platform.architecture().to_string() != architecture {
            return None;
        }
        let found = normal(architecture, platform.variant().as_deref());
        let below = architecture == "arm" || architecture == "amd64";
        // An exact match first, then the highest below it.
        let distance = match (level(&found), level(&wanted)) {
            _ if found == wanted => 0,
            (Some(found), Some(wanted)) if below && found < wanted => wanted - found,
            _ => return None,
        };
        Some((distance, row))
    });
    fitting.min_by_key(|(distance, _)| *distance).map(|(_, row)| row)
}

fn normal(architecture: &str, variant: Option<&str>) -> String {
    let default = match architecture {
        "arm" => "v7",
        "arm64" => "v8",
        "amd64" => "v1",
        _ => "",
    };
    match variant {
        None | Some("") => default.to_owned(),
        Some(number) if number.starts_with(|first: char| first.is_ascii_digit()) => format!("v{number}"),
        Some(variant) => variant.to_owned(),
    }
}

fn level(variant: &str) -> Option<u32> {
    variant.strip_prefix('v')?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index(platforms: &[(&str, &str, &str)]) -> ImageIndex {
        let rows: Vec<_> = platforms
            .iter()
            .enumerate()
            .map(|(number, (os, architecture, variant))| {
                let variant = if variant.is_empty() { String::new() } else { format!(r#","variant":"{variant}""#) };
                format!(
                    r#"{{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:{number:064}","size":{number},
                    "platform":{{"os":"{os}","architecture":"{architecture}"{variant}}}}}"#
                )
            })
            .collect();
        serde_json::from_str(&format!(r#"{{"schemaVersion":2,"manifests":[{}]}}"#, rows.join(","))).unwrap()
    }

    #[test]
    fn the_best_image_is_chosen() {
        let all = index(&[
            ("unknown", "unknown", ""),
            ("linux", "arm", "v5"),
            ("linux", "arm", "v7"),
            ("linux", "arm", "v6"),
            ("linux", "arm64", "v8"),
            ("linux", "amd64", ""),
            ("linux", "amd64", "v3"),
            ("windows", "amd64", ""),
            ("linux", "amd64", ""),
        ]);
        let chosen = |architecture, variant| select(&all, "linux", architecture, variant).map(Descriptor::size);
        assert_eq!(chosen("amd64", None), Some(5));
        assert_eq!(chosen("amd64", Some("v2")), Some(5));
        assert_eq!(chosen("amd64", Some("v4")), Some(6));
        assert_eq!(chosen("arm64", None), Some(4));
        assert_eq!(chosen("arm", None), Some(2));
        assert_eq!(chosen("arm", Some("6")), Some(3));
        assert_eq!(chosen("arm", Some("v8")), Some(2));
        assert_eq!(chosen("s390x", None), None);
        assert_eq!(select(&all, "windows", "amd64", None).map(Descriptor::size), Some(7));
    }
}

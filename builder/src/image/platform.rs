//! Platforms: operating system, architecture and variant, by Go's names; and which image is for one.

use std::fmt;
use std::str::FromStr;

use oci_spec::image::{Descriptor, ImageIndex};

use super::media_type;

/// What an image runs on (`linux/arm64/v8`).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Platform {
    /// `linux`.
    pub os: String,
    /// `amd64`.
    pub architecture: String,
    /// `v7`; none where the architecture's default variant is meant.
    pub variant: Option<String>,
    /// Version of the operating system; only Windows images have one.
    pub os_version: Option<String>,
}

/// A text that is no platform.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is no platform: expected `os/architecture[/variant]`, such as `linux/arm64`")]
pub struct PlatformError {
    /// The text.
    pub text: String,
}

impl Platform {
    /// `os/architecture` with the names normalised (`x86_64` is `amd64`, `arm64/v8` is `arm64`).
    #[must_use]
    pub fn new(os: &str, architecture: &str, variant: Option<&str>) -> Self {
        let architecture = architecture.to_ascii_lowercase();
        let variant = variant.map(str::to_ascii_lowercase).filter(|variant| !variant.is_empty());
        let (architecture, variant) = match (architecture.as_str(), variant.as_deref()) {
            ("i386", _) => ("386", None),
            ("x86_64" | "x86-64" | "amd64", Some("v1") | None) => ("amd64", None),
            ("x86_64" | "x86-64", Some(other)) => ("amd64", Some(other)),
            ("aarch64" | "arm64", Some("8" | "v8") | None) => ("arm64", None),
            ("aarch64", Some(other)) => ("arm64", Some(other)),
            ("armhf", _) => ("arm", Some("v7")),
            ("armel", _) => ("arm", Some("v6")),
            ("arm", None | Some("7")) => ("arm", Some("v7")),
            ("arm", Some("5")) => ("arm", Some("v5")),
            ("arm", Some("6")) => ("arm", Some("v6")),
            ("arm", Some("8")) => ("arm", Some("v8")),
            (other, variant) => (other, variant),
        };
        let os = match os.to_ascii_lowercase().as_str() {
            "macos" => "darwin".to_owned(),
            other => other.to_owned(),
        };
        Self { os, architecture: architecture.to_owned(), variant: variant.map(str::to_owned), os_version: None }
    }

    /// How far an image for `found` is from one for this platform; `None` where it is not for it at all. The one rule for
    /// images of indexes, of the store and of registries.
    ///
    /// Without a variant, `arm` means `v7`, `arm64` means `v8` and `amd64` means `v1`; a machine of the first or the last also
    /// runs images of lower variants, and no machine runs those of higher ones. Where there is nothing nearer, what is meant for
    /// the same kind of processor with 32 bits will do, as for containerd.
    #[must_use]
    pub fn accepts(&self, found: &Self) -> Option<u32> {
        if found.os != self.os {
            return None;
        }
        match (&*self.architecture, &*found.architecture) {
            ("amd64", "386") => return Some(FAR),
            ("arm64", "arm") => {
                return level(&found.normal_variant()).filter(|level| *level <= 8).map(|level| FAR - level);
            }
            (wanted, found) if wanted != found => return None,
            _ => {}
        }
        let (wanted, found) = (self.normal_variant(), found.normal_variant());
        if wanted == found {
            return Some(0);
        }
        let runs_lower = matches!(&*self.architecture, "arm" | "amd64");
        level(&wanted)?.checked_sub(level(&found)?).filter(|_| runs_lower)
    }

    /// Whether an image for `found` is taken without a word. One that is only for the same kind of processor with 32 bits is
    /// taken where an index has nothing nearer, and is another image than the one that was asked for.
    #[must_use]
    pub fn is_served_by(&self, found: &Self) -> bool {
        self.architecture == found.architecture && self.accepts(found).is_some()
    }

    fn normal_variant(&self) -> String {
        let default = match &*self.architecture {
            "arm" => "v7",
            "arm64" => "v8",
            "amd64" => "v1",
            _ => "",
        };
        match self.variant.as_deref() {
            None | Some("") => default.to_owned(),
            Some(number) if number.starts_with(|first: char| first.is_ascii_digit()) => format!("v{number}"),
            Some(variant) => variant.to_owned(),
        }
    }
}

/// Farther than any variant.
const FAR: u32 = 1_000_000;

fn level(variant: &str) -> Option<u32> {
    variant.strip_prefix('v')?.parse().ok()
}

/// The manifest in `index` that is best for a platform; the first of equally good ones, as all readers do. Attestations, which
/// stand in an index beside images, have no platform of this kind.
#[must_use]
pub fn select<'a>(index: &'a ImageIndex, wanted: &Platform) -> Option<&'a Descriptor> {
    let fitting = index.manifests().iter().filter_map(|row| {
        if !is_of_images(row) {
            return None;
        }
        Some((wanted.accepts(&Platform::from(row.platform().as_ref()?))?, row))
    });
    fitting.min_by_key(|(distance, _)| *distance).map(|(_, row)| row)
}

/// The images and indexes in `index` of which it does not say what they are for.
#[must_use]
pub fn without_platform(index: &ImageIndex) -> Vec<&Descriptor> {
    index.manifests().iter().filter(|row| row.platform().is_none() && is_of_images(row)).collect()
}

fn is_of_images(row: &Descriptor) -> bool {
    media_type::is_manifest(row.media_type()) || media_type::is_index(row.media_type())
}

/// As an index says it.
impl From<&oci_spec::image::Platform> for Platform {
    fn from(said: &oci_spec::image::Platform) -> Self {
        Self::new(&said.os().to_string(), &said.architecture().to_string(), said.variant().as_deref())
    }
}

/// Architectures that may stand alone (`arm64` is `linux/arm64`).
pub const ARCHITECTURES: [&str; 16] = [
    "386", "i386", "amd64", "x86_64", "x86-64", "arm", "armhf", "armel", "arm64", "aarch64", "loong64", "mips64le",
    "ppc64le", "riscv64", "s390x", "wasm",
];

/// The architecture that this program is built for, by Go's name.
const OWN_ARCHITECTURE: &str = if cfg!(target_arch = "aarch64") {
    "arm64"
} else if cfg!(target_arch = "riscv64") {
    "riscv64"
} else if cfg!(target_arch = "s390x") {
    "s390x"
} else if cfg!(target_arch = "powerpc64") {
    "ppc64le"
} else {
    "amd64"
};

/// `os/architecture[/variant]`; as in the reference, a known architecture may stand alone for Linux, and an operating
/// system for the builder's own architecture.
impl FromStr for Platform {
    type Err = PlatformError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || PlatformError { text: text.to_owned() };
        let parts: Vec<&str> = text.split('/').collect();
        if parts.iter().any(|part| {
            part.is_empty()
                || !part.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-'))
        }) {
            return Err(error());
        }
        match parts[..] {
            [alone] => {
                let lower = alone.to_ascii_lowercase();
                match lower.as_str() {
                    "linux" | "windows" | "darwin" | "macos" | "freebsd" => {
                        Ok(Self::new(&lower, OWN_ARCHITECTURE, None))
                    }
                    known if ARCHITECTURES.contains(&known) => Ok(Self::new("linux", known, None)),
                    _ => Err(error()),
                }
            }
            [os, architecture] => Ok(Self::new(os, architecture, None)),
            [os, architecture, variant] => Ok(Self::new(os, architecture, Some(variant))),
            _ => Err(error()),
        }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        if let Some(variant) = &self.variant {
            write!(f, "/{variant}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_normalised() {
        for (text, expected) in [
            ("linux/amd64", "linux/amd64"),
            ("linux/x86_64", "linux/amd64"),
            ("Linux/ARM64/v8", "linux/arm64"),
            ("linux/aarch64", "linux/arm64"),
            ("linux/arm", "linux/arm/v7"),
            ("linux/arm/6", "linux/arm/v6"),
            ("linux/armhf", "linux/arm/v7"),
            ("linux/i386", "linux/386"),
            ("linux/amd64/v3", "linux/amd64/v3"),
            ("linux/riscv64", "linux/riscv64"),
            ("arm64", "linux/arm64"),
            ("x86_64", "linux/amd64"),
        ] {
            assert_eq!(text.parse::<Platform>().unwrap().to_string(), expected, "{text}");
        }
        assert_eq!("linux".parse::<Platform>().unwrap().architecture, OWN_ARCHITECTURE);
        for text in ["", "linus", "linux/", "/amd64", "a/b/c/d", "linux/am d64", "linux/$ARCH"] {
            assert!(text.parse::<Platform>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_machine_runs_its_own_images_and_those_of_lower_variants() {
        for (wanted, found, expected) in [
            ("linux/arm/v6", "linux/arm/v7", None),
            ("linux/arm/v7", "linux/arm/v6", Some(1)),
            ("linux/arm/v6", "linux/arm", None),
            ("linux/arm/v8", "linux/arm", Some(1)),
            ("linux/amd64", "linux/amd64/v3", None),
            ("linux/amd64/v3", "linux/amd64", Some(2)),
            ("linux/amd64/v3", "linux/amd64/v2", Some(1)),
            ("linux/arm64", "linux/arm64/v8", Some(0)),
            ("linux/arm64", "linux/arm64/v9", None),
            ("linux/arm64", "linux/amd64", None),
            ("linux/riscv64", "linux/riscv64", Some(0)),
            ("windows/amd64", "linux/amd64", None),
            ("linux/amd64", "linux/386", Some(FAR)),
            ("linux/386", "linux/amd64", None),
            ("linux/arm64", "linux/arm/v6", Some(FAR - 6)),
            ("linux/arm/v8", "linux/arm64", None),
        ] {
            let (wanted, found): (Platform, Platform) = (wanted.parse().unwrap(), found.parse().unwrap());
            assert_eq!(wanted.accepts(&found), expected, "{found} for {wanted}");
            let is_served = expected.is_some() && wanted.architecture == found.architecture;
            assert_eq!(wanted.is_served_by(&found), is_served, "{found} for {wanted}");
        }
    }

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
            ("linux", "386", ""),
        ]);
        let chosen =
            |architecture, variant| select(&all, &Platform::new("linux", architecture, variant)).map(Descriptor::size);
        assert_eq!(chosen("amd64", None), Some(5));
        assert_eq!(chosen("amd64", Some("v2")), Some(5));
        assert_eq!(chosen("amd64", Some("v4")), Some(6));
        assert_eq!(chosen("arm64", None), Some(4));
        assert_eq!(chosen("arm", None), Some(2));
        assert_eq!(chosen("arm", Some("6")), Some(3));
        assert_eq!(chosen("arm", Some("v8")), Some(2));
        assert_eq!(chosen("s390x", None), None);
        assert_eq!(select(&all, &Platform::new("windows", "amd64", None)).map(Descriptor::size), Some(7));
        let of_32_bits = index(&[("linux", "arm", "v6"), ("linux", "arm", "v7"), ("linux", "386", "")]);
        let chosen =
            |architecture| select(&of_32_bits, &Platform::new("linux", architecture, None)).map(Descriptor::size);
        assert_eq!((chosen("amd64"), chosen("arm64"), chosen("riscv64")), (Some(2), Some(1), None));
    }
}

//! Platforms: operating system, architecture and variant, by Go's names.

use std::fmt;
use std::str::FromStr;

use crate::dockerfile::nearest_name;

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

    /// The part that Go has no name for, and the name that is nearest to it. Such an image can be made; it is a slip most
    /// times.
    #[must_use]
    pub fn unknown(&self) -> Option<(&str, Option<&'static str>)> {
        let architectures = || ARCHITECTURES.into_iter().chain(OTHER_ARCHITECTURES);
        if !SYSTEMS.contains(&&*self.os) {
            return Some((&self.os, nearest_name(&self.os, SYSTEMS)));
        }
        let is_known = architectures().any(|known| known == self.architecture);
        (!is_known).then(|| (&*self.architecture, nearest_name(&self.architecture, architectures())))
    }
}

/// Architectures that may stand alone (`arm64` is `linux/arm64`).
const ARCHITECTURES: [&str; 16] = [
    "386", "i386", "amd64", "x86_64", "x86-64", "arm", "armhf", "armel", "arm64", "aarch64", "loong64", "mips64le",
    "ppc64le", "riscv64", "s390x", "wasm",
];

/// Those of Go that are none of the above, and Go's operating systems, which images are named by.
const OTHER_ARCHITECTURES: [&str; 9] =
    ["mips", "mips64", "mipsle", "ppc64", "ppc", "riscv", "s390", "sparc", "sparc64"];
const SYSTEMS: [&str; 13] = [
    "linux",
    "windows",
    "darwin",
    "freebsd",
    "netbsd",
    "openbsd",
    "dragonfly",
    "solaris",
    "illumos",
    "aix",
    "android",
    "wasip1",
    "js",
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
        for (text, expected) in [
            ("linux/amd64", None),
            ("linux/mips64", None),
            ("linux/arm/v6", None),
            ("linux/amd46", Some(("amd46", Some("amd64")))),
            ("linux/powerful", Some(("powerful", None))),
            ("linus/amd64", Some(("linus", Some("linux")))),
        ] {
            assert_eq!(text.parse::<Platform>().unwrap().unknown(), expected, "{text}");
        }
        for text in ["", "linus", "linux/", "/amd64", "a/b/c/d", "linux/am d64", "linux/$ARCH"] {
            assert!(text.parse::<Platform>().is_err(), "{text}");
        }
    }
}

//! What was typed and means nothing in this Dockerfile. The reference takes it in silence, and so it is no error; but it is
//! a slip most times.

use super::Request;
use super::source::Read;
use crate::dockerfile::CheckOptions;
use crate::event::{Event, Events};
use crate::graph::normal_name;
use crate::image::{ARCHITECTURES, Platform};
use crate::notation;

/// Go's architectures that may not stand alone, and Go's operating systems, which images are named by.
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

/// Names each of them.
pub(super) fn tell(request: &Request, read: &Read, events: &Events) {
    let told = platform(request).into_iter().chain(checks(request, read));
    let told = told.chain(stages(request, read)).chain(contexts(request, read));
    told.for_each(|text| events.hear(Event::Warning { text }));
}

fn near(nearest: Option<&str>) -> String {
    nearest.map_or_else(String::new, |near| format!("; did you mean `{near}`?"))
}

/// A platform that there is none of.
fn platform(request: &Request) -> Option<String> {
    let (part, nearest) = unknown(&request.platform)?;
    Some(format!("the image is for `{}`, and no platform has the name `{part}`{}", request.platform, near(nearest)))
}

/// The part that Go has no name for, and the name that is nearest to it. Such an image can be made.
fn unknown(platform: &Platform) -> Option<(&str, Option<&'static str>)> {
    let architectures = || ARCHITECTURES.into_iter().chain(OTHER_ARCHITECTURES);
    if !SYSTEMS.contains(&&*platform.os) {
        return Some((&platform.os, notation::nearest(&platform.os, SYSTEMS)));
    }
    let is_known = architectures().any(|known| known == platform.architecture);
    (!is_known).then(|| (&*platform.architecture, notation::nearest(&platform.architecture, architectures())))
}

/// Names in `# check=` that no check has.
fn checks(request: &Request, read: &Read) -> Vec<String> {
    let argument = request.build_args.get("BUILDKIT_DOCKERFILE_CHECK").map(String::as_str);
    let Ok(options) = CheckOptions::of(&read.dockerfile, argument) else { return Vec::new() };
    let unknown = options.unknown();
    unknown.into_iter().map(|(name, nearest)| format!("there is no build check `{name}`{}", near(nearest))).collect()
}

/// Names in `--no-cache-filter` that no stage has.
fn stages(request: &Request, read: &Read) -> Vec<String> {
    let of = |(number, stage): (usize, &crate::dockerfile::Stage)| {
        stage.name.as_ref().map_or_else(|| format!("stage-{number}"), |name| name.text.to_lowercase())
    };
    let names: Vec<String> = read.dockerfile.stages.iter().enumerate().map(of).collect();
    let unknown = request.no_cache_stages.iter().filter(|name| !names.contains(name));
    let told = |name: &String| {
        let nearest = notation::nearest(name, names.iter().map(String::as_str));
        format!("`--no-cache-filter {name}` has no effect: the Dockerfile has no stage of that name{}", near(nearest))
    };
    unknown.map(told).collect()
}

/// Named contexts whose name stands nowhere in the Dockerfile, and in no argument that may be put there.
fn contexts(request: &Request, read: &Read) -> Vec<String> {
    let named =
        |name: &str| read.text().contains(name) || request.build_args.values().any(|value| value.contains(name));
    let is_known = |name: &str| {
        let short = normal_name(name);
        let bare = |name: &str| name.split("::").next().unwrap_or_default().to_owned();
        named(&bare(name)) || named(&bare(&short)) || matches!(name, "context" | "scratch")
    };
    let unknown = request.contexts.keys().filter(|name| !is_known(name));
    unknown.map(|name| format!("`--build-context {name}` has no effect: the Dockerfile does not name it")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_a_platform_that_go_does_not_know_are_told() {
        for (text, expected) in [
            ("linux/amd64", None),
            ("linux/mips64", None),
            ("linux/arm/v6", None),
            ("linux/amd46", Some(("amd46", Some("amd64")))),
            ("linux/powerful", Some(("powerful", None))),
            ("linus/amd64", Some(("linus", Some("linux")))),
        ] {
            assert_eq!(unknown(&text.parse().unwrap()), expected, "{text}");
        }
    }
}

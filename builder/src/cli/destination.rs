//! `-o` / `--output`, as buildx spells it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use fluyt_client::Reference;

use super::failure::Failure;
use super::settings;
use crate::pipeline::Destination;

/// One `-o`, and the names that it gives to the image.
///
/// # Errors
/// For a type or key that is not known, and for a destination that is missing.
pub(super) fn parse(text: &str) -> Result<(Destination, Vec<Reference>), Failure> {
    let wrong = |problem: String| {
        Failure::usage(format!("`--output {text}`: {problem}"))
            .hint("write `type=oci|docker|tar|local,dest=PATH`, `type=registry`, or a folder")
    };
    // A word without keys is a folder, or `-` for a tar on standard output.
    if !text.contains('=') {
        return Ok(match text {
            "" => return Err(wrong("there is no destination".to_owned())),
            "-" => (Destination::Tar(None), Vec::new()),
            folder => (Destination::Local(PathBuf::from(folder)), Vec::new()),
        });
    }
    let mut fields: BTreeMap<&str, &str> = BTreeMap::new();
    let typed = split(text);
    for field in &typed {
        let (key, value) = field.split_once('=').ok_or_else(|| wrong(format!("`{field}` is no `key=value`")))?;
        if fields.insert(key.trim(), value).is_some() {
            return Err(wrong(format!("`{key}` is given twice")));
        }
    }
    let kind = fields.remove("type").ok_or_else(|| wrong("it has no `type`".to_owned()))?;
    let dest = fields.remove("dest");
    let file = |dest: Option<&str>| match dest {
        Some("-") => Ok(None),
        Some("") | None => Err(wrong(format!("`type={kind}` needs `dest=PATH`"))),
        Some(path) => Ok(Some(PathBuf::from(path))),
    };
    let as_tar = match fields.remove("tar") {
        None | Some("true") => true,
        Some("false") => false,
        Some(other) => return Err(wrong(format!("`tar={other}`: expected `true` or `false`"))),
    };
    let mut names = Vec::new();
    if matches!(kind, "image" | "registry" | "docker" | "oci")
        && let Some(list) = fields.remove("name")
    {
        for name in list.split(',').filter(|name| !name.is_empty()) {
            names.push(settings::reference(name)?);
        }
    }
    let destination = match kind {
        "registry" => Destination::Registry,
        "image" => match fields.remove("push") {
            Some("true") => Destination::Registry,
            None | Some("false") => Destination::Store,
            Some(other) => return Err(wrong(format!("`push={other}`: expected `true` or `false`"))),
        },
        "oci" if as_tar => Destination::OciTar(file(dest)?),
        "oci" => Destination::OciFolder(
            file(dest)?.ok_or_else(|| wrong("a folder cannot go to standard output".to_owned()))?,
        ),
        // Without a destination buildx hands it to the daemon.
        "docker" if dest.is_none() => Destination::Load,
        "docker" => Destination::DockerTar(file(dest)?),
        "tar" => Destination::Tar(file(dest)?),
        "local" => Destination::Local(
            file(dest)?.ok_or_else(|| wrong("files cannot go to standard output; use `type=tar`".to_owned()))?,
        ),
        other => return Err(wrong(format!("there is no type `{other}`"))),
    };
    if let Some(unknown) = fields.keys().next() {
        return Err(wrong(format!("`{unknown}` is not known for `type={kind}`, or not there yet")));
    }
    Ok((destination, names))
}

/// Fields apart by commas; a field in double quotes may hold commas, as in CSV.
fn split(text: &str) -> Vec<String> {
    let mut fields = vec![String::new()];
    let mut quoted = false;
    for character in text.chars() {
        match character {
            '"' => quoted = !quoted,
            ',' if !quoted => fields.push(String::new()),
            other => {
                if let Some(field) = fields.last_mut() {
                    field.push(other);
                }
            }
        }
    }
    fields
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        match parse(text) {
            Ok((destination, names)) => {
                let names: Vec<String> = names.iter().map(ToString::to_string).collect();
                format!("{destination:?} {}", names.join(" ")).trim_end().to_owned()
            }
            Err(failure) => failure.message,
        }
    }

    #[test]
    fn outputs_as_buildx_writes_them() {
        for (text, expected) in [
            ("out", r#"Local("out")"#),
            ("-", "Tar(None)"),
            ("type=local,dest=out", r#"Local("out")"#),
            ("type=tar,dest=-", "Tar(None)"),
            ("type=oci,dest=a.tar", r#"OciTar(Some("a.tar"))"#),
            ("type=oci,dest=a,tar=false", r#"OciFolder("a")"#),
            ("type=docker,dest=a.tar", r#"DockerTar(Some("a.tar"))"#),
            ("type=docker", "Load"),
            ("type=registry", "Registry"),
            ("type=image,push=true", "Registry"),
            (r#"type=image,"name=a:1,b""#, "Store docker.io/library/a:1 docker.io/library/b:latest"),
            ("type=oci", "`--output type=oci`: `type=oci` needs `dest=PATH`"),
            ("type=zip,dest=a", "`--output type=zip,dest=a`: there is no type `zip`"),
            (
                "type=oci,dest=a,wat=1",
                "`--output type=oci,dest=a,wat=1`: `wat` is not known for `type=oci`, or not there yet",
            ),
            ("dest=a", "`--output dest=a`: it has no `type`"),
        ] {
            assert_eq!(shown(text), expected, "{text}");
        }
    }
}

//! `RUN --mount=`: `key=value` fields separated by commas, quoted as CSV.

use super::op::{MountKind, Sharing};
use super::values::absolute;
use crate::notation;

/// The keys that a mount takes.
const KEYS: [&str; 17] = [
    "type",
    "from",
    "source",
    "src",
    "target",
    "dst",
    "destination",
    "readonly",
    "ro",
    "readwrite",
    "rw",
    "id",
    "sharing",
    "required",
    "mode",
    "uid",
    "gid",
];

/// A mount as written; `from` is still a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct MountSyntax {
    pub(super) kind: MountKind,
    pub(super) target: String,
    pub(super) from: Option<String>,
    pub(super) source: String,
    pub(super) read_only: bool,
}

/// The `from` of a mount, before anything is expanded: stages must be known without running anything.
pub(super) fn mount_from(text: &str) -> Option<String> {
    let fields = notation::csv(text).ok()?;
    fields.iter().rev().find_map(|field| {
        let (key, value) = field.split_once('=')?;
        key.eq_ignore_ascii_case("from").then(|| value.to_owned())
    })
}

/// Reads a mount. `expand` expands the value of every key but `from`; `cwd` is what a relative target joins.
pub(super) fn parse_mount(
    text: &str,
    cwd: &str,
    expand: &mut dyn FnMut(&str) -> Option<String>,
) -> Result<Option<MountSyntax>, String> {
    let mut kind = "bind".to_owned();
    let mut read_only = None;
    let mut required = None;
    let (mut from, mut source, mut target, mut id, mut env, mut sharing, mut size, mut mode, mut uid, mut gid) =
        (None, None, None, None, None, None, None, None, None, None);
    for field in notation::csv(text)? {
        let (key, value) = match field.split_once('=') {
            Some((key, value)) => (key.to_ascii_lowercase(), Some(value.to_owned())),
            None => (field.to_ascii_lowercase(), None),
        };
        let value = match value {
            Some(value) if key != "from" => match expand(&value) {
                Some(value) => Some(value),
                None => return Ok(None),
            },
            other => other,
        };
        let truth = |value: &Option<String>| notation::switch(&key, value.as_deref());
        match key.as_str() {
            "readonly" | "ro" => {
                read_only = Some(truth(&value)?);
                continue;
            }
            "readwrite" | "rw" => {
                read_only = Some(!truth(&value)?);
                continue;
            }
            "required" => {
                required = Some(truth(&value)?);
                continue;
            }
            _ => {}
        }
        let known = KEYS.contains(&key.as_str()) || key == "size" || key == "env";
        if !known {
            let near =
                notation::nearest(&key, KEYS).map_or_else(String::new, |near| format!(", did you mean `{near}`?"));
            return Err(format!("unexpected key `{key}` in `--mount={text}`{near}"));
        }
        let Some(value) = value else { return Err(format!("`{field}` in `--mount={text}` must be `key=value`")) };
        match key.as_str() {
            "type" => kind = value.to_ascii_lowercase(),
            "from" if value.contains('$') => {
                return Err("variable expansion is not supported for `from`, define a new stage with FROM using ARG \
                            from global scope as a workaround"
                    .to_owned());
            }
            "from" => from = Some(value).filter(|value| !value.is_empty()),
            "source" | "src" => source = Some(value),
            "target" | "dst" | "destination" => target = Some(value),
            "id" => id = Some(value),
            "env" => env = Some(value),
            "sharing" => sharing = Some(value.to_ascii_lowercase()),
            "size" => {
                size = Some(notation::bytes(&value).ok_or_else(|| {
                    format!(
                        "invalid size `{value}`: expected a number of bytes, or one with a unit such as `64m` or `1.5g`"
                    )
                })?)
            }
            "mode" => {
                let bits = u32::from_str_radix(&value, 8).ok().filter(|bits| *bits <= 0o7777);
                mode = Some(bits.ok_or_else(|| format!("invalid mode `{value}`: expected an octal number"))?);
            }
            "uid" => uid = Some(value.parse::<u32>().map_err(|_| format!("invalid uid `{value}`: expected a number"))?),
            _ => gid = Some(value.parse::<u32>().map_err(|_| format!("invalid gid `{value}`: expected a number"))?),
        }
    }
    let forbid = |present: bool, key: &str, kinds: &[&str]| {
        if present && !kinds.contains(&kind.as_str()) {
            return Err(format!("`{key}` is not for a mount of type `{kind}`"));
        }
        Ok(())
    };
    forbid(required.is_some(), "required", &["secret", "ssh"])?;
    forbid(size.is_some(), "size", &["tmpfs"])?;
    forbid(mode.is_some(), "mode", &["cache", "secret", "ssh"])?;
    forbid(uid.is_some(), "uid", &["cache", "secret", "ssh"])?;
    forbid(gid.is_some(), "gid", &["cache", "secret", "ssh"])?;
    forbid(sharing.is_some(), "sharing", &["cache"])?;
    forbid(env.is_some(), "env", &["secret"])?;
    forbid(from.is_some(), "from", &["bind", "cache"])?;
    let required = required.unwrap_or(false);
    let (uid, gid) = (uid.unwrap_or(0), gid.unwrap_or(0));
    let target_of = |target: Option<String>| {
        let target = target.filter(|target| !target.is_empty()).ok_or("a mount needs a `target`")?;
        match absolute(cwd, &target) {
            root if root == "/" => Err("a mount's target cannot be `/`"),
            path => Ok(path),
        }
    };
    let source = source.unwrap_or_default();
    let (kind, target, source, usual_read_only) = match kind.as_str() {
        "bind" => (MountKind::Bind, target_of(target)?, source, true),
        "cache" => {
            let target = target_of(target)?;
            let sharing = match sharing.as_deref() {
                None | Some("shared") => Sharing::Shared,
                Some("private") => Sharing::Private,
                Some("locked") => Sharing::Locked,
                Some(other) => {
                    return Err(format!("unsupported sharing `{other}`: expected `shared`, `private` or `locked`"));
                }
            };
            let id = id.filter(|id| !id.is_empty()).unwrap_or_else(|| target.clone());
            (MountKind::Cache { id, sharing, mode: mode.unwrap_or(0o755), uid, gid }, target, source, false)
        }
        "tmpfs" => (MountKind::Tmpfs { size_bytes: size.unwrap_or(0) }, target_of(target)?, source, false),
        "secret" => {
            if id.is_some() && !source.is_empty() {
                return Err("a secret mount takes `id` or `source`, not both".to_owned());
            }
            let id = id.or_else(|| Some(source).filter(|source| !source.is_empty()));
            let id = match (id, &target) {
                (Some(id), _) => id,
                (None, Some(target)) => target.rsplit('/').next().unwrap_or(target).to_owned(),
                (None, None) => return Err("a secret mount needs an `id` or a `target`".to_owned()),
            };
            let target = match (target, &env) {
                (Some(target), _) => target_of(Some(target))?,
                (None, Some(_)) => String::new(),
                (None, None) => format!("/run/secrets/{}", id.rsplit('/').next().unwrap_or(&id)),
            };
            let kind = MountKind::Secret { id, env, required, mode: mode.unwrap_or(0o400), uid, gid };
            (kind, target, String::new(), true)
        }
        "ssh" => {
            let id = id.unwrap_or_else(|| "default".to_owned());
            let target = target.map(|target| target_of(Some(target))).transpose()?.unwrap_or_default();
            (MountKind::Ssh { id, required, mode: mode.unwrap_or(0o600), uid, gid }, target, String::new(), true)
        }
        other => {
            let kinds = ["bind", "cache", "tmpfs", "secret", "ssh"];
            let near =
                notation::nearest(other, kinds).map_or_else(String::new, |near| format!(", did you mean `{near}`?"));
            return Err(format!("unsupported mount type `{other}`{near}"));
        }
    };
    Ok(Some(MountSyntax { kind, target, from, source, read_only: read_only.unwrap_or(usual_read_only) }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn show(text: &str) -> String {
        match parse_mount(text, "/w", &mut |value| Some(value.replace("$X", "x"))) {
            Ok(Some(mount)) => format!(
                "{:?} from={} source={} target={}{}",
                mount.kind,
                mount.from.as_deref().unwrap_or("-"),
                mount.source,
                mount.target,
                if mount.read_only { " ro" } else { "" }
            ),
            Ok(None) => "not expanded".to_owned(),
            Err(error) => format!("error: {error}"),
        }
    }

    #[test]
    fn each_kind_with_its_defaults() {
        for (text, expected) in [
            ("target=/a", "Bind from=- source= target=/a ro"),
            ("type=bind,src=b,dst=a,rw", "Bind from=- source=b target=/w/a"),
            ("type=bind,from=base,target=/$X", "Bind from=base source= target=/x ro"),
            (
                "type=cache,target=/c",
                "Cache { id: \"/c\", sharing: Shared, mode: 493, uid: 0, gid: 0 } from=- source= target=/c",
            ),
            (
                "type=cache,id=k,target=/c,sharing=locked,uid=5,mode=0700",
                "Cache { id: \"k\", sharing: Locked, mode: 448, uid: 5, gid: 0 } from=- source= target=/c",
            ),
            ("type=tmpfs,target=/t,size=64m", "Tmpfs { size_bytes: 67108864 } from=- source= target=/t"),
            (
                "type=secret,id=s",
                "Secret { id: \"s\", env: None, required: false, mode: 256, uid: 0, gid: 0 } from=- source= \
                 target=/run/secrets/s ro",
            ),
            (
                "type=secret,id=s,env=TOKEN,required",
                "Secret { id: \"s\", env: Some(\"TOKEN\"), required: true, mode: 256, uid: 0, gid: 0 } from=- source= \
                 target= ro",
            ),
            (
                "type=ssh",
                "Ssh { id: \"default\", required: false, mode: 384, uid: 0, gid: 0 } from=- source= target= ro",
            ),
            ("type=bind,\"target=/a,b\"", "Bind from=- source= target=/a,b ro"),
            ("type=cach,target=/c", "error: unsupported mount type `cach`, did you mean `cache`?"),
            ("targte=/c", "error: unexpected key `targte` in `--mount=targte=/c`, did you mean `target`?"),
            ("type=bind,target=/", "error: a mount's target cannot be `/`"),
            ("type=bind", "error: a mount needs a `target`"),
            ("target", "error: `target` in `--mount=target` must be `key=value`"),
            ("type=bind,target=/a,size=5", "error: `size` is not for a mount of type `bind`"),
            ("type=cache,target=/a,required", "error: `required` is not for a mount of type `cache`"),
            (
                "type=cache,target=/a,sharing=none",
                "error: unsupported sharing `none`: expected `shared`, `private` or `locked`",
            ),
            ("target=/a,mode=9", "error: invalid mode `9`: expected an octal number"),
            ("\"target=/a", "error: a quote in `\"target=/a` does not end"),
        ] {
            assert_eq!(show(text), expected, "{text}");
        }
        assert!(show("from=$X,target=/a").starts_with("error: variable expansion is not supported"));
        assert_eq!(mount_from("type=bind,from=base,target=/a").as_deref(), Some("base"));
    }
}

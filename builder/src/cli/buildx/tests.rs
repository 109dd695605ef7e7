use clap::Parser as _;

use super::*;
use crate::cli::args::{Arguments, BuildArguments, Command};

/// What `docker buildx build --help` lists (v0.30), and what its source hides.
const OF_BUILDX: &str = "add-host allow annotation attest build-arg build-context builder cache-from cache-to call \
    cgroup-parent check debug file iidfile label load metadata-file network no-cache no-cache-filter output platform policy \
    progress provenance pull push quiet resource sbom secret shm-size ssh tag target ulimit \
    compress cpu-period cpu-quota cpu-shares cpuset-cpus cpuset-mems force-rm memory memory-swap rm security-opt squash";

fn typed(line: &str) -> BuildArguments {
    let words = "fluyt build .".split(' ').chain(line.split(' ').filter(|word| !word.is_empty()));
    match Arguments::try_parse_from(words).unwrap_or_else(|error| panic!("{line}: {error}")).command {
        Command::Build(build) => *build,
        _ => panic!("{line} is no build"),
    }
}

fn said(line: &str, build_args: &[(&str, &str)]) -> Result<Vec<String>, Failure> {
    let build_args = build_args.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    notes(&typed(line).buildx, &build_args)
}

#[test]
fn the_table_has_each_flag_of_buildx_and_tells_the_truth() {
    let names: Vec<&str> = FLAGS.iter().map(|row| row.name).collect();
    assert_eq!(names, OF_BUILDX.split_whitespace().collect::<Vec<_>>());
    for row in FLAGS {
        let said = said(row.sample, &[]);
        match row.effect {
            Effect::Same | Effect::Differs(_) | Effect::Nothing(_) => {
                assert_eq!(said.unwrap(), Vec::<String>::new(), "{}", row.sample);
            }
            Effect::Noted(text) => {
                assert_eq!(said.unwrap(), [format!("`--{}` has no effect yet: {text}", row.name)], "{}", row.sample);
            }
            Effect::Refused(text) => assert_eq!(said.unwrap_err().hints, [text], "{}", row.sample),
        }
    }
    for row in ARGUMENTS {
        let said = said("", &[(row.name, row.sample)]).unwrap();
        assert_eq!(said.len(), usize::from(matches!(row.effect, Effect::Noted(_))), "{}", row.name);
    }
}

#[test]
fn the_docs_are_the_table() {
    let place = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/cli/buildx/table.md");
    let expected = table::markdown();
    if std::env::var_os("FLUYT_BLESS").is_some() {
        std::fs::write(&place, &expected).unwrap();
    }
    assert_eq!(std::fs::read_to_string(&place).unwrap(), expected, "FLUYT_BLESS=1 writes {}", place.display());
}

#[test]
fn what_is_not_wanted_needs_no_note() {
    for line in [
        "--provenance=false --sbom=false",
        "--provenance=disabled=true",
        "--attest type=provenance,disabled=true --attest type=sbom,disabled=true",
        "--attest type=provenance,mode=max --provenance=false",
        "--policy disabled=true",
        "--push=false --load=false --pull=0 --no-cache=f --quiet=False --squash=false",
        "--cgroup-parent=",
        "--attest= --cache-from= --cache-to=",
        "-D --explain=false --normalize=0 --reproducible=false --force-compression=false --debug=false",
    ] {
        assert_eq!(said(line, &[("BUILDKIT_INLINE_CACHE", "0")]).unwrap(), Vec::<String>::new(), "{line}");
    }
}

#[test]
fn what_ci_passes_is_taken() {
    let line = "--iidfile i --metadata-file m --provenance mode=min,inline-only=true,builder-id=https://ci/run/1 --builder b-1 \
                --attest type=sbom,\"generator=a,b\" --cache-from type=gha,scope=x --cache-to type=gha,mode=max -t a:1 --push";
    let line = line.replace(['\n', '\\'], " ").split_whitespace().collect::<Vec<_>>().join(" ");
    let notes = said(&line, &[]).unwrap();
    let flags: Vec<&str> = notes.iter().filter_map(|note| note.split('`').nth(1)).collect();
    assert_eq!(flags, ["--cache-from", "--provenance", "--sbom"]);
    assert!(notes[0].starts_with("`--cache-from` and `--cache-to` have no effect yet: "), "{}", notes[0]);
    assert!(typed(&line).push);
    let twice = typed(
        "--progress tty --progress plain --push --push=false --no-cache=false --no-cache -t a -t b --network none --network host",
    );
    assert_eq!(twice.progress, crate::cli::args::Progress::Plain);
    assert_eq!((twice.push, twice.no_cache, twice.buildx.network.as_deref()), (false, true, Some("host")));
    assert_eq!(twice.tags, ["a", "b"]);
    let both = typed("-qt name");
    assert!(both.quiet && both.tags == ["name"]);
}

#[test]
fn slips_are_told() {
    for (line, part) in [
        ("--attest mode=max", "it has no `type`"),
        ("--attest type=other", "unknown attestation type `other`"),
        ("--attest sbom", "`sbom` is no `key=value`"),
        ("--provenance yes", "`yes` is no `key=value`"),
        ("--cache-to ref=a,mode=max", "it has no `type`"),
        ("--cache-from type=git,ref=a", "unknown type `git`"),
        ("--cache-from type=s3,bucket", "`bucket` is no `key=value`"),
    ] {
        let failure = said(line, &[]).unwrap_err();
        assert!(failure.message.contains(part), "{line}: {}", failure.message);
    }
}

//! Contexts and Dockerfiles on standard input.

use super::place::{Place, compressed, tar_of};

const DOCKERFILE: &str = "FROM scratch\nCOPY a /\nCOPY d /d\n";

fn context() -> Vec<u8> {
    tar_of(&[
        ("Dockerfile", 0o644, 0, DOCKERFILE),
        (".dockerignore", 0o644, 0, "a\n"),
        ("a", 0o640, 7, "one"),
        ("d/b", 0o755, 0, "two"),
    ])
}

/// Owners are the archive's, and its ignore file hides nothing.
const FILES: [&str; 3] = ["f 640 7:7 /a one", "d 755 0:0 /d", "f 755 0:0 /d/b two"];

#[test]
fn an_archive_on_standard_input_is_the_context_whatever_compressed_it() {
    let place = Place::new();
    let tar = context();
    assert_eq!(place.build_with(&["-"], Some(&tar)).files, FILES);
    for program in ["gzip", "bzip2", "xz", "zstd"] {
        assert_eq!(place.build_with(&["-"], Some(&compressed(program, &tar))).files, FILES, "{program}");
    }
}

#[test]
fn an_archives_content_decides_what_is_found_again() {
    let place = Place::new();
    let first = place.build_with(&["-"], Some(&context()));
    assert!(!first.found("COPY a"), "{}", first.said);
    let again = place.build_with(&["-"], Some(&context()));
    assert!(again.found("COPY a") && again.found("COPY d"), "{}", again.said);
    let other = tar_of(&[("Dockerfile", 0o644, 0, DOCKERFILE), ("a", 0o640, 7, "new"), ("d/b", 0o755, 0, "two")]);
    let changed = place.build_with(&["-"], Some(&other));
    assert_eq!(changed.files[0], "f 640 7:7 /a new");
    assert!(!changed.found("COPY a") && changed.found("COPY d"), "{}", changed.said);
}

#[test]
fn the_dockerfile_of_an_archive_is_named_or_usual() {
    let place = Place::new();
    let tar = tar_of(&[
        ("build/other", 0o644, 0, "FROM scratch\nCOPY a /other\n"),
        ("Containerfile", 0o644, 0, "FROM scratch\nCOPY a /usual\n"),
        ("a", 0o644, 0, "x"),
    ]);
    assert_eq!(place.build_with(&["-"], Some(&tar)).files, ["f 644 0:0 /usual x"]);
    assert_eq!(place.build_with(&["-f", "build/other", "-"], Some(&tar)).files, ["f 644 0:0 /other x"]);
    assert_eq!(place.build_with(&["-f", "../build/other", "-"], Some(&tar)).files, ["f 644 0:0 /other x"]);
    place.write("local", "FROM scratch\nCOPY a /local\n");
    let local = super::place::text(&place.path("local"));
    assert_eq!(place.build_with(&["-f", &local, "-"], Some(&tar)).files, ["f 644 0:0 /local x"]);
    let said = place.fail(1, &["-f", "absent", "-"], Some(&tar));
    assert!(said.contains("the Dockerfile absent does not exist"), "{said}");
    let said = place.fail(1, &["-"], Some(&tar_of(&[("a", 0o644, 0, "x")])));
    assert!(said.contains("no Dockerfile in standard input"), "{said}");
}

#[test]
fn a_link_of_an_archive_leads_to_the_dockerfile() {
    let place = Place::new();
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(tar::EntryType::Symlink);
    header.set_size(0);
    builder.append_link(&mut header, "Dockerfile", "real/file").unwrap();
    let mut header = tar::Header::new_ustar();
    let text = "FROM scratch\nCOPY <<a /a\nx\na\n";
    header.set_size(text.len() as u64);
    header.set_mode(0o644);
    builder.append_data(&mut header, "real/file", text.as_bytes()).unwrap();
    let tar = builder.into_inner().unwrap();
    assert_eq!(place.build_with(&["-"], Some(&tar)).files, ["f 644 0:0 /a x"]);
}

#[test]
fn what_is_no_archive_is_a_dockerfile_without_a_context() {
    let place = Place::new();
    let built = place.build_with(&["-"], Some(b"FROM scratch\nCOPY <<a /a\nx\na\n"));
    assert_eq!(built.files, ["f 644 0:0 /a x"]);
    let said = place.fail(1, &["-"], Some(b"FROM scratch\nCOPY a /a\n"));
    assert!(
        said.contains("`a` is not in the build context, which is empty: all that came was the Dockerfile"),
        "{said}"
    );
    place.write("D", "FROM scratch\n");
    let said = place.fail(2, &["-f", "D", "-"], Some(b"FROM scratch\n"));
    assert!(said.contains("standard input is no archive, so that it is a Dockerfile, and so is D"), "{said}");
    let said = place.fail(2, &["-f", "-", "-"], Some(b"FROM scratch\n"));
    assert!(said.contains("standard input cannot be the context and the Dockerfile"), "{said}");
}

#[test]
fn a_damaged_archive_is_told() {
    let place = Place::new();
    let mut gzip = compressed("gzip", &context());
    for left in [gzip.len() - 20, 100] {
        gzip.truncate(left);
        let said = place.fail(1, &["-"], Some(&gzip));
        assert!(said.contains("the context is an archive that cannot be read"), "{said}");
        assert!(said.contains("the archive's gzip stream is damaged or ends early"), "{said}");
    }
}

#[test]
fn a_dockerfile_on_standard_input_goes_with_a_folder() {
    let place = Place::new();
    place.write("context/a", "x");
    place.write("context/hidden", "y");
    place.write("context/.dockerignore", "hidden\n");
    place.write("context/Dockerfile", "not this one");
    let built = place.build_with(&["-f", "-", "context"], Some(b"FROM scratch\nCOPY . /\n"));
    let names: Vec<&str> = built.files.iter().filter_map(|line| line.split(' ').nth(3)).collect();
    assert_eq!(names, ["/.dockerignore", "/Dockerfile", "/a"]);
}

#[test]
fn a_mount_shows_an_archive() {
    if !rustix::process::geteuid().is_root() || !std::path::Path::new("/bin/busybox").exists() {
        println!("skipped: RUN needs root and /bin/busybox here");
        return;
    }
    let place = Place::new();
    let busybox = std::fs::read("/bin/busybox").unwrap();
    let mut builder = tar::Builder::new(tar_of(&[(
        "Dockerfile",
        0o644,
        0,
        "FROM scratch\nCOPY bin /bin/\nRUN --mount=target=/m [\"/bin/busybox\", \"cp\", \"/m/Dockerfile\", \"/seen\"]\n",
    )]));
    // Onto the end of the first archive comes a file that is no text.
    let first = builder.get_mut();
    first.truncate(first.len() - 1024);
    let mut header = tar::Header::new_ustar();
    header.set_size(busybox.len() as u64);
    header.set_mode(0o755);
    builder.append_data(&mut header, "bin/busybox", &busybox[..]).unwrap();
    let built = place.build_with(&["-"], Some(&builder.into_inner().unwrap()));
    assert!(built.files.iter().any(|line| line.starts_with("f 644 0:0 /seen FROM scratch")), "{:?}", built.said);
}

#[test]
fn a_store_in_the_context_is_in_no_image() {
    let place = Place::new();
    place.write("context/f", "x");
    let text = "FROM scratch\nCOPY . /all/\nCOPY f .fl* /wild/\nCOPY --from=named . /named/\n";
    place.write("context/Dockerfile", text);
    let arguments = ["--store", "context/.fluyt", "--build-context", "named=context", "context"];
    let notes = |said: &str| said.lines().filter(|line| line.contains("is the store")).count();
    // Its log grows and it gets folders, builds of others too, while it would be read.
    for round in 0..2 {
        let built = place.build(&arguments);
        let paths: Vec<&str> = built.files.iter().map(|line| line.split(' ').nth(3).unwrap()).collect();
        let expected =
            ["/all", "/all/Dockerfile", "/all/f", "/named", "/named/Dockerfile", "/named/f", "/wild", "/wild/f"];
        assert_eq!(paths, expected, "{}", built.said);
        assert_eq!(round > 0, built.found("COPY . /all/") && built.found("COPY --from=named . /named/"));
        assert!(built.said.contains("`.fluyt` of ") && notes(&built.said) == 1, "{}", built.said);
    }
    place.write("context/Dockerfile", "FROM scratch\nCOPY .fluyt/logs /logs\n");
    let said = place.fail(1, &arguments, None);
    assert!(said.contains("`.fluyt/logs` is in the folder where images and cached steps are kept"), "{said}");
    // Whoever hides it need not be told.
    place.write("context/Dockerfile", text);
    place.write("context/.dockerignore", ".fluyt\n");
    assert_eq!(notes(&place.build(&arguments).said), 0);
}

#[test]
fn a_mount_of_the_context_does_not_show_the_store() {
    if !rustix::process::geteuid().is_root() || !std::path::Path::new("/bin/busybox").exists() {
        println!("skipped: RUN needs root and /bin/busybox here");
        return;
    }
    let place = Place::new();
    place.write("context/busybox", std::fs::read("/bin/busybox").unwrap());
    place.write(
        "context/Dockerfile",
        "FROM scratch\nCOPY --chmod=755 busybox /bin/busybox\nRUN --mount=target=/m --mount=from=named,target=/n \
         [\"/bin/busybox\", \"sh\", \"-c\", \"/bin/busybox ls -A /m /n > /seen\"]\n",
    );
    let built = place.build(&["--store", "context/.fluyt", "--build-context", "named=context", "context"]);
    let seen = "f 644 0:0 /seen /m:\nDockerfile\nbusybox\n\n/n:\nDockerfile\nbusybox";
    assert!(built.files.iter().any(|line| line == seen), "{:?}", built.files);
    assert!(built.said.contains("`.fluyt` of "), "{}", built.said);
}

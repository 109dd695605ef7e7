//! `--build-context`: folders, images and layouts in the place of images and stages.

use super::place::Place;

const DOCKERFILE: &str = "FROM base AS one\n\
    FROM scratch\n\
    COPY --from=one /a /one\n\
    COPY --from=base a /two\n";

#[test]
fn a_folder_stands_for_an_image_with_its_own_rules() {
    let place = Place::new();
    place.write("context/Dockerfile", DOCKERFILE);
    place.write("context/.dockerignore", "a\n");
    place.write("other/a", "x");
    place.write("other/secret", "y");
    place.write("other/.dockerignore", "secret\n");
    let built = place.build(&["--build-context", "base=other", "context"]);
    assert_eq!(built.files, ["f 644 0:0 /one x", "f 644 0:0 /two x"]);
    let again = place.build(&["--build-context", "docker.io/library/base:latest=other", "context"]);
    assert!(again.found("COPY --from=base"), "{}", again.said);
    place.write("other/a", "changed");
    let changed = place.build(&["--build-context", "base=other", "context"]);
    assert_eq!(changed.files[0], "f 644 0:0 /one changed");
    assert!(!changed.found("COPY --from=base"), "{}", changed.said);
    place.write("context/Dockerfile", "FROM scratch\nCOPY --from=base secret /\n");
    let said = place.fail(1, &["--build-context", "base=other", "context"], None);
    assert!(said.contains("`secret` is hidden by rule `secret` at .dockerignore:1"), "{said}");
}

#[test]
fn a_folder_is_the_base_of_an_image() {
    let place = Place::new();
    place.write("context/Dockerfile", "FROM base\nCOPY --from=base a /b\n");
    place.write("other/a", "x");
    place.write("other/d/e", "y");
    let built = place.build(&["--build-context", "base=other", "context"]);
    assert_eq!(built.files, ["f 644 0:0 /a x", "f 644 0:0 /b x", "d 755 0:0 /d", "f 644 0:0 /d/e y"]);
}

#[test]
fn a_context_replaces_the_stage_of_its_name() {
    let place = Place::new();
    place.write("context/Dockerfile", "FROM absent.invalid/x AS Deps\nRUN false\nFROM scratch\nCOPY --from=deps a /\n");
    place.write("other/a", "x");
    let built = place.build(&["--build-context", "deps=other", "context"]);
    assert_eq!(built.files, ["f 644 0:0 /a x"]);
}

#[test]
fn a_context_for_one_platform_goes_first() {
    let place = Place::new();
    place.write("context/Dockerfile", "FROM scratch\nCOPY --from=base a /\n");
    place.write("all/a", "all");
    place.write("arm/a", "arm");
    let contexts = ["--build-context", "base=all", "--build-context", "base::linux/arm64=arm"];
    let build = |platform: &str| place.build(&[&contexts[..], &["--platform", platform, "context"]].concat()).files;
    assert_eq!(build("linux/amd64"), ["f 644 0:0 /a all"]);
    assert_eq!(build("linux/arm64"), ["f 644 0:0 /a arm"]);
}

#[test]
fn an_image_of_the_store_stands_for_another() {
    let place = Place::new();
    place.write("context/Dockerfile", "FROM scratch\nCOPY a /real\nENV X=1\n");
    place.write("context/a", "x");
    let built = place.run(&["-t", "localhost/real:1", "context"], None);
    assert!(built.status.success());
    place.write("context/Dockerfile", "FROM alpine:3.20\nCOPY --from=alpine:3.20 /real /again$X\n");
    let built = place.build(&["--build-context", "alpine:3.20=docker-image://localhost/real:1", "context"]);
    assert_eq!(built.files, ["f 644 0:0 /again1 x", "f 644 0:0 /real x"]);
    place.write("context/Dockerfile", "FROM alpine\nCOPY a /a\n");
    let built = place.build(&["--build-context", "alpine=docker-image://scratch", "context"]);
    assert_eq!(built.files, ["f 644 0:0 /a x"]);
}

#[test]
fn a_layout_stands_for_an_image() {
    let place = Place::new();
    place.write("context/Dockerfile", "FROM scratch\nCOPY a /real\nENV X=1\n");
    place.write("context/a", "x");
    for tag in ["v1", "latest"] {
        place.write("context/a", tag);
        let output = "type=oci,tar=false,dest=layout";
        let name = format!("localhost/real:{tag}");
        assert!(place.run(&["-t", &name, "-o", output, "context"], None).status.success());
    }
    place.write("context/Dockerfile", "FROM base\nCOPY --from=base /real /again$X\n");
    // Another store, which has none of it.
    std::fs::rename(place.path("store"), place.path("other-store")).unwrap();
    let built = place.build(&["--build-context", "base=oci-layout://layout:v1", "context"]);
    assert_eq!(built.files, ["f 644 0:0 /again1 v1", "f 644 0:0 /real v1"]);
    let built = place.build(&["--build-context", "base=oci-layout://layout", "context"]);
    assert_eq!(built.files[0], "f 644 0:0 /again1 latest");
    let said = place.fail(1, &["--build-context", "base=oci-layout://layout:v2", "context"], None);
    assert!(said.contains("it has no image `v2`; it has `v1`, `latest`"), "{said}");
    let said = place.fail(1, &["--build-context", "base=oci-layout://absent", "context"], None);
    assert!(said.contains("cannot use `oci-layout://absent`"), "{said}");
}

#[test]
fn what_cannot_be_a_context_is_told() {
    let place = Place::new();
    place.write("context/Dockerfile", "FROM scratch\n");
    for (value, expected) in [
        ("absent", "`--build-context x=absent`: absent is no folder"),
        ("target:y", "it is the result of another build"),
        ("docker-image://A B", "`--build-context x=docker-image://A B`"),
        ("https://h/x.git?what=1", "unexpected key `what`"),
    ] {
        let said = place.fail(1, &["--build-context", &format!("x={value}"), "context"], None);
        assert!(said.contains(expected), "{value}: {said}");
        assert!(said.contains("hint: "), "{said}");
    }
    let said = place.build(&["--build-context", "scratch=context", "context"]).said;
    assert!(said.contains("the name is reserved"), "{said}");
}

#[test]
fn a_mount_shows_a_named_context() {
    if !rustix::process::geteuid().is_root() || !std::path::Path::new("/bin/busybox").exists() {
        println!("skipped: RUN needs root and /bin/busybox here");
        return;
    }
    let place = Place::new();
    std::fs::copy("/bin/busybox", place.path("context/busybox")).unwrap();
    place.write(
        "context/Dockerfile",
        "FROM scratch\nCOPY busybox /bin/busybox\n\
         RUN --mount=from=extra,target=/m [\"/bin/busybox\", \"sh\", \"-c\", \"/bin/busybox cat /m/a /m/d/e > /seen\"]\n",
    );
    place.write("other/a", "1");
    place.write("other/d/e", "2");
    let seen = |built: super::place::Built| built.files.iter().find(|line| line.contains(" /seen ")).cloned();
    let built = place.build(&["--build-context", "extra=other", "context"]);
    assert_eq!(seen(built).unwrap(), "f 644 0:0 /seen 12");
    place.write("other/a", "3");
    let built = place.build(&["--build-context", "extra=other", "context"]);
    assert_eq!(seen(built).unwrap(), "f 644 0:0 /seen 32");
}

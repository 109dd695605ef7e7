//! Layers that are made to reach outside.

use super::*;

#[test]
fn a_path_with_dots_is_refused() {
    let bench = Bench::new();
    insta::assert_snapshot!(
        bench.refusal(|| Tar::default().file("a/../../outside", "evil")),
        @r#"the layer's entry "a/../../outside" has `..` in its path, and could leave the image"#
    );
}

#[test]
fn an_absolute_path_is_inside() {
    let bench = Bench::new();
    insta::assert_snapshot!(bench.both(|| Tar::default().file("/outside", "inside")), @r#"/outside "inside" 644 0 @1000"#);
}

#[test]
fn a_link_is_not_written_through() {
    let bench = Bench::new();
    let outside = bench.outside();
    let lines = bench.both(|| {
        Tar::default().symlink("a", &outside).file("a", "evil").symlink("b", "../outside").mode(0o777).file("b", "evil")
    });
    insta::assert_snapshot!(lines, @r#"
    /a "evil" 644 0 @1000
    /b "evil" 777 0 @1000
    "#);
}

#[test]
fn a_folder_behind_a_link_is_inside() {
    let bench = Bench::new();
    let folder = bench.folder.path().to_str().unwrap().to_owned();
    for target in ["../../../../..", "/..", "../", "/proc/self/root", "/proc/self/cwd/.."] {
        let bench = Bench::new();
        let lines = bench.both(|| Tar::default().symlink("up", target).file("up/outside", "evil").folder("up/x"));
        assert!(lines.contains(r#"outside "evil" 644"#), "{target}: {lines}");
    }
    let lines = bench.both(|| Tar::default().symlink("up", &folder).file("up/outside", "evil"));
    assert!(lines.contains(&format!(r#"{folder}/outside "evil" 644 0 @1000"#)), "{lines}");
}

#[test]
fn a_chain_of_links_to_the_outside_is_inside() {
    let bench = Bench::new();
    let lines = bench.both(|| {
        Tar::default().symlink("a", "b/..").symlink("b", "c/..").symlink("c", "../..").file("a/outside", "evil").raw(
            "a/.wh.outside",
            b'0',
            "",
            b"",
        )
    });
    insta::assert_snapshot!(lines, @r#"
    /a -> b/.. 777 0 @1000
    /b -> c/.. 777 0 @1000
    /c -> ../.. 777 0 @1000
    /outside "evil" 644 0 @1000
    "#);
}

#[test]
fn links_in_a_circle_end() {
    let bench = Bench::new();
    insta::assert_snapshot!(
        bench.refusal(|| Tar::default().symlink("a", "b").symlink("b", "a").file("a/x", "")),
        @"the layer's entry /a/x is behind more than 40 symbolic links"
    );
}

#[test]
fn a_hard_link_cannot_have_the_outside_as_its_target() {
    let bench = Bench::new();
    let outside = bench.outside();
    insta::assert_snapshot!(
        bench.refusal(|| Tar::default().hardlink("a", "../outside")),
        @r#"the layer's entry "a" has `..` in its path, and could leave the image"#
    );
    let error = bench.refusal(|| Tar::default().hardlink("a", &outside));
    assert!(error.contains("is not there: a link's first name comes before it in the same layer"), "{error}");
    let error = bench.refusal(|| Tar::default().symlink("up", "../../..").hardlink("a", "up/outside"));
    assert!(error.contains("/a is a hard link to /up/outside, which is not there"), "{error}");
}

#[test]
fn a_hard_link_to_a_link_is_not_written_through() {
    let bench = Bench::new();
    let outside = bench.outside();
    let lines = bench.both(|| Tar::default().symlink("a", &outside).hardlink("b", "a").file("b", "evil"));
    assert!(lines.contains("/b \"evil\" 644 0 @1000"), "{lines}");
}

#[test]
fn a_hard_link_to_a_folder_the_root_or_a_removed_name_is_refused() {
    let bench = Bench::new();
    insta::assert_snapshot!(
        bench.refusal(|| Tar::default().folder("d").hardlink("a", "d")),
        @"the layer's entry /a is a hard link to /d, which is a folder"
    );
    let error = bench.refusal(|| Tar::default().hardlink("a", "/"));
    assert!(error.contains("a hard link without a target"), "{error}");
    if as_root() {
        let below = bench.tree("base");
        fs::write(below.join("d"), "").unwrap();
        let tar = Tar::default().raw(".wh.d", b'0', "", b"").hardlink("a", "d");
        let error = bench.apply("top", tar, Form::Overlay { lowers: &[below] }).unwrap_err();
        insta::assert_snapshot!(error, @"the layer's entry /a is a hard link to /d, which this layer removes");
    }
}

#[test]
fn a_whiteout_of_nothing_or_of_the_folder_itself_is_refused() {
    let bench = Bench::new();
    for name in [".wh.", ".wh..", ".wh...", "a/.wh..."] {
        let error = bench.refusal(|| Tar::default().raw(name, b'0', "", b""));
        assert!(error.contains("is no valid whiteout: it names no file"), "{name}: {error}");
    }
}

#[test]
fn a_file_is_no_folder() {
    let bench = Bench::new();
    insta::assert_snapshot!(
        bench.refusal(|| Tar::default().file("a", "").file("a/b/c", "")),
        @"the layer's entry /a/b/c stands in /a, which is no folder in this image"
    );
    if as_root() {
        let error = bench.refusal(|| Tar::default().device("n", b'3', 1, 3).file("n/b", ""));
        assert!(error.contains("/n/b stands in /n, which is no folder"), "{error}");
    }
}

#[test]
fn a_name_that_no_file_system_has_is_refused() {
    let bench = Bench::new();
    let name = "n".repeat(256);
    let error = bench.refusal(|| Tar::default().pax(&[("path", name.as_bytes())]).file("x", ""));
    assert!(error.starts_with("making /nnn") && error.contains("File name too long"), "{error}");
}

#[test]
fn attributes_that_direct_overlayfs_are_left_out() {
    let bench = Bench::new();
    let tar = || {
        Tar::default()
            .pax(&[
                ("SCHILY.xattr.trusted.overlay.redirect", b"/etc"),
                ("SCHILY.xattr.trusted.overlay.opaque", b"y"),
                ("SCHILY.xattr.user.overlay.whiteout", b"y"),
            ])
            .folder("d")
            .device("w", b'3', 0, 0)
    };
    insta::assert_snapshot!(bench.both(tar), @"/d dir 755 0 @1000");
    let applied = bench.apply("top", tar(), Form::Flat).unwrap();
    // Who is not root cannot give files to root either.
    let left_out = applied.left_out.iter().filter(|left_out| !left_out.what.contains("its owner"));
    let left_out: Vec<_> = left_out.map(|left_out| format!("{}: {}", left_out.path, left_out.what)).collect();
    insta::assert_snapshot!(left_out.join("\n"), @"
    /w: a character device 0:0, which overlayfs takes for a removed file
    /d: its attribute trusted.overlay.opaque, which would direct overlayfs
    /d: its attribute trusted.overlay.redirect, which would direct overlayfs
    /d: its attribute user.overlay.whiteout, which would direct overlayfs
    ");
}

#[test]
fn a_deep_tree_is_unpacked_and_replaced() {
    let bench = Bench::new();
    let deep = vec!["d"; 500].join("/");
    let lines = bench.both(|| Tar::default().pax(&[("path", deep.as_bytes())]).file("x", "deep"));
    assert_eq!(lines.lines().count(), 500);
    let lines = bench.both(|| Tar::default().pax(&[("path", deep.as_bytes())]).file("x", "deep").file("d", "flat"));
    assert_eq!(lines, "/d \"flat\" 644 0 @1000\n");
}

#[test]
fn more_than_the_limits_is_refused() {
    let bench = Bench::new();
    let mut bytes = Tar::default().file("a", "").file("b", "").file("c", "").bytes;
    bytes.resize(bytes.len() + 1024, 0);
    let limits = Limits { entries: 2, ..Limits::DEFAULT };
    let error = apply_layer(&bytes[..], "", &limits, &bench.tree("root"), Form::Flat).unwrap_err();
    assert_eq!(error.to_string(), "the layer has more than 2 entries");
}

#[test]
fn a_cut_layer_is_told_as_that() {
    let bench = Bench::new();
    let bytes = Tar::default().file("a", &"x".repeat(2000)).bytes;
    let error = apply_layer(&bytes[..1024], "", &Limits::DEFAULT, &bench.tree("root"), Form::Flat).unwrap_err();
    assert_eq!(error.to_string(), "the layer's tar ends inside the content of an entry");
}

#[test]
fn opening_by_steps_follows_no_links_either() {
    let bench = Bench::new();
    let outside = bench.folder.path().to_str().unwrap().to_owned();
    bench.apply("root", Tar::default().file("d/e/f", "").symlink("up", &outside), Form::Flat).unwrap();
    std::os::unix::fs::symlink("..", bench.tree("root").join("d/up")).unwrap();
    let applier = Applier::new(&bench.tree("root"), Form::Flat).unwrap();
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW;
    for (path, found) in [
        ("", true),
        ("d", true),
        ("d/e", true),
        ("d/e/f", false),
        ("d/e/f/g", false),
        ("none/x", false),
        ("up", false),
        ("up/outside", false),
        ("d/up", false),
        ("d/up/d", false),
    ] {
        let path = LayerPath::clean(path.as_bytes()).unwrap();
        assert_eq!(applier.open(&path).is_ok(), found, "{path}");
        assert_eq!(applier.open_by_steps(&path, flags).is_ok(), found, "{path}");
    }
}

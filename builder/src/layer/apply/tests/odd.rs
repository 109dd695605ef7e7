//! Layers that are odd, and right.

use super::*;

#[test]
fn names_come_twice_and_the_later_one_counts() {
    let bench = Bench::new();
    let lines = bench.both(|| {
        Tar::default()
            .file("file-file", "first")
            .file("file-file", "second")
            .file("file-dir", "")
            .mode(0o700)
            .folder("file-dir")
            .folder("dir-file")
            .file("dir-file/x", "")
            .file("dir-file", "now a file")
            .mode(0o500)
            .folder("dir-dir")
            .file("dir-dir/kept", "")
            .mode(0o711)
            .mtime(7)
            .folder("dir-dir")
            .mode(0)
            .folder("dir-link")
            .symlink("dir-link", "dir-dir")
            .folder("dir-file-dir")
            .file("dir-file-dir", "")
            .file("dir-file-dir", "")
            .mode(0o1777)
            .folder("dir-file-dir")
    });
    insta::assert_snapshot!(lines, @r#"
    /dir-dir dir 711 0 @7
    /dir-dir/kept "" 644 0 @1000
    /dir-file "now a file" 644 0 @1000
    /dir-file-dir dir 1777 0 @1000
    /dir-link -> dir-dir 777 0 @1000
    /file-dir dir 700 0 @1000
    /file-file "second" 644 0 @1000
    "#);
}

#[test]
fn links_in_the_place_of_folders_are_followed_inside() {
    let bench = Bench::new();
    let lines = bench.both(|| {
        Tar::default()
            .symlink("lib", "usr/lib")
            .file("lib/before", "1")
            .mode(0o750)
            .folder("usr/lib")
            .file("lib/after", "2")
            .symlink("bin", "/usr/bin")
            .folder("bin/sub")
            .file("bin/sub/x", "3")
            .hardlink("sbin", "bin/sub/x")
            .symlink("far", "lib/../../../usr/./lib//more")
            .file("far/y", "4")
    });
    insta::assert_snapshot!(lines, @r#"
    /bin -> /usr/bin 777 0 @1000
    /far -> lib/../../../usr/./lib//more 777 0 @1000
    /lib -> usr/lib 777 0 @1000
    /sbin "3" x2 644 0 @1000
    /usr dir 755 0 @0
    /usr/bin dir 755 0 @0
    /usr/bin/sub dir 755 0 @1000
    /usr/bin/sub/x "3" x2 644 0 @1000
    /usr/lib dir 750 0 @1000
    /usr/lib/after "2" 644 0 @1000
    /usr/lib/before "1" 644 0 @1000
    /usr/lib/more dir 755 0 @0
    /usr/lib/more/y "4" 644 0 @1000
    "#);
}

#[test]
fn owners_modes_and_times_are_set() {
    if !as_root() {
        return;
    }
    let bench = Bench::new();
    let tar = || {
        Tar::default()
            .owner(1000)
            .mode(0o6755)
            .file("setuid", "x")
            .owner(33)
            .mode(0o2500)
            .folder("d")
            .pax(&[("mtime", b"-5.25")])
            .file("d/early", "")
            .owner(5)
            .symlink("link", "nowhere")
            .owner(6)
            .mode(0o622)
            .raw("pipe", b'6', "", b"")
            .owner(7)
            .mode(0o660)
            .device("block", b'4', 8, 1)
            .device("char", b'3', 1, 3)
            .pax(&[("uid", b"4294967295")])
            .file("nobody", "")
    };
    insta::assert_snapshot!(bench.both(tar), @r#"
    /block BlockDevice 8:1 660 7 @1000
    /char CharacterDevice 1:3 644 0 @1000
    /d dir 2500 33 @1000
    /d/early "" 644 0 @-6
    /link -> nowhere 777 5 @1000
    /nobody "" 644 65534 @1000
    /pipe Fifo 0:0 622 6 @1000
    /setuid "x" 6755 1000 @1000
    "#);
    let metadata = fs::symlink_metadata(bench.tree("root").join("d/early")).unwrap();
    assert_eq!((metadata.mtime(), metadata.mtime_nsec()), (-6, 750_000_000));
    let applied = bench.apply("top", tar(), Form::Flat).unwrap();
    let left_out: Vec<_> = applied.left_out.iter().map(|left_out| &left_out.what[..]).collect();
    assert_eq!(left_out, ["its owner 4294967295:0, which no file can have"]);
}

#[test]
fn devices_are_left_out_where_commands_could_open_them() {
    if !as_root() {
        return;
    }
    let bench = Bench::new();
    let tar = Tar::default().file("was", "a file").file("kept", "").raw("pipe", b'6', "", b"");
    bench.apply("flat", tar, Form::FlatWithoutDevices).unwrap();
    let applied = bench.apply("flat", Tar::default().device("was", b'4', 8, 1), Form::FlatWithoutDevices).unwrap();
    let left_out: Vec<_> = applied.left_out.iter().map(|left_out| &left_out.what[..]).collect();
    assert_eq!(left_out, ["a device, which we may not make here"]);
    let mut names: Vec<_> = fs::read_dir(bench.tree("flat")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["kept", "pipe"], "what a device took the place of is gone");
}

#[test]
fn attributes_are_set_after_the_owner() {
    if !as_root() {
        return;
    }
    let bench = Bench::new();
    // `cap_net_raw=ep`, version 2.
    let capability: &[u8] = &[1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let tar = || {
        Tar::default()
            .pax(&[("SCHILY.xattr.security.capability", capability), ("SCHILY.xattr.trusted.mine", b"\0\xFF")])
            .owner(9)
            .mode(0o755)
            .file("ping", "x")
            .pax(&[("SCHILY.xattr.trusted.dir", b"d")])
            .mode(0o500)
            .folder("d")
            .pax(&[("SCHILY.xattr.trusted.link", b"l")])
            .symlink("l", "ping")
    };
    bench.both(tar);
    for (name, attribute, expected) in [
        ("ping", "security.capability", capability),
        ("ping", "trusted.mine", b"\0\xFF"),
        ("d", "trusted.dir", b"d"),
        ("l", "trusted.link", b"l"),
    ] {
        let mut value = [0; 64];
        let length = rustix::fs::lgetxattr(bench.tree("root").join(name), attribute, &mut value[..]).unwrap();
        assert_eq!(&value[..length], expected, "{name} {attribute}");
    }
}

#[test]
fn long_names_and_paths_are_kept() {
    let bench = Bench::new();
    let name = "n".repeat(255);
    let path = [&name[..], &name[..], "\u{fc}"].join("/");
    let lines = bench.both(|| Tar::default().pax(&[("path", path.as_bytes())]).file("x", "long"));
    assert!(lines.contains(&format!("/{path} \"long\" 644 0 @1000")), "{lines}");
}

#[test]
fn a_link_to_itself_is_nothing() {
    let bench = Bench::new();
    let lines = bench.both(|| {
        Tar::default().file("a", "a").hardlink("a", "a").symlink("here", ".").hardlink("a", "here/a").hardlink("b", "a")
    });
    insta::assert_snapshot!(lines, @r#"
    /a "a" x2 644 0 @1000
    /b "a" x2 644 0 @1000
    /here -> . 777 0 @1000
    "#);
}

/// What the removals of a layer leave, in both forms: the layer alone, then what flat form shows.
fn removals(bench: &Bench, base: impl Fn() -> Tar, top: impl Fn() -> Tar) -> String {
    bench.apply("base", base(), Form::Overlay { lowers: &[] }).unwrap();
    let lowers = [bench.tree("base")];
    bench.apply("top", top(), Form::Overlay { lowers: &lowers }).unwrap();
    bench.apply("flat", base(), Form::Flat).unwrap();
    bench.apply("flat", top(), Form::Flat).unwrap();
    format!("{}flat:\n{}", outline(&bench.tree("top")), outline(&bench.tree("flat")))
}

fn some() -> Tar {
    Tar::default()
        .owner(3)
        .mode(0o750)
        .mtime(5)
        .folder("d")
        .file("d/1", "1")
        .folder("d/e")
        .file("d/e/2", "2")
        .file("f", "f")
        .symlink("l", "d/e")
}

#[test]
fn removals_are_marked_or_done() {
    if !as_root() {
        return;
    }
    let top = || Tar::default().file("d/.wh.1", "").file("d/e/.wh.none", "").file(".wh.f", "").file("l/.wh.2", "");
    insta::assert_snapshot!(removals(&Bench::new(), some, top), @r"
    /d dir 750 3 @5
    /d/1 removed
    /d/e dir 755 0 @1000
    /d/e/2 removed
    /f removed
    flat:
    /d dir 750 3 @5
    /d/e dir 755 0 @1000
    /l -> d/e 777 0 @1000
    ");
}

#[test]
fn a_removal_does_not_touch_its_own_layer() {
    if !as_root() {
        return;
    }
    let top = || {
        Tar::default()
            .file("d/new", "n")
            .file("d/e/new", "n")
            .file("d/.wh..wh..opq", "")
            .file("f", "new")
            .file(".wh.f", "")
    };
    insta::assert_snapshot!(removals(&Bench::new(), some, top), @r#"
    /d opaque dir 750 3 @5
    /d/e dir 755 0 @1000
    /d/e/new "n" 644 0 @1000
    /d/new "n" 644 0 @1000
    /f "new" 644 0 @1000
    flat:
    /d dir 750 3 @5
    /d/e dir 755 0 @1000
    /d/e/new "n" 644 0 @1000
    /d/new "n" 644 0 @1000
    /f "new" 644 0 @1000
    /l -> d/e 777 0 @1000
    "#);
}

#[test]
fn what_was_removed_is_made_anew() {
    if !as_root() {
        return;
    }
    let top = || Tar::default().file(".wh.d", "").file("d/e/3", "3").file(".wh.l", "").file("l/x", "x");
    insta::assert_snapshot!(removals(&Bench::new(), some, top), @r#"
    /d opaque dir 755 0 @0
    /d/e dir 755 0 @0
    /d/e/3 "3" 644 0 @1000
    /l opaque dir 755 0 @0
    /l/x "x" 644 0 @1000
    flat:
    /d dir 755 0 @0
    /d/e dir 755 0 @0
    /d/e/3 "3" 644 0 @1000
    /f "f" 644 0 @1000
    /l dir 755 0 @0
    /l/x "x" 644 0 @1000
    "#);
}

#[test]
fn all_that_is_below_the_root_can_be_removed() {
    if !as_root() {
        return;
    }
    let top = || Tar::default().file("d/new", "n").file(".wh..wh..opq", "");
    insta::assert_snapshot!(removals(&Bench::new(), some, top), @r#"
    /d opaque dir 750 3 @5
    /d/new "n" 644 0 @1000
    /f removed
    /l removed
    flat:
    /d dir 750 3 @5
    /d/new "n" 644 0 @1000
    "#);
}

#[test]
fn a_link_to_a_file_below_brings_it() {
    if !as_root() {
        return;
    }
    let base = || some().pax(&[("SCHILY.xattr.trusted.mine", b"x")]).owner(9).mode(0o4711).file("d/e/2", "2");
    let top = || Tar::default().hardlink("n", "l/2").hardlink("m", "l/2").hardlink("f2", "f");
    let bench = Bench::new();
    insta::assert_snapshot!(removals(&bench, base, top), @r#"
    /d dir 750 3 @5
    /d/e dir 755 0 @1000
    /d/e/2 "2" x3 4711 9 @1000
    /f "f" x2 644 0 @1000
    /f2 "f" x2 644 0 @1000
    /m "2" x3 4711 9 @1000
    /n "2" x3 4711 9 @1000
    flat:
    /d dir 750 3 @5
    /d/1 "1" 644 0 @1000
    /d/e dir 755 0 @1000
    /d/e/2 "2" x3 4711 9 @1000
    /f "f" x2 644 0 @1000
    /f2 "f" x2 644 0 @1000
    /l -> d/e 777 0 @1000
    /m "2" x3 4711 9 @1000
    /n "2" x3 4711 9 @1000
    "#);
    let mut value = [0; 8];
    assert_eq!(rustix::fs::lgetxattr(bench.tree("top").join("n"), "trusted.mine", &mut value[..]), Ok(1));
}

#[test]
fn the_lowest_layer_has_no_removals() {
    let bench = Bench::new();
    let lines = bench.both(|| Tar::default().file(".wh.a", "").file("d/.wh.b", "").file("e/.wh..wh..opq", ""));
    assert_eq!(lines, "");
}

#[test]
fn it_is_told_whether_the_layers_below_mattered() {
    let bench = Bench::new();
    bench.apply("base", some(), Form::Overlay { lowers: &[] }).unwrap();
    let lowers = [bench.tree("base")];
    let depends = |tar: Tar| {
        fs::remove_dir_all(bench.tree("top")).unwrap();
        let applied = bench.apply("top", tar, Form::Overlay { lowers: &lowers }).unwrap();
        (applied.depends_on_lowers, applied.has_root)
    };
    assert_eq!(depends(Tar::default().file("x", "")), (false, false));
    assert_eq!(depends(Tar::default().folder("./").folder("d").file("d/x", "")), (false, true));
    assert_eq!(depends(Tar::default().file("d/x", "").folder("d")), (false, false));
    assert_eq!(depends(Tar::default().file("d/x", "")), (true, false));
    assert_eq!(depends(Tar::default().folder("d").folder("d/e").file("l/x", "")), (true, false));
}

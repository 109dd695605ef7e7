//! Layers unpacked, and changed, by somebody who cannot give files away.

use std::os::unix::fs::{PermissionsExt, symlink};

use super::*;
use crate::layer::{Change, Manifest, note_owners};
use crate::owners::tests::as_ordinary_user;
use crate::owners::{Inode, Inodes, Owner, Paths};

fn layer() -> Vec<u8> {
    Tar::default()
        .owner(8)
        .mode(0o2775)
        .raw("mail/", b'5', "", b"")
        .owner(33)
        .mode(0o4755)
        .file("mail/box", "x")
        .owner(33)
        .raw("mail/link", b'2', "box", b"")
        .raw("mail/again", b'1', "mail/link", b"")
        .owner(5)
        .raw("mail/pipe", b'6', "", b"")
        .raw("mail/roots", b'2', "box", b"")
        .owner(7)
        .raw("mail/replaced", b'2', "box", b"")
        .raw("mail/replaced", b'2', "box", b"")
        .ended()
}

impl Tar {
    fn ended(mut self) -> Vec<u8> {
        self.bytes.extend([0; 1024]);
        self.bytes
    }
}

fn outline(changes: &[Change]) -> Vec<String> {
    let line = |Change { entry, .. }: &Change| format!("{} {:o} {}:{}", entry.path, entry.mode, entry.uid, entry.gid);
    changes.iter().map(line).collect()
}

#[test]
fn owners_are_recorded_on_files_and_beside_the_tree() {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let root = folder.path().join("fs");
    as_ordinary_user(move || {
        fs::create_dir(&root).unwrap();
        let empty = Manifest::of(&root).unwrap();
        let media_type = "application/vnd.oci.image.layer.v1.tar";
        let applied = apply_layer(&layer()[..], media_type, &Limits::DEFAULT, &root, Form::Flat).unwrap();
        assert_eq!(applied.left_out, []);
        let table = applied.owners;
        let known: Vec<_> = table.iter().map(|(path, owner)| (String::from_utf8_lossy(path), owner.uid)).collect();
        let expected = [("mail", 8), ("mail/again", 33), ("mail/link", 33), ("mail/pipe", 5)];
        assert_eq!(known, expected.map(|(path, owner)| (path.into(), owner)));
        table.write_for(&root).unwrap();

        // All of it is as the layer has it.
        let all = empty.changes(&root).unwrap();
        assert_eq!(outline(&all)[..2], ["/mail 2775 8:8", "/mail/again 777 0:0"]);
        let before = Manifest::of(&root).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(20));

        // What a run changes, with what its supervisor notes.
        crate::owners::give(&root.join("mail/box"), Owner { uid: 0, gid: 42 }).unwrap();
        symlink("box", root.join("mail/new")).unwrap();
        fs::remove_file(root.join("mail/again")).unwrap();
        let set = |path: &str| crate::owners::give(&root.join(path), Owner { uid: 1, gid: 1 });
        assert_eq!(set("mail/new"), Ok(crate::owners::Given::Not));
        let mut run = Inodes::default();
        let inode = Inode::of(&fs::symlink_metadata(root.join("mail/new")).unwrap());
        run.insert(inode, Owner { uid: 1, gid: 1 });
        run.write_for_run(&root).unwrap();
        fs::rename(root.join("mail/new"), root.join("mail/renamed")).unwrap();
        let changes = before.changes(&root).unwrap();
        let expected = [
            "/mail 2775 8:8",
            "/mail/again 0 0:0",
            "/mail/box 4755 0:42",
            "/mail/link 777 33:33",
            "/mail/renamed 777 1:1",
        ];
        assert_eq!(outline(&changes), expected);
        let mut table = Paths::of_tree(&root).unwrap();
        note_owners(&mut table, &changes);
        let known: Vec<_> = table.iter().map(|(path, owner)| (String::from_utf8_lossy(path), owner.uid)).collect();
        let expected = [("mail", 8), ("mail/link", 33), ("mail/pipe", 5), ("mail/renamed", 1)];
        assert_eq!(known, expected.map(|(path, owner)| (path.into(), owner)));
    });
}

#[test]
fn a_layer_cannot_bring_records_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let root = folder.path().join("fs");
    as_ordinary_user(move || {
        fs::create_dir(&root).unwrap();
        let forged = Tar::default().pax(&[("SCHILY.xattr.user.fluyt.owner", b"0:0")]).owner(9).file("file", "").ended();
        let media_type = "application/vnd.oci.image.layer.v1.tar";
        let applied = apply_layer(&forged[..], media_type, &Limits::DEFAULT, &root, Form::Flat).unwrap();
        let left_out: Vec<_> = applied.left_out.iter().map(|left_out| &left_out.what[..]).collect();
        assert_eq!(left_out, ["its attribute user.fluyt.owner, in which we record owners"]);
        assert_eq!(crate::owners::recorded(&root.join("file")), Some(Owner { uid: 9, gid: 9 }));
    });
}

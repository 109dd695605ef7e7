use std::fs;
use std::os::unix::fs::symlink;

use proptest::prelude::*;

use super::*;

#[test]
fn an_owner_is_written_in_one_way_only() {
    let owner = Owner { uid: 4_294_967_294, gid: 33 };
    assert_eq!(owner.text(), "4294967294:33");
    assert!(Owner { uid: u32::MAX, gid: u32::MAX }.text().len() <= TEXT_MAX_BYTES);
    assert_eq!(Owner::parse(owner.text().as_bytes()), Some(owner));
    for other in ["", "33", "33:", ":33", "33:33:33", "+33:33", " 33:33", "-1:0", "33:4294967296", "a:b"] {
        assert_eq!(Owner::parse(other.as_bytes()), None, "{other}");
    }
}

#[test]
fn tables_are_read_back_as_written() {
    let folder = tempfile::tempdir().unwrap();
    let tree = folder.path().join("fs");
    fs::create_dir(&tree).unwrap();
    symlink("nowhere", tree.join("link")).unwrap();
    let mut paths = Paths::default();
    paths.insert(b"a b/caf\xE9", Owner { uid: 1, gid: 2 });
    paths.insert(b"a b", Owner { uid: 3, gid: 4 });
    paths.insert(b"a bc", Owner { uid: 5, gid: 6 });
    paths.write_for(&tree).unwrap();
    assert_eq!(Paths::of_tree(&tree).unwrap(), paths);
    paths.forget(b"a b");
    assert_eq!(paths.iter().collect::<Vec<_>>(), [(&b"a bc"[..], Owner { uid: 5, gid: 6 })]);

    let inode = Inode::of(&fs::symlink_metadata(tree.join("link")).unwrap());
    let mut inodes = Inodes::default();
    inodes.insert(inode, Owner { uid: 7, gid: 8 });
    inodes.write_for_run(&tree).unwrap();
    assert_eq!(Inodes::of_run(&tree).unwrap().get(&inode), Some(Owner { uid: 7, gid: 8 }));

    // An empty table is no file.
    Paths::default().write_for(&tree).unwrap();
    assert!(!table(&tree).exists() && run_table(&tree).exists());
    assert_eq!(Paths::of_tree(&tree).unwrap(), Paths::default());
    fs::write(table(&tree), "root:root x\0").unwrap();
    assert!(Paths::of_tree(&tree).unwrap_err().to_string().contains("expected `USER:GROUP NAME`, found `root:root x`"));
}

/// Does something as an ordinary user, in a thread of its own: ids belong to threads.
pub(crate) fn as_ordinary_user(work: impl FnOnce() + Send + 'static) {
    std::thread::spawn(move || {
        if geteuid().is_root() {
            let (uid, gid) = (Uid::from_raw(4711), Gid::from_raw(4712));
            rustix::thread::set_thread_groups(&[]).unwrap();
            rustix::thread::set_thread_res_gid(gid, gid, gid).unwrap();
            rustix::thread::set_thread_res_uid(uid, uid, uid).unwrap();
        }
        work();
    })
    .join()
    .unwrap();
}

#[test]
fn an_ordinary_user_records_what_he_cannot_give() {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    let path = folder.path().to_owned();
    as_ordinary_user(move || {
        let (file, link) = (path.join("file"), path.join("link"));
        fs::write(&file, "").unwrap();
        symlink("file", &link).unwrap();
        let owner = |path: &Path| of(path, &fs::symlink_metadata(path).unwrap());
        assert_eq!((owner(&file), owner(&link)), (Owner::ROOT, Owner::ROOT));
        let other = Owner { uid: 33, gid: 0 };
        assert_eq!(give(&file, other), Ok(Given::Recorded));
        assert_eq!(give(&link, other), Ok(Given::Not));
        assert_eq!(owner(&file), other);
        // His own id is one of the image's like every other.
        let own = Owner { uid: geteuid().as_raw(), gid: getegid().as_raw() };
        let opened = fs::File::open(&file).unwrap();
        assert_eq!(give_open(opened.as_fd(), own), Ok(Given::Recorded));
        assert_eq!(owner(&file), own);
        assert_eq!(give(&file, Owner::ROOT), Ok(Given::Recorded));
        assert_eq!((recorded(&file), owner(&file)), (None, Owner::ROOT));
    });
}

#[test]
fn root_of_the_machine_records_nothing() {
    if are_recorded() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    let forged = Owner { uid: 1, gid: 1 };
    // Not every file system of a temporary folder has such attributes.
    let _ = rustix::fs::lsetxattr(&file, ATTRIBUTE, forged.text().as_bytes(), XattrFlags::empty());
    assert_eq!(of(&file, &fs::symlink_metadata(&file).unwrap()), Owner::ROOT);
    assert_eq!(give(&file, Owner { uid: 33, gid: 33 }), Ok(Given::Really));
    assert_eq!(of(&file, &fs::symlink_metadata(&file).unwrap()), Owner { uid: 33, gid: 33 });
}

proptest! {
    #[test]
    fn any_owner_survives_its_text(uid: u32, gid: u32) {
        prop_assert_eq!(Owner::parse(Owner { uid, gid }.text().as_bytes()), Some(Owner { uid, gid }));
    }

    #[test]
    fn any_bytes_are_an_owner_or_none(bytes in proptest::collection::vec(any::<u8>(), 0..24)) {
        let _ = Owner::parse(&bytes);
    }
}

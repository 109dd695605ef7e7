//! Whether a folder can be the store: whose it is, what file system it is on, and which layout it has.

use std::fs;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::Path;

use serde::Deserialize;

use super::StoreError;

/// The layout that this version writes. Raise it when an older version could not read what a newer one writes.
pub(super) const LAYOUT: u64 = 1;

/// `statfs` numbers of `linux/magic.h` and of the file systems' own sources.
/// `flock`, rename over an open file, owners and xattrs hold on none of these as the store needs them.
const REMOTE: &[(u64, &str)] = &[
    (0x6969, "NFS"),
    (0x517B, "SMB"),
    (0xFF53_4D42, "SMB (CIFS)"),
    (0xFE53_4D42, "SMB 2"),
    (0x5346_414F, "AFS"),
    (0x00C3_6400, "Ceph"),
    (0x6573_5546, "FUSE"),
];

#[derive(Deserialize)]
struct Format {
    layout: u64,
}

/// Makes `root` a store if it is empty or absent, and refuses it when it cannot be one.
pub(super) fn prepare(root: &Path) -> Result<(), StoreError> {
    // Ours alone: images hold private files, and unpacked ones hold setuid programs that nobody has checked.
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(root);
    made.map_err(StoreError::at("creating the store", root))?;
    refuse_another_users(root, rustix::process::geteuid().as_raw())?;
    let file_system = rustix::fs::statfs(root).map_err(StoreError::errno("looking at the store", root))?;
    refuse_remote(root, file_system.f_type as u64)?;
    let format = root.join("format");
    match fs::read(&format) {
        Ok(bytes) => check_format(root, &format, &bytes),
        Err(error) if error.kind() == io::ErrorKind::NotFound => create(root, &format),
        Err(error) => Err(StoreError::io("reading", &format, error)),
    }
}

fn check_format(root: &Path, format: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    let found: Format = serde_json::from_slice(bytes).map_err(|error| StoreError::Damaged {
        path: format.to_owned(),
        reason: format!("expected an object with a `layout` number ({error})"),
    })?;
    if found.layout > LAYOUT {
        return Err(StoreError::NewerLayout { path: root.to_owned(), found: found.layout, supported: LAYOUT });
    }
    Ok(())
}

fn create(root: &Path, format: &Path) -> Result<(), StoreError> {
    // A process that was killed in here leaves a `format.*`; a fresh file system has a `lost+found`.
    let entries = fs::read_dir(root).map_err(StoreError::at("listing", root))?;
    for entry in entries {
        let name = entry.map_err(StoreError::at("listing", root))?.file_name();
        let name = name.as_encoded_bytes();
        if !name.starts_with(b"format") && name != b"lost+found" && !is_left_of_a_store(root, name) {
            // Another process may have made the store between our look for `format` and this listing.
            if format.exists() {
                return Ok(());
            }
            return Err(StoreError::NotAStore { path: root.to_owned() });
        }
    }
    let temporary = root.join(format!("format.{}", std::process::id()));
    let write = || -> io::Result<()> {
        let mut file = fs::File::create(&temporary)?;
        file.write_all(format!("{{\"layout\":{LAYOUT}}}\n").as_bytes())?;
        file.sync_all()?;
        fs::rename(&temporary, format)
    };
    write().map_err(StoreError::at("writing", format))
}

/// Whether a folder is what `rm -rf` leaves of the store of a user with subordinate ids, whose files he cannot remove: this
/// program can, once it takes the folder for a store again.
fn is_left_of_a_store(root: &Path, name: &[u8]) -> bool {
    let digits_min = match name {
        b"tmp" => 0,
        b"layers" => 64,
        b"cache-mounts" => 32,
        _ => return false,
    };
    let folder = root.join(std::ffi::OsStr::from_bytes(name));
    let Ok(entries) = fs::read_dir(folder) else { return false };
    entries.flatten().all(|entry| {
        let name = entry.file_name();
        let digits = name.as_bytes().get(..digits_min);
        digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
    })
}

pub(super) fn owner(root: &Path) -> io::Result<u32> {
    Ok(fs::metadata(root)?.uid())
}

fn refuse_another_users(root: &Path, user: u32) -> Result<(), StoreError> {
    let owner = owner(root).map_err(StoreError::at("looking at the store", root))?;
    if owner != user {
        return Err(StoreError::AnotherUsers { path: root.to_owned(), owner, user });
    }
    Ok(())
}

fn refuse_remote(root: &Path, magic: u64) -> Result<(), StoreError> {
    // Some architectures sign-extend the 32-bit number.
    match REMOTE.iter().find(|(number, _)| *number == magic & 0xFFFF_FFFF) {
        Some((_, kind)) => Err(StoreError::RemoteFileSystem { path: root.to_owned(), kind }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(result: Result<(), StoreError>) -> String {
        result.unwrap_err().to_string()
    }

    #[test]
    fn a_new_folder_becomes_a_store_and_stays_one() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("deep/store");
        prepare(&root).unwrap();
        prepare(&root).unwrap();
        assert_eq!(fs::read_to_string(root.join("format")).unwrap(), "{\"layout\":1}\n");
        assert_eq!(fs::metadata(&root).unwrap().mode() & 0o777, 0o700);
    }

    #[test]
    fn a_newer_layout_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("format"), r#"{"layout":2,"why":"new"}"#).unwrap();
        let text = refusal(prepare(folder.path()));
        assert!(
            text.contains("has layout 2, and this version knows layouts up to 1; use the version that made it"),
            "{text}"
        );
    }

    #[test]
    fn a_damaged_format_is_named() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("format"), "").unwrap();
        let text = refusal(prepare(folder.path()));
        assert!(text.contains("format is damaged: expected an object with a `layout` number"), "{text}");
    }

    #[test]
    fn a_folder_with_other_content_is_no_store() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("thesis.txt"), "").unwrap();
        let text = refusal(prepare(folder.path()));
        assert!(text.contains("holds other files and is no store"), "{text}");
        assert!(!folder.path().join("format").exists());
    }

    #[test]
    fn what_could_not_be_removed_of_a_store_is_one_again() {
        let folder = tempfile::tempdir().unwrap();
        for name in
            ["layers/0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef/fs", "tmp/x", "cache-mounts"]
        {
            fs::create_dir_all(folder.path().join(name)).unwrap();
        }
        prepare(folder.path()).unwrap();
        for other in ["layers/python", "cache-mounts/mine"] {
            let folder = tempfile::tempdir().unwrap();
            fs::create_dir_all(folder.path().join(other)).unwrap();
            assert!(refusal(prepare(folder.path())).contains("is no store"), "{other}");
        }
    }

    #[test]
    fn another_users_store_is_refused_with_the_fix() {
        let folder = tempfile::tempdir().unwrap();
        let owner = rustix::process::geteuid().as_raw();
        let text = refusal(refuse_another_users(folder.path(), owner + 1));
        assert!(text.contains(&format!("belongs to user {owner}, and we run as user {}", owner + 1)), "{text}");
        assert!(text.contains("--store"), "{text}");
    }

    #[test]
    fn network_file_systems_are_refused_and_local_ones_are_not() {
        let root = Path::new("/store");
        let text = refusal(refuse_remote(root, 0x6969));
        assert_eq!(
            text,
            "the store /store is on NFS, where locks and owners cannot be relied on; \
             choose a folder on a local disk with `--store`"
        );
        assert!(refuse_remote(root, 0xFFFF_FFFF_FE53_4D42).is_err(), "sign-extended SMB 2");
        let (ext4, overlay, tmpfs, btrfs) = (0xEF53, 0x794C_7630, 0x0102_1994, 0x9123_683E);
        for local in [ext4, overlay, tmpfs, btrfs] {
            refuse_remote(root, local).unwrap();
        }
    }
}

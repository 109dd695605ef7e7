//! Removing trees that steps made.

use std::fs;
use std::io;
use std::path::Path;

/// Folders in folders that are removed without taking them apart: the removal holds each of them open.
const DEPTH: usize = 100;

/// Length of a path to which one more name can be joined (`PATH_MAX` is 4,096, and a name has 255 bytes at most).
const PATH_BYTES: usize = 3800;

/// Removes a tree below a store's `tmp/`, however deep. What cannot be removed stays, and goes with a later start's cleaning.
pub fn remove_tree(tree: &Path) {
    let removed = match fs::remove_dir_all(tree) {
        Ok(()) => return,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return,
        Err(_) => remove_deep_tree(tree),
    };
    if let Err(error) = removed {
        tracing::debug!(path = %tree.display(), %error, "a temporary tree could not be removed");
    }
}

/// Moves what is deep in the tree up, beside it, and removes it piece by piece: a step can make folders deeper than
/// files can be open, and than a path can be long.
fn remove_deep_tree(tree: &Path) -> io::Result<()> {
    let mut pieces = vec![tree.to_owned()];
    let mut count = 0;
    while let Some(piece) = pieces.pop() {
        let mut ahead = vec![(piece.clone(), 0)];
        while let Some((folder, depth)) = ahead.pop() {
            if depth == DEPTH || folder.as_os_str().len() > PATH_BYTES {
                count += 1;
                let up = tree.with_extension(format!("deep-{count}"));
                fs::rename(&folder, &up)?;
                pieces.push(up);
                continue;
            }
            for entry in fs::read_dir(&folder)? {
                let entry = entry?;
                if entry.file_type()?.is_dir() {
                    ahead.push((entry.path(), depth + 1));
                }
            }
        }
        fs::remove_dir_all(&piece)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_that_is_deeper_than_a_path_is_long_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let tree = folder.path().join("tree");
        fs::create_dir(&tree).unwrap();
        // Built from the inside: each time, what is there moves one folder of long names down.
        let long = ["n".repeat(200), "m".repeat(200), "o".repeat(200)].join("/");
        for number in 0..12 {
            let above = folder.path().join(format!("above-{number}"));
            fs::create_dir_all(above.join(&long)).unwrap();
            fs::write(above.join("file"), "").unwrap();
            fs::rename(&tree, above.join(&long).join("tree")).unwrap();
            fs::rename(&above, &tree).unwrap();
        }
        let deep = vec!["d"; 300].join("/");
        fs::create_dir_all(tree.join(&deep)).unwrap();
        remove_deep_tree(&tree).unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        remove_tree(&tree);
    }
}

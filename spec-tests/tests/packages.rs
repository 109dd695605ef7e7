//! What a package manager leaves is the same on each rung: owners, modes and capabilities of a whole system after it, users
//! that it makes, and programs that it runs as them.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use spec_tests::grounds::{Network, Plan};
use spec_tests::program;

/// `apt-get` and `mandb` become other users, `openssh-client` has a program that is set-group-id for a group of its own.
const DOCKERFILE: &str = "FROM scratch
ADD debian.tar /
ENV DEBIAN_FRONTEND=noninteractive
RUN apt-get update && apt-get install --yes --no-install-recommends openssh-client man-db libcap2-bin \
 && rm -rf /var/lib/apt/lists/* /var/cache/apt /var/cache/ldconfig /var/log
RUN useradd --create-home --groups mail app && setcap cap_net_raw+ep /usr/bin/tac && chown --no-dereference app /bin/which \
 && su app -c 'touch ~/own; mkdir ~/folder; ln -s own ~/link; test $(id -u) = 1000; ! chown root ~/own 2>/dev/null' \
 && touch /var/mail/inherits
";

/// Type, mode, owner and capability of all that is in an image, by path.
fn listing(name: &str) -> Option<BTreeMap<PathBuf, String>> {
    let ground = Plan::named(name).unwrap().enter("packages", Network::Host)?;
    let prepared = program::run(program::repository().join("examples/prepare"), ["debian-base"]).expect_success();
    let folder = ground.new_folder();
    let context = folder.folder("context");
    let _ = fs::copy(PathBuf::from(prepared.text()).join("debian.tar"), context.join("debian.tar")).unwrap();
    fs::write(context.join("Dockerfile"), DOCKERFILE).unwrap();
    ground.give(folder.path());
    let (store, tar) = (ground.store("packages"), folder.path().join("out.tar"));
    let mut command = Command::new(ground.fluyt());
    command.args(["build", "--progress", "plain", "-o"]).arg(format!("type=tar,dest={}", tar.display())).arg(&context);
    command.current_dir(folder.path()).env("FLUYT_STORE", &store).env("HOME", folder.path()).env("NO_COLOR", "1");
    let outcome = program::finish(ground.command(command)).expect_success();
    // Maintainers' scripts go on after a program that fails.
    for word in ["Operation not permitted", "Permission denied", "Invalid argument"] {
        assert!(!outcome.stderr.contains(word), "{name}: {word}:\n{}", outcome.stderr);
    }
    let mut archive = tar::Archive::new(fs::File::open(&tar).unwrap());
    let mut found = BTreeMap::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let mut capability = String::new();
        if let Some(extensions) = entry.pax_extensions().unwrap() {
            for extension in
                extensions.flatten().filter(|extension| extension.key_bytes().starts_with(b"SCHILY.xattr."))
            {
                capability.push_str(&format!(" {:?}", extension.value_bytes()));
            }
        }
        let header = entry.header();
        let (mode, uid, gid) = (header.mode().unwrap(), header.uid().unwrap(), header.gid().unwrap());
        let line = format!("{:?} {mode:o} {uid}:{gid}{capability}", header.entry_type());
        let _ = found.insert(entry.path().unwrap().into_owned(), line);
    }
    ground.remove(&store);
    Some(found)
}

#[test]
fn packages_leave_the_same_system_on_each_rung() {
    if !program::all_installed("packages", &["mmdebstrap"]) {
        return;
    }
    let Some(expected) = listing("root") else { return };
    let others = |line: &&String| !line.contains(" 0:0");
    assert!(expected.values().filter(others).count() > 20, "owners other than root");
    for name in ["user-subids", "user", "docker"] {
        let Some(found) = listing(name) else { continue };
        let paths = expected.keys().chain(found.keys());
        let wrong = paths.filter(|path| expected.get(*path) != found.get(*path));
        let wrong: Vec<String> = wrong
            .map(|path| format!("{}: {:?}, expected {:?}", path.display(), found.get(path), expected.get(path)))
            .collect();
        assert!(wrong.is_empty(), "{name}:\n{}", wrong.join("\n"));
        println!("{name}: {} entries as root leaves them", found.len());
    }
}

/// What a package manager leaves has times, ids and days in it; `--normalize` mends all of it.
#[test]
fn packages_installed_twice_give_one_image() {
    if !program::all_installed("packages", &["mmdebstrap"]) {
        return;
    }
    let Some(ground) = Plan::named("root").unwrap().enter("packages", Network::Host) else { return };
    let prepared = program::run(program::repository().join("examples/prepare"), ["debian-base"]).expect_success();
    let folder = ground.new_folder();
    let context = folder.folder("context");
    let _ = fs::copy(PathBuf::from(prepared.text()).join("debian.tar"), context.join("debian.tar")).unwrap();
    let dockerfile = "FROM scratch
ADD debian.tar /
ENV DEBIAN_FRONTEND=noninteractive
RUN apt-get update && apt-get install --yes --no-install-recommends dbus fontconfig man-db openssh-client python3 systemd
RUN useradd --create-home app && echo 'x = 1' > /opt/mine.py && cd /opt && python3 -c 'import mine'
RUN cd /opt && python3 -v -c 'import mine' 2>&1 | grep -q 'mine.cpython.* matches'
";
    fs::write(context.join("Dockerfile"), dockerfile).unwrap();
    ground.give(folder.path());
    let store = ground.store("normalized");
    let mut command = Command::new(ground.fluyt());
    command.args(["verify", "--progress", "plain", "--normalize"]).arg(&context);
    command.current_dir(folder.path()).env("FLUYT_STORE", &store).env("HOME", folder.path()).env("NO_COLOR", "1");
    let outcome = program::finish(ground.command(command));
    ground.remove(&store);
    assert!(outcome.expect_success().text().starts_with("same: sha256:"));
}

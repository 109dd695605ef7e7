//! What all cases share: a registry that answers for Docker Hub, and the base images in it.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use crate::client::Fluyt;
use crate::folder::TestDir;
use crate::image::Image;
use crate::program;
use crate::registry::Registry;

/// A registry with the base images.
#[derive(Debug)]
pub struct Rig {
    registry: Registry,
    /// The base images, in the order in which they were made.
    pub bases: Vec<Image>,
}

impl Rig {
    /// Starts the registry and pushes the bases: `busybox`, and what `dockerfile-bases/` holds, in the order of its names.
    ///
    /// # Panics
    /// When a base does not build.
    #[must_use]
    pub fn start() -> Self {
        let mut rig = Self { registry: Registry::start_with(&["--no-sync"]), bases: Vec::new() };
        let context = TestDir::new();
        lay_out_busybox(&context);
        rig.publish("busybox", context.path().to_owned());
        let folder = program::repository().join("spec-tests/dockerfile-bases");
        let mut names: Vec<PathBuf> =
            fs::read_dir(&folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
        names.sort();
        for path in names {
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            rig.publish(&name, path);
        }
        rig
    }

    fn publish(&mut self, name: &str, context: PathBuf) {
        let reference = format!("{}/library/{name}:latest", self.host());
        let fluyt = Fluyt::new();
        let _ =
            fluyt.build(&context, &["--registry-mirror", &self.mirror(), "--push", "-t", &reference]).expect_success();
        self.bases.push(self.registry.image(&format!("library/{name}"), "latest"));
    }

    /// The registry's `host:port`.
    #[must_use]
    pub fn host(&self) -> String {
        self.registry.host().to_owned()
    }

    /// `--registry-mirror`'s value that makes it answer for Docker Hub.
    #[must_use]
    pub fn mirror(&self) -> String {
        format!("docker.io=http://{}", self.host())
    }
}

/// A static busybox with its applets as links, users and groups.
fn lay_out_busybox(context: &TestDir) {
    let program = ["/bin/busybox", "/usr/bin/busybox"].into_iter().find(|path| PathBuf::from(path).is_file());
    let program = program.expect("busybox-static, which spec-tests/run installs");
    for folder in
        ["root/dev", "root/proc", "root/sys", "root/bin", "root/tmp", "root/home/app", "root/var", "root/root"]
    {
        let _ = context.folder(folder);
    }
    let _ = fs::copy(program, context.join("root/bin/busybox")).expect("a copy of busybox");
    for applet in program::run(program, ["--list"]).expect_success().stdout.lines().filter(|name| *name != "busybox") {
        symlink("busybox", context.join("root/bin").join(applet)).expect("a link for an applet");
    }
    let _ = context.write(
        "root/etc/passwd",
        "root:x:0:0:root:/root:/bin/sh\ndaemon:x:1:1:daemon:/usr/sbin:/bin/false\napp:x:1000:1000::/home/app:/bin/sh\n\
         nobody:x:65534:65534:nobody:/nonexistent:/bin/false\n",
    );
    let _ = context.write(
        "root/etc/group",
        "root:x:0:\ndaemon:x:1:\nstaff:x:50:app\nvideo:x:44:app,daemon\napp:x:1000:\nnogroup:x:65534:\n",
    );
    let _ = context.write(
        "Dockerfile",
        "FROM scratch\nCOPY root /\nENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n\
         CMD [\"sh\"]\n",
    );
}

//! Where this process runs, so that a fix can be said in the words of that place. For words only: nothing is decided by it.

use std::path::Path;

use super::settings::variable;
use crate::sandbox::{Refused, Rung};

/// A kind of machine or container.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Kind {
    /// No container, as far as can be seen.
    #[default]
    Machine,
    /// A runner of GitHub's, on a machine of its own.
    GitHub,
    /// Docker, by hand.
    Docker,
    /// podman.
    Podman,
    /// A job of GitLab's, in a container that its runner started by Docker.
    GitLabDocker,
    /// A job of GitHub's in a container.
    GitHubContainer,
    /// A pod, also one of a GitLab runner.
    Kubernetes,
}

/// Where this process runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Place {
    kind: Kind,
}

impl Place {
    /// As files and the environment tell.
    pub(super) fn here() -> Self {
        // Some images of whole machines were made from containers, and kept these files.
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let is = |file: &str| Path::new(file).exists() && is_root_of_container(&mounts);
        let (docker, podman) = (is("/.dockerenv"), is("/run/.containerenv"));
        let has = |name: &str| variable(name).is_some();
        Self { kind: Kind::of(docker, podman, has) }
    }

    /// A short name.
    pub(super) fn name(self) -> &'static str {
        match self.kind {
            Kind::Machine => "machine",
            Kind::GitHub => "github",
            Kind::Docker => "docker",
            Kind::Podman => "podman",
            Kind::GitLabDocker => "gitlab-docker",
            Kind::GitHubContainer => "github-container",
            Kind::Kubernetes => "kubernetes",
        }
    }

    /// What it is, and as whom we run in it.
    pub(super) fn words(self) -> String {
        let user = match user() {
            0 => "root".to_owned(),
            id => format!("user {id}"),
        };
        let place = match self.kind {
            Kind::Machine => "on a machine, or in a container that does not say so",
            Kind::GitHub => "on a machine of GitHub Actions",
            Kind::Docker => "in a container of Docker's",
            Kind::Podman => "in a container of podman's",
            Kind::GitLabDocker => "in a job of GitLab's, in a container of Docker's",
            Kind::GitHubContainer => "in a container of GitHub Actions",
            Kind::Kubernetes => "in a pod of Kubernetes",
        };
        format!("{user}, {place}")
    }

    /// What to do about a rung that is refused: what its trial says, in the words of this place where these differ.
    pub(super) fn fix(self, refused: &Refused) -> String {
        // Only what a container's settings hold back is said otherwise; a missing package is one everywhere.
        let of_container = refused.fix.contains("container");
        // In a container, root alone is not enough.
        let of_user = refused.rung == Rung::Root && refused.fix.contains("sudo");
        let words = match (self.kind, refused.rung) {
            (Kind::Machine | Kind::GitHub, _) if of_user => None,
            (Kind::Kubernetes, _) if of_user => {
                Some("in the container's `securityContext`: `runAsUser: 0` and `privileged: true`")
            }
            (Kind::GitLabDocker, _) if of_user => Some(
                "take an image whose user is root, and in the runner's config.toml, under `[runners.docker]`: `privileged = \
                 true`",
            ),
            (Kind::GitHubContainer, _) if of_user => {
                Some("in the workflow, under the job's `container:`: `options: --user 0 --privileged`")
            }
            (Kind::Docker | Kind::Podman, _) if of_user => Some(
                "start the container as root (`--user 0`) and with `--privileged`, or with `--cap-add SYS_ADMIN --security-opt \
                 apparmor=unconfined`",
            ),
            _ if !of_container => None,
            (Kind::Kubernetes, Rung::Root) => Some("in the container's `securityContext`: `privileged: true`"),
            (Kind::Kubernetes, Rung::Rootless | Rung::SingleId) => Some(
                "in the container's `securityContext`: `seccompProfile: {type: Unconfined}` and `appArmorProfile: {type: \
                 Unconfined}` (which the levels baseline and restricted of PodSecurity forbid)",
            ),
            (Kind::Kubernetes, Rung::Chroot) => Some(
                "in the container's `securityContext`: `runAsUser: 0`, and no `drop` of capabilities (which the level \
                 restricted of PodSecurity forbids)",
            ),
            (Kind::GitLabDocker, Rung::Root) => Some(
                "in the runner's config.toml, under `[runners.docker]`: `privileged = true`, or `cap_add = [\"SYS_ADMIN\"]` \
                 with `security_opt = [\"apparmor:unconfined\"]`",
            ),
            (Kind::GitLabDocker, Rung::Rootless | Rung::SingleId) => Some(
                "in the runner's config.toml, under `[runners.docker]`: `security_opt = [\"seccomp:unconfined\", \
                 \"apparmor:unconfined\"]`",
            ),
            (Kind::GitHubContainer, Rung::Root) => {
                Some("in the workflow, under the job's `container:`: `options: --privileged`")
            }
            (Kind::GitHubContainer, Rung::Rootless | Rung::SingleId) => Some(
                "in the workflow, under the job's `container:`: `options: --security-opt seccomp=unconfined --security-opt \
                 apparmor=unconfined`",
            ),
            _ => None,
        };
        words.map_or_else(|| refused.fix.clone(), str::to_owned)
    }
}

/// Whether `/` is what engines give containers: an overlay, or a folder of a larger file system.
fn is_root_of_container(mounts: &str) -> bool {
    let root = mounts.lines().rfind(|line| line.split(' ').nth(4) == Some("/"));
    let Some((before, after)) = root.and_then(|line| line.split_once(" - ")) else { return true };
    let kind = after.split(' ').next().unwrap_or_default();
    before.split(' ').nth(3) != Some("/") || kind.contains("overlay") || kind == "zfs"
}

/// Who started this process: in a user namespace that it has entered, the user that is its root.
fn user() -> u32 {
    let id = rustix::process::geteuid().as_raw();
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    outside(&map, id).unwrap_or(id)
}

/// The id outside of a user namespace that an id inside stands for.
fn outside(map: &str, id: u32) -> Option<u32> {
    map.lines().find_map(|line| {
        let mut numbers = line.split_whitespace().map(str::parse::<u32>);
        let (inside, outside, count) = (numbers.next()?.ok()?, numbers.next()?.ok()?, numbers.next()?.ok()?);
        let place = id.checked_sub(inside)?;
        if place < count { outside.checked_add(place) } else { None }
    })
}

impl Kind {
    fn of(docker: bool, podman: bool, has: impl Fn(&str) -> bool) -> Self {
        match () {
            () if has("KUBERNETES_SERVICE_HOST") => Self::Kubernetes,
            () if docker && has("GITLAB_CI") => Self::GitLabDocker,
            () if docker && has("GITHUB_ACTIONS") => Self::GitHubContainer,
            () if docker => Self::Docker,
            () if podman => Self::Podman,
            () if has("GITHUB_ACTIONS") => Self::GitHub,
            () => Self::Machine,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_told_by_what_each_leaves() {
        let of = |docker: bool, podman: bool, set: &[&str]| Kind::of(docker, podman, |name| set.contains(&name));
        assert_eq!(of(false, false, &[]), Kind::Machine);
        assert_eq!(of(false, false, &["GITHUB_ACTIONS"]), Kind::GitHub);
        assert_eq!(of(true, false, &["GITHUB_ACTIONS"]), Kind::GitHubContainer);
        assert_eq!(of(true, false, &["GITLAB_CI"]), Kind::GitLabDocker);
        assert_eq!(of(false, false, &["GITLAB_CI", "KUBERNETES_SERVICE_HOST"]), Kind::Kubernetes);
        assert_eq!(of(true, false, &[]), Kind::Docker);
        assert_eq!(of(false, true, &[]), Kind::Podman);
    }

    #[test]
    fn a_machine_may_have_been_a_container_once() {
        let machine = "22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw\n23 22 0:5 / /dev rw - devtmpfs dev rw\n";
        assert!(!is_root_of_container(machine));
        assert!(is_root_of_container(
            "1 2 0:50 / / rw - overlay overlay rw,lowerdir=/a:/b\n3 1 0:6 / /proc rw - proc proc rw\n"
        ));
        assert!(is_root_of_container("1 2 254:0 /var/lib/docker/vfs/dir/x / rw - ext4 /dev/vda rw\n"));
    }

    #[test]
    fn root_of_a_user_namespace_is_somebody_outside() {
        let map = "         0       1004          1\n         1     100000      65536\n";
        assert_eq!([0, 1, 65_536, 65_537].map(|id| outside(map, id)), [Some(1004), Some(100_000), Some(165_535), None]);
        assert_eq!(outside("         0          0 4294967295\n", 7), Some(7));
        assert_eq!(outside("nonsense\n", 7), None);
    }

    #[test]
    fn a_fix_is_said_in_the_words_of_the_place() {
        let refused = |fix: &str| Refused { rung: Rung::Root, reason: String::new(), fix: fix.to_owned() };
        let pod = Place { kind: Kind::Kubernetes };
        assert!(pod.fix(&refused("start the container with `--privileged`")).contains("securityContext"));
        assert_eq!(pod.fix(&refused("load the kernel module")), "load the kernel module");
        assert_eq!(Place::default().fix(&refused("start the container so")), "start the container so");
        let docker = Place { kind: Kind::Docker };
        assert!(docker.fix(&refused("run as root or with sudo")).contains("`--user 0`"));
        assert_eq!(Place::default().fix(&refused("run as root or with sudo")), "run as root or with sudo");
    }
}

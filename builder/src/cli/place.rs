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
        let docker = Path::new("/.dockerenv").exists();
        let podman = Path::new("/run/.containerenv").exists();
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
        let user = rustix::process::geteuid();
        let user = if user.is_root() { "root".to_owned() } else { format!("user {}", user.as_raw()) };
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
        let words = match (self.kind, refused.rung) {
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
    fn a_fix_is_said_in_the_words_of_the_place() {
        let refused = |fix: &str| Refused { rung: Rung::Root, reason: String::new(), fix: fix.to_owned() };
        let pod = Place { kind: Kind::Kubernetes };
        assert!(pod.fix(&refused("start the container with `--privileged`")).contains("securityContext"));
        assert_eq!(pod.fix(&refused("load the kernel module")), "load the kernel module");
        assert_eq!(Place::default().fix(&refused("start the container so")), "start the container so");
    }
}

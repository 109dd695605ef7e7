//! What the build says of its commands, and what it must allow them.

use super::*;

/// The one `RUN` on a base image, or the problems.
fn run(flags: &str, input: LowerInput) -> Result<RunOp, String> {
    let (file, _) = parse(&format!("FROM base\nRUN {flags} make\n"));
    let graph = match lower(&file, &with_base(input, "base", "{}")) {
        Ok(Lowered::Done(graph)) => graph,
        Ok(Lowered::Needs(_)) => panic!(),
        Err(problems) => return Err(show_problems(&problems)),
    };
    let found = graph.ops().find_map(|(_, node)| match &node.op {
        Op::Run(run) => Some(run.clone()),
        _ => None,
    });
    Ok(found.unwrap())
}

#[test]
fn a_dockerfile_cannot_give_itself_rights() {
    insta::assert_snapshot!(run("--security=insecure", input()).unwrap_err(), @"error 2:16: security.insecure is not allowed (`--allow security.insecure` allows a command with all rights of root on this machine)");
    insta::assert_snapshot!(run("--network=host", input()).unwrap_err(), @"error 2:15: network.host is not allowed (`--allow network.host` allows a command on the host's own network)");
    insta::assert_snapshot!(run("--device=a/b=c", input()).unwrap_err(), @"error 2:14: `RUN --device=a/b=c`: there are no devices for commands of a build (a CDI device is what a container runtime on this machine hands out; `RUN --security=insecure` with `--allow security.insecure` has the machine's own device nodes)");
    let all = LowerInput { allowed: Allowed { host_network: true, insecure: true, ..Allowed::default() }, ..input() };
    assert_eq!(run("--security=insecure", all.clone()).unwrap().security, Security::Insecure);
    assert_eq!(run("--network=host", all).unwrap().network, Network::Host);
    assert_eq!(run("--security=sandbox --network=none", input()).unwrap().network, Network::None);
}

#[test]
fn the_builds_network_is_that_of_commands_that_name_none() {
    let own = LowerInput { network: Network::Isolated, ..input() };
    assert_eq!(run("", own.clone()).unwrap().network, Network::Isolated);
    assert_eq!(run("--network=default", own.clone()).unwrap().network, Network::Isolated);
    // As with the reference: `default` is the network of the command line.
    for network in [Network::None, Network::Host, Network::Default] {
        let given = LowerInput { network, ..input() };
        assert_eq!(run("--network=default", given.clone()).unwrap().network, network);
        assert_eq!(run("", given).unwrap().network, network);
    }
    assert_eq!(run("--network=none", own).unwrap().network, Network::None);
}

#[test]
fn build_arguments_name_the_host_and_the_cache_mounts() {
    let named = args(input(), &[("BUILDKIT_SANDBOX_HOSTNAME", "box"), ("BUILDKIT_CACHE_MOUNT_NS", "team")]);
    let op = run("--mount=type=cache,target=/c --mount=type=cache,target=/d,id=x", named).unwrap();
    assert_eq!(op.conditions.host_name.as_deref(), Some("box"));
    let ids: Vec<&str> = op
        .mounts
        .iter()
        .filter_map(|mount| match &mount.kind {
            MountKind::Cache { id, .. } => Some(id.as_str()),
            _ => None,
        })
        .collect();
    assert_eq!(ids, ["team//c", "team/x"]);
    let plain = args(input(), &[("BUILDKIT_SANDBOX_HOSTNAME", ""), ("BUILDKIT_CACHE_MOUNT_NS", "")]);
    assert_eq!(*run("", plain).unwrap().conditions, Conditions::default());
}

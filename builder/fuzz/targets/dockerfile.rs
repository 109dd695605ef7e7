//! Any text is read and lowered: problems may come back, a panic may not.
#![no_main]

use fluyt::dockerfile::{Problem, parse};
use fluyt::graph::{Allowed, Conditions, ImageRequest, LowerInput, Lowered, Network, Platform, ResolvedBase, lower};
use fluyt::image::ImageConfig;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let (file, problems) = parse(text);
    for problem in &problems {
        let _ = problem.render("Dockerfile", text);
    }
    if problems.iter().any(Problem::is_error) {
        return;
    }
    let platform = Platform::new("linux", "amd64", None);
    let mut input = LowerInput {
        build_args: [].into(),
        target: None,
        platform: platform.clone(),
        build_platform: platform,
        bases: [].into(),
        labels: [].into(),
        network: Network::Default,
        conditions: Conditions::default(),
        allowed: Allowed::default(),
        contexts: Default::default(),
        all_stages: true,
    };
    // Every image that is asked for is one with a trigger, so that lowering goes all the way.
    for _ in 0..4 {
        match lower(&file, &input) {
            Ok(Lowered::Needs(images)) => input.bases.extend(images.into_iter().map(resolve)),
            Ok(Lowered::Done(graph)) => {
                for (id, node) in graph.ops() {
                    assert!(node.op.inputs().iter().all(|needed| *needed < id), "an input stands after its user");
                }
                return;
            }
            Err(_) => return,
        }
    }
});

fn resolve(request: ImageRequest) -> (ImageRequest, ResolvedBase) {
    let mut config = ImageConfig::default();
    config.config.on_build = Some(vec!["COPY --from=other a b".to_owned()]);
    (request, ResolvedBase { config, digest: "sha256:0".to_owned() })
}

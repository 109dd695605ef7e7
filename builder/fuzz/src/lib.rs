//! What the fuzzer feeds: each function takes any text or bytes, and holds what must be true of whatever was made of them.
//!
//! The seeds in `seeds/` are replayed by the builder's own tests (`fuzz_seeds`); one that found a bug stays there.

use fluyt::context::{Ignore, Pattern};
use fluyt::dockerfile::{EXPANDED_MAX_BYTES, Expander, Problem, parse};
use fluyt::graph::{Allowed, Conditions, ImageRequest, LowerInput, Lowered, Network, ResolvedBase, lower};
use fluyt::image::ImageConfig;
use fluyt::image::Platform;
use fluyt::layer::{LayerIndex, Limits, Tree, index_layer};

/// Any text is read and lowered: problems may come back, a panic may not.
pub fn dockerfile(text: &str) {
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
            Ok(Lowered::Needs(images)) => input.bases.extend(images.into_iter().map(|(image, _)| resolve(image))),
            Ok(Lowered::Done(graph)) => {
                for (id, node) in graph.ops() {
                    assert!(node.op.inputs().iter().all(|needed| *needed < id), "an input stands after its user");
                }
                return;
            }
            Err(_) => return,
        }
    }
}

fn resolve(request: ImageRequest) -> (ImageRequest, ResolvedBase) {
    let mut config = ImageConfig::default();
    config.config.on_build = Some(vec!["COPY --from=other a b".to_owned()]);
    (request, ResolvedBase { config, digest: "sha256:0".to_owned() })
}

/// Any text is expanded or refused, under every rule.
pub fn expand(text: &str) {
    let variable = |name: &str| match name.len() {
        1 => Some("a b*c".to_owned()),
        2 => Some(String::new()),
        _ => None,
    };
    for bits in 0..16_u8 {
        let rules = Expander {
            escape: if bits & 1 == 0 { '\\' } else { '`' },
            keep_quotes: bits & 2 != 0,
            keep_escapes: bits & 4 != 0,
            ignore_quotes: bits & 8 != 0,
            keep_unset: bits & 2 != 0,
        };
        if let Ok(expansion) = rules.expand(text, &variable) {
            assert!(expansion.text.len() <= 2 * EXPANDED_MAX_BYTES + text.len());
        }
    }
}

/// Any rules on any path: the last line is the path, what stands before it the ignore file.
pub fn ignore(text: &str) {
    let (rules, path) = text.rsplit_once('\n').unwrap_or((text, "a/b"));
    if let Ok(ignore) = Ignore::parse(rules, ".dockerignore") {
        let verdict = ignore.matches(path.as_bytes());
        // What hides something has a rule.
        assert!(!verdict.hidden || verdict.rule.is_some());
    }
    if let Ok(pattern) = Pattern::parse(rules) {
        let _ = pattern.matches(path.as_bytes());
    }
}

const LIMITS: Limits = Limits {
    entries: 200,
    uncompressed_bytes: 1 << 20,
    path_bytes: 1 << 10,
    extension_bytes: 1 << 16,
    stops_at_top: false,
};

/// Any bytes are read as a layer, and what is read is shown as a tree: an error may come back, a panic may not. What is read
/// can be kept as an index, and read back from it.
pub fn layer(bytes: &[u8]) {
    let _ = index_layer(bytes, "", &LIMITS);
    // No fuzzer guesses checksums: set right, they let it behind the headers.
    let mut bytes = bytes.to_vec();
    bytes.chunks_exact_mut(512).for_each(set_checksum);
    let Ok((_, index)) = index_layer(&bytes[..], "", &LIMITS) else { return };
    let again = LayerIndex::from_json(&index.to_json());
    assert_eq!(again, Ok(Some(index.clone())), "an index reads back as it was written");
    let mut tree = Tree::new();
    tree.push(&index, 0);
    tree.push(&index, 1);
    for (path, _) in tree.iter() {
        assert!(path.components().all(|component| component != b"..".as_slice()), "{path} leaves the root");
        let parent = path.parent().expect("the root is no node");
        assert!(parent.is_root() || tree.get(&parent).is_some(), "{path} stands in no folder");
        let _ = tree.resolve(path, true);
    }
}

fn set_checksum(block: &mut [u8]) {
    block[148..156].fill(b' ');
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    // A block of zeros is the end of a tar, and stays one.
    if sum == 8 * u32::from(b' ') {
        return block[148..156].fill(0);
    }
    block[148..155].copy_from_slice(format!("{sum:07o}").as_bytes());
}

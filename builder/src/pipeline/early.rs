//! Layers on their way to the registry while later steps run. The manifest comes last, when the build has succeeded: what
//! a failed build sent is content that nothing names.

use std::collections::{BTreeSet, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fluyt_client::{Blob, Reference};
use oci_spec::image::Digest;
use tokio::runtime::Handle;
use tokio::task::JoinSet;

use super::{Destination, Request};
use crate::blob::Store;
use crate::event::{Event, Events, StepId};
use crate::execute::{BuiltLayer, RootState, StepCounter, Watcher};
use crate::graph::{Graph, Op, OpId};
use crate::remote::Uploads;

/// Sends the layers of one image as they are finished.
pub(super) struct Early {
    uploads: Uploads,
    /// One name of each repository.
    targets: Vec<Reference>,
    /// The operations whose layers are the image's.
    chain: HashSet<OpId>,
    /// Whether layers of a base may pass from registry to registry: nothing here needs them.
    relays: bool,
    /// Whether layers of a base become others before they are pushed.
    force_compression: bool,
    store: Store,
    runtime: Handle,
    events: Events,
    steps: Arc<StepCounter>,
    running: Mutex<Running>,
}

#[derive(Default)]
struct Running {
    sent: HashSet<Digest>,
    step: Option<StepId>,
    tasks: JoinSet<()>,
}

impl Early {
    /// `None` for an image that goes to no registry.
    pub(super) fn new(
        graph: &Graph,
        request: &Request,
        uploads: &Uploads,
        store: &Store,
        events: &Events,
        steps: &Arc<StepCounter>,
    ) -> Option<Arc<Self>> {
        if !request.destinations.contains(&Destination::Registry) {
            return None;
        }
        let mut chain = HashSet::new();
        let mut runs = false;
        let mut next = graph.result.root.op();
        while let Some(id) = next {
            let op = &graph.node(id).op;
            runs |= matches!(op, Op::Run(_));
            chain.insert(id);
            next = op.below().and_then(|root| root.op());
        }
        let mut repositories = BTreeSet::new();
        let targets = request.tags.iter().filter(|name| repositories.insert(name.name())).cloned().collect();
        let only_pushed = request.destinations.iter().all(|destination| *destination == Destination::Registry);
        Some(Arc::new(Self {
            uploads: uploads.clone(),
            targets,
            chain,
            relays: only_pushed && !runs,
            force_compression: request.form.force_compression,
            store: store.clone(),
            runtime: Handle::current(),
            events: events.clone(),
            steps: Arc::clone(steps),
            running: Mutex::default(),
        }))
    }

    fn running(&self) -> MutexGuard<'_, Running> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a layer may go to a repository now.
    fn may_go(&self, layer: &BuiltLayer, target: &Reference) -> bool {
        match &layer.origin {
            None => true,
            Some(_) if self.force_compression => false,
            // Mounted, sent from here, or passed on.
            Some(origin) => origin.host() == target.host() || self.store.contains(&layer.digest) || self.relays,
        }
    }
}

/// Ends what was begun early, however the build ends.
pub(super) struct Guard(Option<Arc<Early>>);

impl Guard {
    pub(super) fn of(early: Option<Arc<Early>>) -> Self {
        Self(early)
    }

    /// The image is where it should be.
    pub(super) fn finish(mut self) {
        if let Some(early) = self.0.take()
            && let Some(step) = early.running().step.take()
        {
            early.events.hear(Event::Finished { step });
        }
    }
}

impl Drop for Guard {
    /// There will be no image. What is on its way is stopped.
    fn drop(&mut self) {
        let Some(early) = self.0.take() else { return };
        let mut running = early.running();
        running.tasks.abort_all();
        if let Some(step) = running.step.take() {
            early.events.hear(Event::Failed { step, error: "stopped, as there is no image to push".to_owned() });
        }
    }
}

impl Watcher for Early {
    fn finished(&self, id: OpId, state: &Arc<RootState>) {
        if !self.chain.contains(&id) {
            return;
        }
        let mut running = self.running();
        for layer in &state.layers {
            let targets: Vec<&Reference> = self.targets.iter().filter(|target| self.may_go(layer, target)).collect();
            if targets.is_empty() || !running.sent.insert(layer.digest.clone()) {
                continue;
            }
            let step = *running.step.get_or_insert_with(|| {
                let step = self.steps.next();
                let names: Vec<String> = self.targets.iter().map(Reference::name).collect();
                self.events.hear(Event::Started { step, name: format!("push layers to {}", names.join(", ")) });
                step
            });
            for target in targets {
                let blob = Blob { digest: layer.digest.clone(), size_bytes: layer.size_bytes };
                let (uploads, target, origin) = (self.uploads.clone(), target.clone(), layer.origin.clone());
                running.tasks.spawn_on(
                    async move {
                        if let Err(error) = uploads.blob(&target, blob, origin, step).await {
                            // The push at the end tries once more, and says what is wrong.
                            tracing::debug!(%error, "a layer was not pushed early");
                        }
                    },
                    &self.runtime,
                );
            }
        }
    }
}

//! Layers on their way to the registry while later steps run. The manifest comes last, when the build has succeeded: what
//! a failed build sent is content that nothing names. A registry that will not take the image, as is known by then, ends
//! the build: nobody waits for an image that goes nowhere.

use std::collections::{BTreeSet, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use fluyt_client::{Blob, ClientError, Reference};
use oci_spec::image::Digest;
use tokio::runtime::Handle;
use tokio::task::JoinSet;

use super::{BuildError, Destination, Request};
use crate::blob::Store;
use crate::event::{Event, Events, StepId};
use crate::execute::{BuiltLayer, RootState, StepCounter, Watcher};
use crate::graph::{Graph, Op, OpId};
use crate::image::media_type;
use crate::remote::{RemoteError, Uploads};
use crate::stop::Cancel;

/// So long a build goes on before the registry is asked whether it will take the image: one that is shorter is at its own
/// push by then, and saves it the question.
const QUESTION_AFTER: Duration = Duration::from_millis(500);

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
    /// Stops the build's steps.
    stop: Cancel,
    /// This, for tasks.
    me: Weak<Self>,
    running: Mutex<Running>,
}

#[derive(Default)]
struct Running {
    sent: HashSet<Digest>,
    step: Option<StepId>,
    tasks: JoinSet<()>,
    /// Registries that have answered: that there is no way to them is of the moment then, and may be over at the end.
    reached: HashSet<String>,
    /// Why there will be no push.
    failure: Option<BuildError>,
    /// The steps are done, and the push at the end says what there is to say.
    is_over: bool,
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
        stop: &Cancel,
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
        let early = Arc::new_cyclic(|me| Self {
            uploads: uploads.clone(),
            targets,
            chain,
            relays: only_pushed && !runs,
            force_compression: request.form.force_compression,
            store: store.clone(),
            runtime: Handle::current(),
            events: events.clone(),
            steps: Arc::clone(steps),
            stop: stop.clone(),
            me: me.clone(),
            running: Mutex::default(),
        });
        for target in &early.targets {
            let (uploads, me, target) = (early.uploads.clone(), early.me.clone(), target.clone());
            let ask = async move {
                tokio::time::sleep(QUESTION_AFTER).await;
                let answer = uploads.check(&target).await;
                answered(&me, &target, answer);
            };
            early.running().tasks.spawn_on(ask, &early.runtime);
        }
        Some(early)
    }

    /// What a registry said. One that will say the same at the end ends the build.
    fn answered(&self, target: &Reference, answer: Result<(), RemoteError>) {
        let mut running = self.running();
        let error = match answer {
            Ok(()) => {
                running.reached.insert(target.host().to_owned());
                return;
            }
            Err(error) if !running.is_over && is_final(&error, running.reached.contains(target.host())) => error,
            Err(error) => {
                // The push at the end tries once more, and says what is wrong.
                tracing::debug!(%error, "not pushed early");
                return;
            }
        };
        if running.failure.is_some() {
            return;
        }
        let step = self.step(&mut running);
        running.step = None;
        self.events.hear(Event::Failed { step, error: error.to_string() });
        running.failure =
            Some(BuildError::Push { reference: target.to_string(), is_kept: false, source: Box::new(error) });
        drop(running);
        self.stop.cancel();
    }

    /// The step that tells of all this, begun where it is not.
    fn step(&self, running: &mut Running) -> StepId {
        *running.step.get_or_insert_with(|| {
            let step = self.steps.next();
            let names: Vec<String> = self.targets.iter().map(Reference::name).collect();
            self.events.hear(Event::Started { step, name: format!("push layers to {}", names.join(", ")) });
            step
        })
    }

    /// The steps are done; gives why they were stopped from here, if they were.
    pub(super) fn end(&self) -> Option<BuildError> {
        let mut running = self.running();
        running.is_over = true;
        running.failure.take()
    }

    fn running(&self) -> MutexGuard<'_, Running> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a layer may go to a repository now.
    fn may_go(&self, layer: &BuiltLayer, target: &Reference) -> bool {
        match &layer.origin {
            // The push at the end leaves it where its urls say.
            _ if media_type::is_foreign(&layer.media_type.as_str().into()) => false,
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
        let Some(early) = self.0.take() else { return };
        let mut running = early.running();
        running.tasks.abort_all();
        if let Some(step) = running.step.take() {
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
            early.events.hear(Event::Stopped { step });
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
            let step = self.step(&mut running);
            for target in targets {
                let blob = Blob { digest: layer.digest.clone(), size_bytes: layer.size_bytes };
                let (uploads, me) = (self.uploads.clone(), self.me.clone());
                let (target, origin) = (target.clone(), layer.origin.clone());
                running.tasks.spawn_on(
                    async move {
                        let answer = uploads.blob(&target, blob, origin, step).await;
                        answered(&me, &target, answer);
                    },
                    &self.runtime,
                );
            }
        }
    }
}

fn answered(early: &Weak<Early>, target: &Reference, answer: Result<(), RemoteError>) {
    if let Some(early) = early.upgrade() {
        early.answered(target, answer);
    }
}

/// Whether a push to a registry that gives this error cannot come to another end later.
fn is_final(error: &RemoteError, was_reached: bool) -> bool {
    let RemoteError::Client(error) = error else { return false };
    match **error {
        ClientError::Unauthorized { .. }
        | ClientError::Denied { .. }
        | ClientError::NotFound { .. }
        | ClientError::Unsupported { .. }
        | ClientError::Setting { .. }
        | ClientError::Tls { .. } => true,
        ClientError::Protocol { status, .. } => (400..500).contains(&status) && !error.is_transient(),
        ClientError::Connect { .. } => !was_reached,
        _ => false,
    }
}

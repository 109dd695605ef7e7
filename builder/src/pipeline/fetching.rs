//! What a build needs from elsewhere. The context and the Dockerfile are brought before anything is read of them; what the
//! Dockerfile's steps take is brought beside the steps that do not need it (see `execute`).

use std::collections::HashMap;
use std::sync::Arc;

use base64::Engine as _;
use fluyt_client::without_password;

use super::places::unusable;
use super::room::Pruner;
use super::shown::Shown;
use super::source::Read;
use super::{BuildError, Request, Workshop};
use crate::blob::is_disk_full;
use crate::event::{DOWNLOAD, Events, StepId};
use crate::execute::{Arrivals, Coming, OnTheWay, StepCounter};
use crate::fetch::{self, FetchError, FetchedFile, GitAddress, GitRequest, UrlRequest};
use crate::graph::{FetchOp, Graph, Op};
use crate::secrets::Value;
use crate::stop::Cancel;
use crate::task::{blocking, given};

/// Largest secret that a server is sent, in bytes: more is no header.
const SECRET_MAX_BYTES: usize = 64 * 1024;

/// Brings things from elsewhere.
#[derive(Clone)]
pub(super) struct Fetcher {
    workshop: Workshop,
    request: Arc<Request>,
    events: Events,
    steps: Arc<StepCounter>,
    pruner: Arc<Pruner>,
    /// Trips with the build's own switch, and when something did not come.
    stop: Cancel,
}

/// Something that was begun to be fetched.
pub(super) struct Job {
    op: FetchOp,
    /// The line that names it.
    place: Shown,
    step: StepId,
    /// What was had from there last.
    last: Option<FetchedFile>,
}

/// What the steps of a build are to hear of, and who tells them.
pub(super) fn on_the_way(jobs: &[Job]) -> (OnTheWay, Arrivals) {
    OnTheWay::new(jobs.iter().map(|job| (job.op.clone(), Coming { step: job.step, last: job.last.clone() })))
}

/// What cannot be, with the line that asks for it.
fn at(error: BuildError, place: &Shown) -> BuildError {
    match error {
        BuildError::Unusable { problem, hint } => unusable(format!("{problem} ({place}){}", place.excerpt()), hint),
        other => other,
    }
}

impl Fetcher {
    pub(super) fn new(
        workshop: &Workshop,
        request: &Request,
        events: &Events,
        steps: &Arc<StepCounter>,
        pruner: &Arc<Pruner>,
    ) -> Self {
        Self {
            workshop: workshop.clone(),
            request: Arc::new(request.clone()),
            events: events.clone(),
            steps: Arc::clone(steps),
            pruner: Arc::clone(pruner),
            stop: workshop.cancel.child(),
        }
    }

    /// This, as part of a build that `stop` stops.
    pub(super) fn under(&self, stop: &Cancel) -> Self {
        Self { stop: stop.child(), ..self.clone() }
    }

    /// Begins all that the graph names and that is not there yet.
    pub(super) fn begin(&self, graph: &Graph, read: &Read, fetched: &HashMap<FetchOp, FetchedFile>) -> Vec<Job> {
        let mut jobs = Vec::new();
        for (_, node) in graph.ops() {
            let Op::Fetch(op) = &node.op else { continue };
            if fetched.contains_key(op) {
                continue;
            }
            let place = read.place_of(node.about.lines, (!op.has_password()).then(|| op.what()).as_deref());
            jobs.push(Job { op: op.clone(), place, step: self.started(op), last: self.last(op) });
        }
        jobs
    }

    /// Brings all of it, at the same time, and tells of each as soon as it is there. The first failure ends it; it is over when
    /// nothing of it runs any more.
    pub(super) async fn all(self, jobs: Vec<Job>, arrivals: Arrivals) -> Result<(), BuildError> {
        let mut running = tokio::task::JoinSet::new();
        for Job { op, place, step, .. } in jobs {
            let fetcher = self.clone();
            running.spawn(async move {
                let found = fetcher.found(&op, &place, step, fetcher.request.pull).await;
                (op, found)
            });
        }
        let mut arrivals = Some(arrivals);
        let mut failed = Ok(());
        while let Some(done) = running.join_next().await {
            let (op, found) = given(done);
            match (found, &arrivals) {
                (Ok(file), Some(arrivals)) => arrivals.tell(op, file),
                (Err(error), Some(_)) => {
                    // What still runs, git among it, is of no use without this.
                    self.stop.cancel();
                    arrivals = None;
                    failed = Err(error);
                }
                (_, None) => {}
            }
        }
        failed
    }

    /// Brings one thing that the user named, who means what is there today; `place` is where it is named.
    pub(super) async fn one(&self, op: &FetchOp, place: &Shown) -> Result<FetchedFile, BuildError> {
        self.found(op, place, self.started(op), true).await
    }

    fn started(&self, op: &FetchOp) -> StepId {
        self.steps.begin(&self.events, format!("{DOWNLOAD}{}", op.what()))
    }

    async fn found(
        &self,
        op: &FetchOp,
        place: &Shown,
        step: StepId,
        must_ask: bool,
    ) -> Result<FetchedFile, BuildError> {
        // Not by `with_room`: what a task of its own does must be `Send`, which the compiler cannot tell of a closure's work.
        let what = op.what();
        let mut tries = self.pruner.tries(&what);
        let found = loop {
            let found = self.bring(op, place, step, must_ask).await;
            if !tries.again(found.as_ref().is_err_and(|error| is_disk_full(error))).await {
                break found;
            }
        };
        self.events.ended(step, &found);
        found
    }

    /// What was had last from where something comes, if it is still there.
    fn last(&self, op: &FetchOp) -> Option<FetchedFile> {
        let store = &self.workshop.store;
        match op {
            FetchOp::Url { url, .. } => fetch::last_of_url(store, url),
            FetchOp::Git { remote, checksum, keep_git_dir, by_user } => {
                let request = self.git_request(remote, checksum.as_deref(), *keep_git_dir, *by_user).ok()?;
                fetch::last_of_git(store, &request)
            }
            FetchOp::Given { .. } => None,
        }
    }

    async fn bring(
        &self,
        op: &FetchOp,
        place: &Shown,
        step: StepId,
        must_ask: bool,
    ) -> Result<FetchedFile, BuildError> {
        let what = op.what();
        let failed = |source: FetchError| BuildError::Fetch {
            what: what.clone(),
            place: place.clone(),
            source: Box::new(source),
        };
        match op {
            FetchOp::Url { url, checksum, .. } => {
                let request = UrlRequest {
                    url: url.clone(),
                    checksum: checksum.clone(),
                    authorization: self.authorization(url)?,
                    must_ask,
                    anew: self.request.no_cache,
                };
                let (client, store) = (&self.workshop.client, &self.workshop.store);
                let work =
                    async { fetch::url(client, store, &request, &self.events, step, &self.stop).await.map_err(failed) };
                self.stop.until(work).await
            }
            FetchOp::Git { remote, checksum, keep_git_dir, by_user } => {
                let request = self
                    .git_request(remote, checksum.as_deref(), *keep_git_dir, *by_user)
                    .map_err(|error| at(error, place))?;
                let request = GitRequest { must_ask, ..request };
                let (store, events) = (self.workshop.store.clone(), self.events.clone());
                let stop = self.stop.clone();
                let work = move || fetch::git(&store, &request, &events, step, &stop);
                // Not `until`: it is over when git is.
                self.stop.overrides(blocking(work).await.map_err(failed))
            }
            FetchOp::Given { .. } => Err(unusable(format!("{what} is gone"), "build again")),
        }
    }

    fn git_request(
        &self,
        remote: &str,
        checksum: Option<&str>,
        keep_git_dir: bool,
        by_user: bool,
    ) -> Result<GitRequest, BuildError> {
        let unreadable = || unusable(format!("`{}` is no repository", without_password(remote)), "check the address");
        let address = if by_user { GitAddress::parse_context(remote) } else { GitAddress::parse(remote) };
        let mut address = address
            .ok_or_else(unreadable)?
            .map_err(|error| unusable(error.to_string(), "check the address of the repository"))?;
        if let Some(checksum) = checksum {
            if address.commit.as_deref().is_some_and(|commit| commit != checksum) {
                return Err(unusable(
                    format!("`{}` and `--checksum={checksum}` name two commits", without_password(remote)),
                    "leave one of them out",
                ));
            }
            address.commit = Some(checksum.to_owned());
        }
        address.keep_git_dir = address.keep_git_dir.or(Some(keep_git_dir));
        let authorization = self.git_authorization(address.host())?;
        Ok(GitRequest {
            authorization: authorization.filter(|_| !address.is_ssh()),
            agent: self.request.agents.get("default").cloned(),
            users_own: by_user,
            home: self.request.home.clone(),
            certificates: self.request.certificates.clone(),
            address,
            ..GitRequest::default()
        })
    }

    /// What a git server is told: secrets for its host first, and of each kind a header before a token.
    fn git_authorization(&self, host: &str) -> Result<Option<fetch::Secret>, BuildError> {
        for of_host in [format!(".{host}"), String::new()] {
            if let Some(header) = self.secret(&format!("GIT_AUTH_HEADER{of_host}"))? {
                return Ok(Some(header));
            }
            if let Some(token) = self.secret(&format!("GIT_AUTH_TOKEN{of_host}"))? {
                let pair = base64::engine::general_purpose::STANDARD.encode(format!("x-access-token:{}", token.0));
                return Ok(Some(fetch::Secret(format!("Basic {pair}"))));
            }
        }
        Ok(None)
    }

    /// What a server is told of who asks: the secrets `HTTP_AUTH_HEADER_host` and `HTTP_AUTH_TOKEN_host`.
    fn authorization(&self, url: &str) -> Result<Option<fetch::Secret>, BuildError> {
        let host = fetch::host_name(url);
        if let Some(token) = self.secret(&format!("HTTP_AUTH_TOKEN_{host}"))? {
            return Ok(Some(fetch::Secret(format!("Bearer {}", token.0))));
        }
        self.secret(&format!("HTTP_AUTH_HEADER_{host}"))
    }

    /// A secret for a header, without the line's end that files have.
    pub(super) fn secret(&self, id: &str) -> Result<Option<fetch::Secret>, BuildError> {
        let wrong = |problem: String| unusable(format!("the secret `{id}` {problem}"), "it is sent as a header");
        let text = match self.request.secrets.get(id) {
            None => return Ok(None),
            Some(secret) => match &secret.value {
                Value::Unset { .. } => return Ok(None),
                Value::Bytes(bytes) if bytes.len() <= SECRET_MAX_BYTES => std::str::from_utf8(bytes),
                Value::Bytes(_) | Value::TooLarge => {
                    return Err(wrong(format!("is larger than {SECRET_MAX_BYTES} bytes")));
                }
                Value::Unreadable { source, .. } => return Err(wrong(format!("cannot be read: {source}"))),
            },
        };
        let text = text.map_err(|_| wrong("is no UTF-8 text".to_owned()))?;
        Ok(Some(fetch::Secret(text.trim_end_matches(['\r', '\n']).to_owned())))
    }
}

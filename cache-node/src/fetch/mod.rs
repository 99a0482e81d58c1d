//! The read path, top to bottom: memory, disk, peers, origin; one fill per key.
//!
//! | file | purpose |
//! |---|---|
//! | `mod` | [`Fetcher::get`]: the path itself |
//! | `flight` | one flight a key and node; who waits for it |
//! | `job` | a flight's work: which source is next |
//! | `local` | what is stored here, variants and stale answers included |
//! | `pull` | sources within the cluster |
//! | `tierless` | what all of it rests on while no super-node answers |
//! | `fill` | the origin |
//! | `resume` | going on with what another began |
//! | `prefetch` | gets objects that nobody asked for yet |
//! | `purging` | purges of one URL, by clients |
//! | `fencing` | purges: what may be served, what may come into the store, what has to leave it |
//! | `body` | body streams of stored and growing objects |
//! | `heal` | chunks that the disk has lost, while a response is sent |
//! | `parts` | large objects that were first asked for in part |
//! | `page` | chunks that are not here, while a response is sent |
//!
//! Must not know HTTP's wire form, RPCs, or who is home to a key.

mod body;
mod copies;
mod fencing;
mod fill;
mod flight;
mod heal;
mod job;
mod local;
mod page;
mod parts;
mod prefetch;
mod pull;
mod purging;
mod resume;
mod tierless;
mod types;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use http::{HeaderMap, Method};
use shoal_proto::{ObjectHead, ObjectKey};
use tokio::sync::{Semaphore, mpsc, oneshot};

pub use copies::Given;
pub use prefetch::PREFETCH_QUEUE_MAX;
pub use purging::Purged;
pub use types::{
    BodyError, BodyStream, Duplex, FetchError, FetchRequest, Fetched, FetchedObject, Interim,
    Interims, Lookup, OriginRequest, OriginResponse, Question, RequestBody, Switched, Trailers,
};

pub use crate::store::Hit;

use crate::clock;
use crate::current::Current;
use crate::directory::{Directory, Url, Verdict};
use crate::membership::placement;
use crate::metrics::{OriginMetrics, Tier};
use crate::origin::OriginClient;
use crate::policy::directives::RequestDirectives;
use crate::policy::parts::{Part, total};
use crate::policy::site::{Site, Sites};
use crate::policy::{label, serve};
use crate::store::{Store, StoredObject};
use crate::tasks::Tasks;
use crate::transfer::{CopyRequest, End, Fills, Gatherer, Live, Peers, SourcePart};
use fencing::Gate;
use flight::{Flights, Outcome};
use heal::Healer;
use job::Job;
use local::Local;

/// Flights that a request joins before it gives up.
const FLIGHTS_MAX: u32 = 4;
/// Keys that a request is looked up under: its URL's, its variant's, and again where what varies
/// has changed meanwhile.
const VARIANTS_MAX: u32 = 4;
/// Outlines of objects in parts that a request tries before it gives up: the stored one, the
/// origin's new one, and then the whole.
const OUTLINES_MAX: u32 = 3;
/// Copies being taken at a time.
const COPIES_MAX: usize = 8;
/// Wishes for copies that wait.
pub const COPY_QUEUE_MAX: usize = 256;

/// What the read path is made of.
pub struct FetchParts {
    /// The local store.
    pub store: Arc<Store>,
    /// The tier, as this node sees it.
    pub directory: Arc<Directory>,
    /// Origins.
    pub origin: OriginClient,
    /// Other nodes.
    pub peers: Peers,
    /// This node's fills, for followers.
    pub fills: Arc<Fills>,
    /// The sites served, at any time.
    pub sites: Arc<Current<Sites>>,
    /// Metrics of fills.
    pub metrics: OriginMetrics,
    /// Copies of a filled object in the cluster, this node's included.
    pub copies: usize,
    /// The cluster's secret, for labels.
    pub secret: [u8; 32],
}

/// The read path. Cheap to clone.
#[derive(Clone)]
pub struct Fetcher {
    inner: Arc<Inner>,
}

struct Inner {
    store: Arc<Store>,
    directory: Arc<Directory>,
    origin: OriginClient,
    peers: Peers,
    gatherer: Gatherer,
    fills: Arc<Fills>,
    sites: Arc<Current<Sites>>,
    metrics: OriginMetrics,
    copies: usize,
    secret: [u8; 32],
    flights: Arc<Flights>,
    pages: page::Turns,
    tasks: Tasks,
    gate: Gate,
}

impl Fetcher {
    /// A read path whose flights belong to `tasks`.
    pub fn new(parts: FetchParts, tasks: Tasks) -> Self {
        let FetchParts { store, directory, origin, peers, fills, sites, metrics, copies, secret } =
            parts;
        let (me, view) = (directory.node_id(), directory.watch_view());
        let gatherer = Gatherer { peers: peers.clone(), me, view };
        let inner = Inner {
            store,
            directory,
            origin,
            peers,
            gatherer,
            fills,
            sites,
            metrics,
            copies,
            secret,
            flights: Arc::default(),
            pages: page::Turns::default(),
            tasks,
            gate: Gate::default(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// The response for a key: memory, disk, peers, origin, in this order; under the key of a
    /// variant where the URL's has another.
    ///
    /// # Errors
    /// When the origin has to be asked and gives no usable answer.
    pub async fn get(&self, mut request: FetchRequest) -> Result<Fetched, FetchError> {
        let url = request.key;
        for tried in 1..=OUTLINES_MAX {
            let found = self.find(&mut request).await?;
            let marked = found.head().is_some_and(|head| total(head).is_some());
            if !marked {
                return Ok(self.with_backup(found, request));
            }
            let outline = found.whole().await?;
            let avoid = outline.0.manifest_id();
            match self.by_parts(outline, &request).await {
                Err(error @ FetchError::OtherVersion { .. }) => {
                    tracing::info!(%error, "an object that is kept in parts is fetched anew");
                    // First the new version's parts, if there is one; then all of it at once.
                    let whole = tried + 1 == OUTLINES_MAX;
                    request = FetchRequest { key: url, avoid: Some(avoid), whole, ..request };
                }
                answered => return answered,
            }
        }
        Err(FetchError::OtherVersion { origin: request.site.origin() })
    }

    /// With a body of which what is not here, or damaged, comes from elsewhere.
    fn with_backup(&self, found: Found, request: FetchRequest) -> Fetched {
        // Who heals wants the object, whatever its client wanted beside it.
        let client = RequestDirectives::default();
        let request = FetchRequest { client, interims: None, ..request };
        let healer = Healer::new(self.clone(), request.clone());
        found.fetched(&self.inner, request, Some(healer))
    }

    /// What answers the request; its key becomes that of the variant that does.
    async fn find(&self, request: &mut FetchRequest) -> Result<Found, FetchError> {
        if serve::wants_origin(&request.client) {
            return self.pass_request(request).await;
        }
        let url = request.key;
        for _ in 0..VARIANTS_MAX {
            let found = match self.local(request).await {
                Local::Answer(answer) => return self.accepted(answer, request).await,
                Local::Another(other) => other,
                Local::Nothing if request.client.only_if_cached => {
                    return Err(FetchError::NotCached);
                }
                Local::Nothing => self.fly(request).await?,
            };
            let other = match found.head() {
                Some(head) if !self.inner.selects(head, request) => head,
                _ => return self.accepted(found, request).await,
            };
            let Some(variant) = self.inner.variant(&url, other, request) else { break };
            request.key = variant;
        }
        self.pass_request(request).await
    }

    /// What was found, unless the client wants a younger one: then the origin's own.
    async fn accepted(&self, found: Found, request: &FetchRequest) -> Result<Found, FetchError> {
        let now_ms = clock::unix_ms();
        match found.head() {
            Some(head) if !serve::accepts(&head.freshness, &request.client, now_ms) => {
                self.pass_request(request).await
            }
            _ => Ok(found),
        }
    }

    /// Joins the key's flight, or starts it.
    async fn fly(&self, request: &FetchRequest) -> Result<Found, FetchError> {
        for _ in 0..FLIGHTS_MAX {
            if request.method == Method::HEAD && self.inner.flights.get(&request.key).is_none() {
                let stored = self.inner.store.get(&request.key).await.is_some();
                if !stored {
                    return self.pass_request(request).await;
                }
            }
            let trusts = self.inner.directory.session_holds();
            let (mut outcome, flight) = self.inner.flights.join(request.key, trusts);
            let first = flight.is_some();
            let (pass, passed) = oneshot::channel();
            if let Some(flight) = flight {
                let mut job = Job::new(self.inner.clone(), request.clone(), flight);
                job.pass = Some(pass);
                self.inner.tasks.spawn("flight", job.run());
            }
            let landed = outcome.wait_for(|outcome| !matches!(outcome, Outcome::Pending)).await;
            let landed = landed.map_or(Outcome::Again, |outcome| outcome.clone());
            match landed {
                Outcome::Pending | Outcome::Again => {}
                // A purge may have come since that flight began: it is nobody's any more.
                Outcome::Stored(object, _, lookup)
                    if !self.inner.stands(object.manifest().head(), lookup) =>
                {
                    self.inner.flights.abandon(&request.key, &outcome);
                }
                Outcome::Live(live, _, lookup) if !self.inner.stands(live.head(), lookup) => {
                    self.inner.flights.abandon(&request.key, &outcome);
                }
                Outcome::Stored(object, tier, lookup) => {
                    return Ok(Found::Stored(object, tier, collapsed(first, lookup)));
                }
                Outcome::Live(live, tier, lookup) => {
                    return Ok(Found::Live(live, tier, collapsed(first, lookup)));
                }
                Outcome::Failed(error) => return Err(error),
                Outcome::Pass => {
                    if let (true, Ok(response)) = (first, passed.await) {
                        return Ok(Found::Pass(response));
                    }
                    return self.pass_request(request).await;
                }
            }
        }
        self.pass_request(request).await
    }

    async fn pass_request(&self, request: &FetchRequest) -> Result<Found, FetchError> {
        let origin_request = OriginRequest {
            method: request.method.clone(),
            target: request.target.clone(),
            client_authority: request.client_authority.clone(),
            headers: request.headers.clone(),
            body: None,
            interims: request.interims.clone(),
        };
        self.pass(request.site.clone(), origin_request).await.map(Found::Pass)
    }

    /// A request straight to the origin, streamed both ways.
    ///
    /// # Errors
    /// When the origin gives no usable answer.
    pub async fn pass(
        &self,
        site: Arc<Site>,
        request: OriginRequest,
    ) -> Result<OriginResponse, FetchError> {
        Ok(self.inner.origin.send(&site, request).await?)
    }

    /// A request to the origin that wants another protocol on its connection.
    ///
    /// # Errors
    /// When the origin gives no usable answer.
    pub async fn switch(
        &self,
        site: Arc<Site>,
        request: OriginRequest,
        protocol: &str,
    ) -> Result<Switched, FetchError> {
        Ok(self.inner.origin.switch(&site, request, protocol).await?)
    }

    /// After a successful unsafe request (RFC 9111 section 4.4): nobody in the cluster serves the
    /// URL's object, or a variant of it, from here on.
    pub async fn invalidate(&self, site: &Site, key: ObjectKey) {
        if let Err(error) = self.inner.store.remove(&key).await {
            tracing::warn!(%error, "an invalidated object could not be removed");
        }
        let variants = label::of_variants(&self.inner.secret, site.name(), &key);
        let url = Url { key, site: site.name().to_owned(), variants };
        if let Err(error) = self.inner.directory.invalidate(url).await {
            tracing::warn!(%error, "an invalidation did not reach the tier");
        }
    }

    /// Takes copies as other nodes wish, for as long as it is polled.
    pub async fn take_copies(self, mut wishes: mpsc::Receiver<CopyRequest>) {
        let slots = Arc::new(Semaphore::new(COPIES_MAX));
        while let Some(copy) = wishes.recv().await {
            let Ok(slot) = slots.clone().acquire_owned().await else { return };
            let (_, Some(flight)) = self.inner.flights.join(copy.key, true) else { continue };
            let site = self.inner.sites.with(|sites| sites.get(&copy.source.site));
            let Some(site) = site.map(|site| site.at(&copy.source.target)) else { continue };
            let request = FetchRequest {
                site,
                key: copy.key,
                method: Method::GET,
                target: copy.source.target.clone(),
                client_authority: copy.source.authority.clone(),
                headers: HeaderMap::new(),
                authorized: false,
                client: RequestDirectives::default(),
                range: None,
                part: copy.source.part.clone().map(|part| {
                    let SourcePart { number, total, tag, modified } = part;
                    Arc::new(Part { number, total, tag, modified })
                }),
                whole: false,
                avoid: None,
                interims: None,
            };
            let mut job = Job::new(self.inner.clone(), request, flight);
            job.copy = Some(copy);
            self.inner.tasks.spawn("copy", async move {
                job.run().await;
                drop(slot);
            });
        }
    }
}

impl Inner {
    /// Whether a stored object may be served without asking anybody.
    fn may_serve(&self, object: &StoredObject) -> bool {
        let head = object.manifest().head();
        head.freshness.is_fresh(clock::unix_ms())
            && self.directory.session_holds()
            && self.directory.verdict(head) == Verdict::Clear
    }

    /// Asks the nodes that the key ranks first to take copies.
    fn wish_for_copies(self: &Arc<Self>, copy: CopyRequest) {
        let me = self.directory.node_id();
        let view = self.directory.view();
        let others = view.nodes_staying().map(|member| member.id).filter(|id| *id != me);
        let chosen = placement::rank(&copy.key, others);
        for id in chosen.into_iter().take(self.copies.saturating_sub(1)) {
            let Some(member) = view.member(id).cloned() else { continue };
            let (inner, copy) = (self.clone(), copy.clone());
            self.tasks.spawn("wish-for-copy", async move {
                if let Err(error) = inner.peers.take_copy(&member, copy).await {
                    tracing::debug!(peer = member.name, %error, "a copy was not taken");
                }
            });
        }
    }
}

/// A lock whose holders do not panic half-way.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn collapsed(first: bool, lookup: Lookup) -> Lookup {
    if !first && lookup == Lookup::Miss { Lookup::Collapsed } else { lookup }
}

/// What a request found.
enum Found {
    Stored(Arc<StoredObject>, Tier, Lookup),
    Live(Arc<Live>, Tier, Lookup),
    Pass(OriginResponse),
}

impl Found {
    /// The object once it is stored.
    async fn whole(self) -> Result<(Arc<StoredObject>, Tier, Lookup), FetchError> {
        let (live, tier, lookup) = match self {
            Self::Stored(stored, tier, lookup) => return Ok((stored, tier, lookup)),
            Self::Live(live, tier, lookup) => (live, tier, lookup),
            Self::Pass(_) => return Err(FetchError::NotCached),
        };
        let mut watched = live.watch();
        let ended = watched.wait_for(|progress| progress.end.is_some()).await;
        match ended.ok().and_then(|progress| progress.end.clone()) {
            Some(End::Done(stored)) => Ok((stored, tier, lookup)),
            Some(End::Failed(_)) | None => Err(FetchError::Closed),
        }
    }

    /// Where it comes from and how it was found; none for what passes through.
    fn origins(&self) -> Option<(Tier, Lookup)> {
        match self {
            Self::Stored(_, tier, lookup) | Self::Live(_, tier, lookup) => Some((*tier, *lookup)),
            Self::Pass(_) => None,
        }
    }

    /// The object's head; none for what passes through.
    fn head(&self) -> Option<&ObjectHead> {
        match self {
            Self::Stored(object, ..) => Some(object.manifest().head()),
            Self::Live(live, ..) => Some(live.head()),
            Self::Pass(_) => None,
        }
    }

    /// With its body, for whose damaged chunks `healer` is asked. What is not here of it comes as
    /// `request` would.
    fn fetched(self, inner: &Arc<Inner>, request: FetchRequest, healer: Option<Healer>) -> Fetched {
        match self {
            Self::Stored(object, tier, lookup) => {
                let head = object.manifest().shared_head();
                let backup = Arc::new(body::Backup {
                    healer,
                    pager: page::Pager::new(Arc::clone(inner), request),
                });
                let body = move |range| body::stored(object.clone(), backup.clone(), range);
                Fetched::Object(FetchedObject::new(head, tier, lookup, body))
            }
            Self::Live(live, tier, lookup) => {
                let head = live.head().clone();
                let body = move |range| body::live(live.clone(), range);
                Fetched::Object(FetchedObject::new(head, tier, lookup, body))
            }
            Self::Pass(response) => Fetched::Pass(response),
        }
    }
}

//! Executes a [`Session`]: pulls the missing chunks of an object whose manifest is known, from
//! several holders at once, into a growing object. What to ask of whom is the session's business.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use futures::future::{AbortHandle, Abortable};
use futures::stream::{FuturesUnordered, StreamExt};
use shoal_proto::{ChunkHash, ErrorKind, Manifest, NodeId, RpcError};
use tokio::sync::mpsc;

use super::client::Peers;
use super::live::Live;
use super::session::{Action, Event, Session};
use crate::membership::Member;
use crate::store::StoreError;

/// Chunks received and not yet stored.
const RECEIVED_MAX: usize = 4;

/// Why a pull came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum PullError {
    /// No holder is left, and chunks are missing.
    #[error("no holder could give the missing chunks: {last}")]
    NoHolder {
        /// The last holder's error.
        last: RpcError,
    },
    /// The store did not take a chunk.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What requests bring, in order: a request's end comes after its last chunk.
enum Received {
    Chunk { request: u64, index: u32, data: Bytes },
    Ended { request: u64, ended: Result<(), RpcError> },
}

/// Pulls every chunk that `live` has not, verified by `manifest`.
///
/// # Errors
/// When no holder is left or the store fails; `live` is then as far as it got, and not ended.
pub async fn pull(
    peers: &Peers,
    manifest: &Arc<Manifest>,
    holders: &[Member],
    live: &Live,
) -> Result<(), PullError> {
    let by_id: HashMap<NodeId, &Member> = holders.iter().map(|h| (h.id, h)).collect();
    let missing = (0..manifest.chunk_count()).filter(|index| !live.has_chunk(*index));
    let mut session = Session::new(missing, holders.iter().map(|h| h.id).collect());
    let mut last = RpcError::new(ErrorKind::NotFound, "no holder is known");
    let (sender, mut received) = mpsc::channel(RECEIVED_MAX);
    let mut running = FuturesUnordered::new();
    let mut aborts: HashMap<u64, AbortHandle> = HashMap::new();
    let mut actions = session.on(Event::Start);
    loop {
        for action in actions.drain(..) {
            match action {
                Action::Request { request, holder, first, count } => {
                    let Some(member) = by_id.get(&holder).copied() else { continue };
                    let (abort, registration) = AbortHandle::new_pair();
                    aborts.insert(request, abort);
                    let asked = ask(peers, member, manifest, (request, first, count), &sender);
                    running.push(Abortable::new(asked, registration));
                }
                Action::Cancel { request } => {
                    if let Some(abort) = aborts.remove(&request) {
                        abort.abort();
                    }
                }
                Action::Done => return Ok(()),
                Action::Stuck => return Err(PullError::NoHolder { last }),
            }
        }
        let event = tokio::select! {
            Some(message) = received.recv() => match message {
                Received::Chunk { request, index, data } => {
                    let chunk = (request, index, data);
                    take(chunk, &session, manifest, live, (peers, &by_id)).await?
                }
                Received::Ended { request, ended } => {
                    aborts.remove(&request);
                    let failed = ended.is_err();
                    if let Err(error) = ended {
                        peers.metrics().failures.inc();
                        last = error;
                    }
                    Event::Ended { request, failed }
                }
            },
            // The requests move only while they are polled; their ends come as messages.
            Some(_) = running.next() => continue,
        };
        actions = session.on(event);
    }
}

async fn ask(
    peers: &Peers,
    holder: &Member,
    manifest: &Manifest,
    run: (u64, u32, u32),
    sender: &mpsc::Sender<Received>,
) {
    let ended = receive(peers, holder, manifest, run, sender).await;
    // The receiver lives as long as this pull.
    let _ = sender.send(Received::Ended { request: run.0, ended }).await;
}

async fn receive(
    peers: &Peers,
    holder: &Member,
    manifest: &Manifest,
    (request, first, count): (u64, u32, u32),
    sender: &mpsc::Sender<Received>,
) -> Result<(), RpcError> {
    let object = (manifest.head().key, manifest.object_id());
    let chunks = peers.chunks(holder, object, first, count).await?;
    let mut chunks = std::pin::pin!(chunks);
    while let Some(chunk) = chunks.next().await {
        let (index, data) = chunk?;
        if !(first..first + count).contains(&index) {
            let message = format!("{} sent chunk {index}, not asked for", holder.name);
            return Err(RpcError::new(ErrorKind::Corrupt, message));
        }
        let _ = sender.send(Received::Chunk { request, index, data }).await;
    }
    Ok(())
}

async fn take(
    (request, index, data): (u64, u32, Bytes),
    session: &Session,
    manifest: &Manifest,
    live: &Live,
    (peers, holders): (&Peers, &HashMap<NodeId, &Member>),
) -> Result<Event, PullError> {
    // What a dropped holder had on its way is of no interest any more.
    let Some(holder) = session.holder(request) else { return Ok(Event::Bad { request }) };
    let hash = ChunkHash::of(&data);
    if manifest.hash(index) != Some(hash) {
        peers.metrics().bad_chunks.inc();
        let name = holders.get(&holder).map_or("", |member| member.name.as_str());
        tracing::warn!(holder = name, index, "a chunk does not match its hash, holder dropped");
        return Ok(Event::Bad { request });
    }
    peers.metrics().bytes_in.inc_by(data.len() as u64);
    if !live.has_chunk(index) {
        live.put_chunk(index, data, hash).await?;
    }
    Ok(Event::Good { chunk: index })
}

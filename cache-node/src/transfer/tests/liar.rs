//! A peer that lies about what it was asked for.

use bytes::Bytes;
use futures::StreamExt;
use shoal_proto::limits::CHUNK_BYTES_MIN;
use shoal_proto::wire::v1;
use shoal_proto::wire::v1::peer_server::Peer;
use shoal_proto::{ChunkHash, Manifest, ObjectHead, ObjectKey};
use tonic::{Request, Response, Status};

use super::head;

/// What is wrong with what a peer sends.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Lie {
    /// One bit of every chunk is another.
    Flipped,
    /// Every chunk lacks its last byte.
    Cut,
    /// Half of the chunks asked for, then the end.
    Short,
    /// Nothing, and no end.
    Late,
    /// The last chunk asked for comes first.
    Reordered,
    /// The first chunk asked for, again and again.
    Endless,
    /// Chunks that nobody asked for.
    Unasked,
    /// It says that it has all, and has nothing.
    Gone,
}

/// A peer that lies about the chunks of a body.
pub(super) struct Liar(pub(super) Bytes, pub(super) Lie);

impl Liar {
    pub(super) fn pieces(&self, wanted: &[u32]) -> Pieces {
        let size = CHUNK_BYTES_MIN as usize;
        let body = self.0.clone();
        let piece = move |index: u32| {
            let start = (index as usize * size).min(body.len());
            (index, body.slice(start..(start + size).min(body.len())))
        };
        let changed = |pieces: Vec<(u32, Bytes)>, change: fn(&mut Vec<u8>)| {
            let pieces = pieces.into_iter().map(move |(index, data)| {
                let mut data = data.to_vec();
                change(&mut data);
                (index, Bytes::from(data))
            });
            futures::stream::iter(pieces.collect::<Vec<_>>()).boxed()
        };
        let half = wanted.len() / 2;
        let right: Vec<_> = wanted.iter().map(|index| piece(*index)).collect();
        let pieces = match self.1 {
            Lie::Flipped => changed(right, |data| data[7] ^= 1),
            Lie::Cut => changed(right, |data| data.truncate(data.len() - 1)),
            Lie::Short => changed(right.into_iter().take(half).collect(), |_| {}),
            Lie::Late => futures::stream::pending().boxed(),
            Lie::Reordered => changed(right.into_iter().rev().collect(), |_| {}),
            Lie::Endless => futures::stream::repeat(right[0].clone()).boxed(),
            Lie::Unasked => {
                let all = futures::stream::iter(0..u32::MAX).map(move |i| piece(i % 3));
                all.boxed()
            }
            Lie::Gone => changed(Vec::new(), |_| {}),
        };
        pieces.map(|(index, data)| Ok(v1::ChunkPiece { index, data })).boxed()
    }
}

type Pieces = futures::stream::BoxStream<'static, Result<v1::ChunkPiece, Status>>;
type Availability = futures::stream::BoxStream<'static, Result<v1::AvailabilityEvent, Status>>;
type Events = futures::stream::BoxStream<'static, Result<v1::FollowEvent, Status>>;

#[tonic::async_trait]
impl Peer for Liar {
    type GetChunksStream = Pieces;
    type AvailabilityStream = Availability;
    type FollowStream = Events;

    async fn ping(&self, _: Request<v1::PingRequest>) -> Result<Response<v1::PingReply>, Status> {
        Err(Status::unimplemented("ping"))
    }

    async fn get_manifest(
        &self,
        _: Request<v1::GetManifestRequest>,
    ) -> Result<Response<v1::GetManifestReply>, Status> {
        let other = ObjectHead { key: ObjectKey::new([6; 32]), ..head(Some(0)) };
        let manifest = Manifest::new(other, 0, Vec::new()).unwrap();
        let manifest = Some(v1::Manifest::from(&manifest));
        Ok(Response::new(v1::GetManifestReply { manifest, has_body: true, body: Bytes::new() }))
    }

    async fn get_chunks(
        &self,
        request: Request<v1::GetChunksRequest>,
    ) -> Result<Response<Pieces>, Status> {
        let ranges = request.into_inner().ranges;
        let wanted = ranges.into_iter().flat_map(|r| r.first..r.first + r.count);
        Ok(Response::new(self.pieces(&wanted.collect::<Vec<_>>())))
    }

    async fn availability(
        &self,
        _: Request<v1::AvailabilityRequest>,
    ) -> Result<Response<Availability>, Status> {
        let all = v1::AvailabilityEvent { has: Vec::new(), all: true };
        Ok(Response::new(futures::stream::iter([Ok(all)]).boxed()))
    }

    async fn follow(&self, _: Request<v1::FollowRequest>) -> Result<Response<Events>, Status> {
        let lie = v1::FollowChunk {
            index: 0,
            hash: ChunkHash::of(b"truth").to_wire(),
            data: Bytes::from_static(b"lie"),
        };
        let event = v1::FollowEvent { event: Some(v1::follow_event::Event::Chunk(lie)) };
        Ok(Response::new(futures::stream::iter([Ok(event)]).boxed()))
    }

    async fn take_copy(
        &self,
        _: Request<v1::TakeCopyRequest>,
    ) -> Result<Response<v1::TakeCopyReply>, Status> {
        Ok(Response::new(v1::TakeCopyReply { taken: false }))
    }

    async fn survey(
        &self,
        _: Request<v1::SurveyRequest>,
    ) -> Result<Response<v1::SurveyReply>, Status> {
        Err(Status::unimplemented("survey"))
    }

    async fn prefetch(
        &self,
        _: Request<v1::PrefetchRequest>,
    ) -> Result<Response<v1::PrefetchReply>, Status> {
        Ok(Response::new(v1::PrefetchReply::default()))
    }
}

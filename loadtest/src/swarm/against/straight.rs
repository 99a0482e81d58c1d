//! Every node's client asks the origin: what there is without any cache.

use std::{sync::Arc, time::Duration};

use futures::future::join_all;
use tokio::sync::watch;

use super::Ground;
use crate::{
    clock::{self, Clock},
    process::Process,
    swarm::{
        SwarmError,
        clients::{Client, Expected},
        cluster::{ORIGIN, ORIGIN_PORT, origin_args},
        results::Get,
        space,
    },
    tasks::Group,
};

/// For the origin to listen.
const LISTENS: Duration = Duration::from_secs(20);
/// Between two looks, in milliseconds.
const LOOK_EVERY_MS: u64 = 100;

/// What every client got, and what left the origin's host meanwhile.
pub(super) async fn run(ground: &Ground<'_>) -> Result<(Vec<Get>, u64), SwarmError> {
    let size_bytes = ground.scenario.size_bytes;
    let (space, address) = ground.origin()?;
    let own = std::env::current_exe()?.to_string_lossy().into_owned();
    let mut origin = ground.run(ORIGIN, &own, origin_args(address))?;
    let at = (address, ORIGIN_PORT).into();
    listens(&space, at, &origin).await?;
    let path = format!("/o/{size_bytes}/straight-{}", clock::wall_unix_ms());
    let expected = Arc::new(Expected::write(&ground.folder, path, size_bytes)?);
    let connections = Group::new();
    let connect = ground.places.iter().map(async |place| {
        let get = Get { node: place.name.clone(), zone: place.zone, ..Get::default() };
        let client = Client::connect((&place.space, at), get, &expected, &connections).await;
        client.map_err(|source| SwarmError::Connect { node: place.name.clone(), source })
    });
    let clients: Result<Vec<_>, _> = join_all(connect).await.into_iter().collect();
    let (open, barrier) = watch::channel(false);
    let limit = ground.scenario.limit() * u32::from(ground.scenario.nodes);
    let gets = clients?.into_iter().map(|client| client.run(barrier.clone(), limit));
    let before = ground.sent();
    open.send_replace(true);
    let gets = join_all(gets).await;
    let sent = ground.sent().saturating_sub(before);
    connections.abort();
    origin.kill().await.map_err(crate::tier::TierError::from)?;
    Ok((gets, sent))
}

async fn listens(
    space: &str,
    at: std::net::SocketAddr,
    origin: &Process,
) -> Result<(), SwarmError> {
    let clock = Clock::start();
    loop {
        match space::page(space, at, "/_origin/stats").await {
            Ok(_) => return Ok(()),
            Err(source) if clock.now() >= LISTENS => {
                return Err(SwarmError::Origin { source, said: origin.log_tail() });
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(LOOK_EVERY_MS)).await,
        }
    }
}

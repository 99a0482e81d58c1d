//! Tells others what this node holds: the tier everything when it asks and evictions as they come;
//! after a time without it, what it is owed; and home nodes, while no super-node answers. Tells the
//! store how many others hold what is about to go.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use shoal_proto::{NodeId, ObjectId, ObjectKey};

use crate::directory::{Change, Debt, Directory, Held, OTHERS_OBJECTS_MAX, Others, Part};
use crate::store::Store;

/// Keys of the store listed at a time.
const INVENTORY_PAGE: usize = 1_024;
/// Entries told to the tier at once after a time without it.
const OWED_AT_ONCE: usize = 64;
/// Between two looks for something that is owed.
const OWED_EVERY: Duration = Duration::from_millis(200);
/// Pause after something owed could not be told.
const OWED_PAUSE: Duration = Duration::from_secs(1);
/// Pause between two pages of an inventory for home nodes.
const HOMES_PAGE_PAUSE: Duration = Duration::from_millis(100);
/// Between two inventories for home nodes; they forget what they are not told again.
const HOMES_EVERY: Duration = Duration::from_secs(300);
/// Between two looks for whether the tier is gone.
const HOMES_LOOK: Duration = Duration::from_secs(1);
/// Between two looks for wanted objects that are about to go.
const LAST_COPIES_EVERY: Duration = Duration::from_secs(1);

type Telling = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Everything that is to be told for as long as the node runs, by task.
pub(super) fn all(store: &Arc<Store>, directory: &Arc<Directory>) -> [(&'static str, Telling); 5] {
    let both = || (store.clone(), directory.clone());
    let ((a, b), (c, d), (e, f), (g, h), (i, j)) = (both(), both(), both(), both(), both());
    [
        ("inventory", Box::pin(announce_inventory(a, b))),
        ("evictions", Box::pin(announce_evictions(c, d))),
        ("owed", Box::pin(settle(e, f))),
        ("home-inventory", Box::pin(tell_home_nodes(g, h))),
        ("last-copies", Box::pin(find_last_copies(i, j))),
    ]
}

/// What the store holds of that object now.
fn change(store: &Store, key: ObjectKey, object: ObjectId) -> Change {
    let held = match store.holding(&key) {
        Some((here, None)) if here == object => Held::All,
        Some((here, Some(bits))) if here == object => Held::Some(bits),
        _ => Held::Nothing,
    };
    Change { key, object, held }
}

/// Tells the tier everything that the store holds, whenever it wants to know.
async fn announce_inventory(store: Arc<Store>, directory: Arc<Directory>) {
    let mut wanted = directory.inventories();
    wanted.mark_changed();
    while wanted.changed().await.is_ok() {
        directory.welcomed().await;
        let mut after: Option<ObjectKey> = None;
        loop {
            let page = store.list(after, INVENTORY_PAGE);
            for (key, object) in &page {
                directory.announce(change(&store, *key, *object)).await;
            }
            match page.last() {
                Some((key, _)) => after = Some(*key),
                None => break,
            }
        }
    }
}

/// Tells the tier what the store has evicted. Lossy when the node is far behind: a stale record
/// costs its finder one extra hop.
async fn announce_evictions(store: Arc<Store>, directory: Arc<Directory>) {
    let mut evicted = store.evictions();
    loop {
        match evicted.recv().await {
            Ok((key, object)) => {
                directory.announce(change(&store, key, object)).await;
            }
            Err(tokio::sync::broadcast::error::RecvError::Lagged(missed)) => {
                tracing::warn!(missed, "evictions were not announced");
            }
            Err(tokio::sync::broadcast::error::RecvError::Closed) => return,
        }
    }
}

/// Tells the tier what it is owed, as soon as it answers again, a little at a time.
async fn settle(store: Arc<Store>, directory: Arc<Directory>) {
    loop {
        tokio::time::sleep(OWED_EVERY).await;
        while directory.session_holds() {
            let part = directory.take_owed(OWED_AT_ONCE);
            if part.is_empty() {
                break;
            }
            let left = tell(&store, &directory, part).await;
            if !left.is_empty() {
                directory.put_back(left);
                tokio::time::sleep(OWED_PAUSE).await;
            }
        }
    }
}

/// Tells a part; what could not be told comes back.
async fn tell(store: &Store, directory: &Directory, part: Part) -> Part {
    let mut left = Part::default();
    let purges = part.purges.iter().map(|url| async {
        let told = directory.invalidate(url.clone()).await;
        told.inspect_err(|error| tracing::info!(%error, "an invalidation is still owed")).is_err()
    });
    let failed = futures::future::join_all(purges).await;
    let unsaid = part.purges.iter().zip(failed).filter(|(_, failed)| *failed);
    left.purges = unsaid.map(|(url, _)| url.clone()).collect();
    let debts = part.debts.iter().map(|(key, debt)| pay(store, directory, *key, *debt));
    let paid = futures::future::join_all(debts).await;
    let unsaid = part.debts.iter().zip(paid).filter(|(_, paid)| !paid);
    left.debts = unsaid.map(|(debt, _)| *debt).collect();
    if part.everything {
        publish_everything(store, directory).await;
    }
    left
}

/// Tells one entry; false when it has to be told again.
async fn pay(store: &Store, directory: &Directory, key: ObjectKey, debt: Debt) -> bool {
    let here = store.locate(&key);
    match debt {
        Debt::Publish(object) if here == Some(object) => publish(store, directory, key).await,
        Debt::Held(object) if here == Some(object) => {
            directory.announce(change(store, key, object)).await;
            true
        }
        Debt::Dropped(object) if here != Some(object) => {
            directory.announce(change(store, key, object)).await;
            true
        }
        // The store has changed since; whoever changed it has told.
        _ => true,
    }
}

async fn publish(store: &Store, directory: &Directory, key: ObjectKey) -> bool {
    let Some(stored) = store.get(&key).await else { return true };
    match directory.publish(None, stored.manifest()).await {
        Ok(true) => {
            if !stored.is_whole() {
                // Who publishes is taken to have all of it.
                directory.announce(change(store, key, stored.object_id())).await;
            }
            true
        }
        Ok(false) => {
            // A purge came while nobody could tell this node of it, or others have a newer one.
            if let Err(error) = store.remove(&key).await {
                tracing::warn!(%error, "an outdated object could not be removed");
            }
            true
        }
        Err(error) => {
            tracing::info!(%error, "an object filled without the tier is still to be published");
            false
        }
    }
}

async fn publish_everything(store: &Store, directory: &Directory) {
    let mut after: Option<ObjectKey> = None;
    loop {
        let page = store.list(after, OWED_AT_ONCE);
        let told = page.iter().map(|(key, _)| publish(store, directory, *key));
        futures::future::join_all(told).await;
        match page.last() {
            Some((key, _)) => after = Some(*key),
            None => return,
        }
    }
}

/// Tells home nodes everything that the store holds, for as long as no super-node answers.
async fn tell_home_nodes(store: Arc<Store>, directory: Arc<Directory>) {
    loop {
        directory.welcomed().await;
        while !directory.is_tierless().await {
            tokio::time::sleep(HOMES_LOOK).await;
        }
        let mut after: Option<ObjectKey> = None;
        loop {
            let page = store.list(after, INVENTORY_PAGE);
            let held = |(key, object): &(_, _)| change(&store, *key, *object);
            directory.tell_home_nodes(&page.iter().map(held).collect::<Vec<_>>()).await;
            match page.last() {
                Some((key, _)) if !directory.session_holds() => after = Some(*key),
                _ => break,
            }
            tokio::time::sleep(HOMES_PAGE_PAUSE).await;
        }
        let again = tokio::time::sleep(HOMES_EVERY);
        tokio::pin!(again);
        while !again.is_elapsed() && !directory.session_holds() {
            tokio::select! {
                () = &mut again => {}
                () = tokio::time::sleep(HOMES_LOOK) => {}
            }
        }
    }
}

/// While things are being evicted, tells the store which of the next to go nobody else holds.
async fn find_last_copies(store: Arc<Store>, directory: Arc<Directory>) {
    let mut evicted = store.evicted();
    loop {
        tokio::time::sleep(LAST_COPIES_EVERY).await;
        let before = std::mem::replace(&mut evicted, store.evicted());
        if before == evicted || !directory.session_holds() {
            continue;
        }
        // About as many of each queue's oldest.
        let mut doubtful = store.doubtful(OTHERS_OBJECTS_MAX / 2);
        doubtful.truncate(OTHERS_OBJECTS_MAX);
        match directory.others(&doubtful).await {
            Ok(others) => {
                let view = directory.view();
                let stays = |id: &NodeId| view.member(*id).is_none_or(|member| !member.draining);
                let count = |others: Others| {
                    u32::try_from(others.iter().filter(|id| stays(id)).count()).unwrap_or(u32::MAX)
                };
                let known = doubtful.into_iter().zip(others);
                let known: Vec<_> =
                    known.map(|((key, id), others)| (key, id, count(others))).collect();
                store.note_others(&known);
            }
            Err(error) => tracing::debug!(%error, "last copies are not known"),
        }
    }
}

//! The broker's view of the committed metadata: one immutable image, swapped whole, and a way to wait for the next.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use ottla_metadata::image::MetadataImage;
use tokio::sync::watch;

/// A handle on the image that everyone reads. Clones share it.
#[derive(Clone)]
pub struct ImageHandle {
    current: Arc<ArcSwap<MetadataImage>>,
    index: Arc<watch::Sender<i64>>,
}

impl Default for ImageHandle {
    fn default() -> Self {
        Self { current: Arc::default(), index: Arc::new(watch::Sender::new(-1)) }
    }
}

impl ImageHandle {
    /// The image as it is now.
    pub fn current(&self) -> Arc<MetadataImage> {
        self.current.load_full()
    }

    /// Index of the last applied entry; -1: none yet.
    pub fn index(&self) -> i64 {
        *self.index.borrow()
    }

    /// Publishes a newer image. Whoever has to act on it (the replica manager) did so before.
    pub fn publish(&self, image: Arc<MetadataImage>) {
        let index = image.index().0;
        self.current.store(image);
        self.index.send_replace(index);
    }

    /// Waits until an index is applied; `false` when that takes longer than `patience`.
    pub async fn wait_for(&self, index: i64, patience: Duration) -> bool {
        let mut applied = self.index.subscribe();
        tokio::time::timeout(patience, applied.wait_for(|applied| *applied >= index)).await.is_ok()
    }

    /// A receiver that sees each change of the index.
    pub fn watch(&self) -> watch::Receiver<i64> {
        self.index.subscribe()
    }
}

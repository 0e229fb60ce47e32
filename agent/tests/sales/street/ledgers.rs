//! What becomes of the street's ledger: time passes on it, or its books are gone.

use super::*;

impl Street {
    /// The ledger as its operator starts it whose file is gone: the same key, and nothing in its books.
    pub async fn ledger_without_books(&self) -> Serving {
        let (from, dir) = (self.folder.path().join("ledger"), self.folder.path().join("anew"));
        std::fs::create_dir(&dir).unwrap();
        for key in [keys::LEDGER_KEY, keys::OPERATOR_KEY] {
            std::fs::copy(from.join(key), dir.join(key)).unwrap();
        }
        let config = Config {
            dir,
            listen: (Ipv4Addr::LOCALHOST, 0).into(),
            time: None,
            bounds: Bounds::default(),
        };
        serve(config).await.unwrap()
    }

    /// So much time passes on the ledger. Nodes ask it when they start, and twice a minute.
    pub fn passes(&self, time: Duration) {
        let ms = u64::try_from(time.as_millis()).unwrap();
        self.ahead.fetch_add(ms, Ordering::SeqCst);
    }
}

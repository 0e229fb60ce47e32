//! What happens to the grid's own machine, which is the bootstrap peer and the relay.

use super::*;

impl Street {
    /// All of it is gone.
    pub async fn end(self) {
        self.serve.shutdown().await;
    }

    /// The grid's own machine is started again: the same key and ports, and nothing remembered.
    pub async fn restart_grid(self) -> Street {
        let Street {
            folder,
            ledger,
            serve,
            ahead,
            way,
        } = self;
        let ticket = serve.ticket().to_string();
        let port = |key: &str| {
            let parts = ticket.split(['?', '&']);
            parts
                .filter_map(|part| part.strip_prefix(key))
                .map(|port| port.parse().unwrap())
                .next()
        };
        let mut config = ServeConfig::new("street", public(&key(1)), [2; 32]);
        config.relay_port = serve.ticket().relay_port();
        config.peer_port = port("udp=").unwrap();
        config.discovery_port = port("qad=");
        serve.shutdown().await;
        let again = async {
            loop {
                match Serve::start(config.clone()).await {
                    Ok(serve) => return serve,
                    Err(_) => tokio::task::yield_now().await,
                }
            }
        };
        let serve = tokio::time::timeout(SOON, again)
            .await
            .expect("its ports are free");
        assert_eq!(serve.ticket().to_string(), ticket);
        Street {
            folder,
            ledger,
            serve,
            ahead,
            way,
        }
    }
}

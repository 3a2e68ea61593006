//! Certificates while the process runs: read again once a day and on SIGHUP, so that files that were
//! replaced are used and leaves of the internal CA never expire.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use std::time::SystemTime;

use log::info;
use log::warn;

use crate::app::life::Life;
use crate::tls::Settings;
use crate::tls::store::CertificateStore;

/// A leaf of the internal CA is renewed when a third of its 90 days remains: a day is often enough.
const EVERY: Duration = Duration::from_secs(24 * 3600);

/// The certificates of one listener and what they were read from.
pub(crate) struct Renewable {
    pub(crate) listener: Arc<str>,
    pub(crate) store: Arc<CertificateStore>,
    pub(crate) settings: Settings,
}

/// Reads all certificates again, now and then, for as long as the process runs.
pub(crate) async fn keep(stores: Vec<Renewable>, state_dir: PathBuf, life: Arc<Life>) {
    let stores = Arc::new(stores);
    loop {
        tokio::select! {
            () = tokio::time::sleep(EVERY) => {}
            () = life.renew.notified() => {}
        }
        let (stores, state_dir) = (Arc::clone(&stores), state_dir.clone());
        let renewing = tokio::task::spawn_blocking(move || renew(&stores, &state_dir));
        // It ends without a result only when the process ends or it panicked, which was told.
        let _ = renewing.await;
    }
}

fn renew(stores: &[Renewable], state_dir: &std::path::Path) {
    for one in stores {
        match one.store.reload(&one.settings, state_dir, SystemTime::now()) {
            Ok(()) => info!(
                target: "edgeproxy::app",
                "certificates of listener \"{}\" are read again",
                one.listener
            ),
            Err(e) => warn!(
                target: "edgeproxy::app",
                "certificates of listener \"{}\" cannot be read again: {e}; those in use stay",
                one.listener
            ),
        }
    }
}

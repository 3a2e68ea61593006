//! The keys of tickets go over to the process that follows, so that who was here before costs no signature there.
//!
//! The new process asks on a connection of its own, is given one message and hangs up. Whatever goes wrong,
//! it begins with keys of its own, and clients with full handshakes.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use std::time::SystemTime;

use log::info;

use crate::app::frames;
use crate::app::handover;
use crate::runtime::Runtime;
use crate::tls::store::CertificateStore;
use crate::tls::tickets::Bequeathed;

/// The kind of the message.
const KEYS: u8 = b'k';
/// How long the process before may take. Requests do not wait for it: they are served there meanwhile.
const PATIENCE: Duration = Duration::from_secs(2);

/// Gives every listener's keys to the process at the other end. Blocks.
pub(super) fn leave(stream: &mut UnixStream, runtime: &Runtime) -> io::Result<()> {
    let keys = |(name, store): (Arc<str>, &CertificateStore)| {
        store.bequeathed().map(|keys| (name.to_string(), keys))
    };
    let all: BTreeMap<String, Bequeathed> = listeners(runtime).filter_map(keys).collect();
    frames::write(stream, KEYS, &[&serde_json::to_vec(&all)?])
}

/// Goes on with the keys of the process at `path`. Returns when they are there, or do not come.
pub(super) async fn inherit(path: &Path, runtime: &Arc<Runtime>) {
    if listeners(runtime).next().is_none() {
        return;
    }
    let (path, runtime) = (path.to_owned(), Arc::clone(runtime));
    let taking = tokio::task::spawn_blocking(move || take(&path, &runtime));
    match taking.await.unwrap_or_else(|e| Err(io::Error::other(e))) {
        Ok(count) => info!(target: "edgeproxy::app", "sessions of {count} listeners go on here"),
        Err(e) => info!(target: "edgeproxy::app",
            "clients begin new sessions: the keys of tickets are not handed over ({e})"),
    }
}

fn take(path: &Path, runtime: &Runtime) -> io::Result<usize> {
    let mut stream = handover::connect(path, None)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    handover::want_keys(&mut stream)?;
    let mut text = Vec::new();
    if frames::read(&mut stream, &mut text)? != Some(KEYS) {
        return Err(io::Error::other("the running process has none to give"));
    }
    let all: BTreeMap<String, Bequeathed> = serde_json::from_slice(&text)?;
    let now = SystemTime::now();
    let mut count = 0;
    for (name, store) in listeners(runtime) {
        if let Some(keys) = all.get(&*name) {
            store.inherit(keys, now);
            count += 1;
        }
    }
    Ok(count)
}

/// Those that speak TLS. One that was taken away by a reload may have the name of one that is there: it comes
/// first, and so it does not count.
fn listeners(runtime: &Runtime) -> impl Iterator<Item = (Arc<str>, &CertificateStore)> {
    let stores = runtime.listener_names.iter().zip(&runtime.certificates);
    stores.filter_map(|(name, store)| Some((Arc::clone(name), store.as_deref()?)))
}

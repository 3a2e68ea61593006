//! What Pingora has to know to talk to a backend: everything but the address.

use std::hash::DefaultHasher;
use std::hash::Hash;
use std::hash::Hasher;
use std::net::Ipv4Addr;

use pingora::protocols::l4::socket::SocketAddr;
use pingora::upstreams::peer::HttpPeer;
use pingora::upstreams::peer::PeerOptions;
use pingora::upstreams::peer::Scheme;

use crate::tls::disk;
use crate::upstream::OriginTls;
use crate::upstream::Place;
use crate::upstream::Protocol;
use crate::upstream::Settings;
use crate::upstream::connect;
use crate::upstream::pins::Pin;
use crate::upstream::tls;
use crate::upstream::tls::TlsError;

/// The key under which connections are pooled: peers share them only when nothing that was settled at
/// the handshake differs.
pub(super) fn group_key(settings: &Settings, tls: Option<&OriginTls>, place: &Place) -> u64 {
    let mut hasher = DefaultHasher::new();
    settings.name.hash(&mut hasher);
    matches!(settings.protocol, Protocol::Http2).hash(&mut hasher);
    settings.proxy_protocol.hash(&mut hasher);
    if let Some(tls) = tls {
        match (&tls.server_name, place) {
            (Some(name), _) => name.hash(&mut hasher),
            (None, Place::Tcp { host, .. }) => host.hash(&mut hasher),
            (None, Place::Service(_) | Place::Unix(_) | Place::Demo) => {}
        }
        tls.verify.hash(&mut hasher);
        tls.names.hash(&mut hasher);
        tls.ca.hash(&mut hasher);
        tls.shown.hash(&mut hasher);
        // Other authorities in the same file are other authorities, and another certificate is another
        // one who asks. A file that cannot be read is reported by whoever needs it.
        for file in tls.files() {
            disk::read(file).ok().hash(&mut hasher);
        }
    }
    tls.is_some().hash(&mut hasher);
    hasher.finish()
}

/// Everything about the peers of one address but the address itself.
pub(super) fn pattern(
    settings: &Settings,
    place: &Place,
    tls: Option<&OriginTls>,
    key: u64,
) -> Result<HttpPeer, TlsError> {
    let mut options = PeerOptions::new();
    let timeouts = settings.timeouts;
    options.connection_timeout = Some(timeouts.connect);
    options.total_connection_timeout = Some(timeouts.connect);
    options.read_timeout = Some(timeouts.read);
    options.write_timeout = Some(timeouts.write);
    options.idle_timeout = Some(timeouts.idle);
    // Our connector makes the connections.
    options.alpn = connect::marker();

    let sni = match tls {
        Some(tls) => server_name(tls, place)?,
        None => String::new(),
    };
    Ok(HttpPeer {
        _address: SocketAddr::Inet((Ipv4Addr::UNSPECIFIED, 0).into()),
        // TLS is our connector's.
        scheme: Scheme::HTTP,
        sni,
        proxy: None,
        client_cert_key: None,
        group_key: key,
        options,
    })
}

/// The name to send, and to check where none is pinned, at `place`. Never empty: Pingora would then check
/// nothing.
fn server_name(tls: &OriginTls, place: &Place) -> Result<String, TlsError> {
    let pinned = tls.names.iter().find_map(Pin::host);
    let name = match (&tls.server_name, place) {
        (Some(name), _) => name.as_str(),
        (None, Place::Tcp { host, .. }) => host.as_str(),
        // The targets of a service are names that DNS gave, and nobody vouches for.
        (None, Place::Service(_) | Place::Unix(_) | Place::Demo) => match &pinned {
            Some(name) => name,
            None if tls.verify && tls.names.is_empty() => return Err(TlsError::NoServerName),
            None => "localhost",
        },
    };
    // The final dot of an absolute name is DNS's affair; no certificate has it.
    let name = name.strip_suffix('.').unwrap_or(name);
    tls::server_name(name)?;
    Ok(name.to_owned())
}

//! A real ACME server, Debian's Pebble, with a DNS server of its own.
//!
//! Everything about one of them has an address of its own on loopback, since Pebble must know the ports of
//! those that it looks at before they run.

use std::io::Read;
use std::io::Write;
use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use serde_json::Value;
use tempfile::TempDir;

use super::Authority;
use super::Edge;
use super::PATIENCE;
use super::Wire;

/// Where Pebble looks for texts, in place of 80.
pub(crate) const HTTP: u16 = 5002;
/// Where Pebble looks for certificates, in place of 443.
pub(crate) const TLS: u16 = 5001;
const DIRECTORY: u16 = 14000;
const FRONT: u16 = 14001;
const MANAGEMENT: u16 = 15000;
const DNS: u16 = 8053;
const RECORDS: u16 = 8055;

/// An address that nobody else on this machine uses now.
pub(crate) fn address() -> Ipv4Addr {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    let (pid, next) = (std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    let octet = |number: u32| u8::try_from(number & 0xff).expect("a byte");
    Ipv4Addr::new(127, 64 | octet(pid >> 8) & 0x3f, octet(pid), octet(next))
}

/// A running ACME server.
pub(crate) struct AcmeServer {
    folder: TempDir,
    address: Ipv4Addr,
    children: Vec<Child>,
}

/// What it is like.
#[derive(Default)]
pub(crate) struct Nature {
    /// How long its certificates live, in seconds.
    pub(crate) lifetime: Option<u32>,
    /// The account that it wants, and its key.
    pub(crate) external: Option<(&'static str, &'static str)>,
}

impl AcmeServer {
    /// One for which every name stands for `host`.
    pub(crate) fn start(host: Ipv4Addr) -> Self {
        Self::with(host, &Nature::default())
    }

    /// The same, of this nature.
    pub(crate) fn with(host: Ipv4Addr, nature: &Nature) -> Self {
        let folder = tempfile::tempdir().expect("a folder can be made");
        let address = address();
        let authority = Authority::new();
        authority.write(folder.path());
        let name = address.to_string();
        let (certificate, key) = authority.write_leaf(folder.path(), "server", &[&name]);
        let mut settings = serde_json::json!({
            "listenAddress": format!("{address}:{DIRECTORY}"),
            "managementListenAddress": format!("{address}:{MANAGEMENT}"),
            "certificate": certificate,
            "privateKey": key,
            "httpPort": HTTP,
            "tlsPort": TLS,
            "ocspResponderURL": "",
            "externalAccountBindingRequired": nature.external.is_some(),
        });
        if let Some(lifetime) = nature.lifetime {
            settings["certificateValidityPeriod"] = lifetime.into();
        }
        if let Some((id, key)) = nature.external {
            settings["externalAccountMACKeys"] = serde_json::json!({ id: key });
        }
        let config = folder.path().join("pebble.json");
        let text = serde_json::json!({ "pebble": settings }).to_string();
        std::fs::write(&config, text).expect("the folder can be written to");

        let dns = format!("{address}:{DNS}");
        let records = format!("{address}:{RECORDS}");
        let ip = host.to_string();
        let mut names = Command::new("pebble-challtestsrv");
        names.args(["-defaultIPv6", "", "-defaultIPv4", &ip]);
        names.args(["-http01", "", "-https01", "", "-tlsalpn01", ""]);
        names.args(["-dns01", &dns, "-management", &records]);
        let mut server = Command::new("pebble");
        server.arg("-config").arg(&config).args(["-dnsserver", &dns]);
        // No waits before it looks, each order is looked at, and no nonce is refused by chance: three in a row
        // make an order fail.
        server.env("PEBBLE_VA_NOSLEEP", "1").env("PEBBLE_AUTHZREUSE", "0");
        server.env("PEBBLE_WFE_NONCEREJECT", "0");
        let children = [names, server].map(|mut command| {
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            command.spawn().unwrap_or_else(|e| {
                panic!("{:?} cannot be run ({e}): scripts/setup test", command.get_program())
            })
        });
        for port in [DNS, RECORDS, DIRECTORY, MANAGEMENT] {
            await_port((address, port).into());
        }
        Self { folder, address, children: children.into() }
    }

    /// The section `acme` for it, with further keys.
    pub(crate) fn section(&self, more: &str) -> String {
        let root = self.folder.path().join("ca.pem");
        format!(
            "acme: {{directory: \"https://{}:{DIRECTORY}/dir\", root: {}, retry: 1s, {more}}}\n",
            self.address,
            root.display()
        )
    }

    /// A proxy in front of its directory, in which it says as well when certificates are to be renewed (RFC
    /// 9773), which Debian's Pebble does not; and the section for that, with further keys.
    pub(crate) fn behind(&self, window: &str, more: &str) -> (Edge, String) {
        let trusted = self.folder.path().join("ca.pem");
        let (name, front) = (self.address.to_string(), SocketAddr::from((self.address, FRONT)));
        let to = SocketAddr::from((self.address, DIRECTORY));
        let mut wire =
            Wire::tls(to, &name, &trusted, &["http/1.1"]).expect("the directory listens");
        let reply = wire.get(&to.to_string(), "/dir", &[]);
        let mut directory: Value = serde_json::from_str(&reply.text()).expect("JSON");
        directory["renewalInfo"] = format!("https://{front}/renewal").into();
        let folder = self.folder.path().display();
        let json = |value: &Value| serde_json::to_string(&value.to_string()).expect("text");
        let window: Value = serde_json::from_str(window).expect("JSON");
        let edge = Edge::with(&format!(
            "listeners:\n  - {{name: https, address: \"{front}\", tls: {{certificates: \
             [{{hosts: [acme.test], certificate: {folder}/server.pem, key: {folder}/server.key}}]}}}}\n\
             routes:\n  - {{match: {{path: /dir}}, respond: {{body: {}, content_type: application/json}}}}\n  \
             - {{match: {{path_prefix: /renewal}}, respond: {{body: {}, content_type: application/json, \
             headers: {{retry-after: \"3600\"}}}}}}\n",
            json(&directory),
            json(&serde_json::json!({ "suggestedWindow": window })),
        ));
        let section = self.section(more).replace(&format!("{to}/dir"), &format!("{front}/dir"));
        (edge, section)
    }

    /// Has every name stand for another host.
    pub(crate) fn point_at(&self, host: Ipv4Addr) {
        self.tell("/set-default-ipv4", &format!("{{\"ip\": \"{host}\"}}"));
    }

    /// Where DNS records are set: what a program posts to.
    pub(crate) fn records(&self) -> String {
        format!("http://{}:{RECORDS}", self.address)
    }

    fn tell(&self, path: &str, body: &str) {
        let mut stream = TcpStream::connect((self.address, RECORDS)).expect("it listens");
        let length = body.len();
        write!(stream, "POST {path} HTTP/1.1\r\nHost: dns\r\nContent-Length: {length}\r\n")
            .and_then(|()| write!(stream, "Connection: close\r\n\r\n{body}"))
            .expect("it reads");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("it answers");
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }

    /// Writes the root of what it issues into a file.
    pub(crate) fn root(&self) -> PathBuf {
        let trusted = self.folder.path().join("ca.pem");
        let to = SocketAddr::from((self.address, MANAGEMENT));
        let mut wire = Wire::tls(to, &self.address.to_string(), &trusted, &["http/1.1"])
            .expect("the management listens");
        let reply = wire.get(&to.to_string(), "/roots/0", &[]);
        reply.expect_status(200);
        let path = self.folder.path().join("issued.pem");
        std::fs::write(&path, reply.text()).expect("the folder can be written to");
        path
    }
}

impl Drop for AcmeServer {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

pub(super) fn await_port(to: SocketAddr) {
    let began = Instant::now();
    while TcpStream::connect(to).is_err() {
        assert!(began.elapsed() < PATIENCE, "nobody listens on {to}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

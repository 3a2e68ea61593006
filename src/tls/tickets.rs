//! Tickets: sessions that clients keep for us, sealed, so that who comes back costs no signature.
//!
//! ```text
//! ticket = name of the key (8) | salt (32) | sealed: when it was issued (8), the session | tag (16)
//! ```
//!
//! Each ticket is sealed with a key of its own, made of one of ours, the salt and the [scope](Scope) in which
//! it was issued. So no number of tickets wears a key out; and one that was issued where clients are held
//! to something else, or to nothing, opens nowhere but there: who has been asked for no certificate yet is
//! asked for one, however the session went on.

use std::fmt;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use std::time::SystemTime;
use std::time::UNIX_EPOCH;

use parking_lot::RwLock;
use ring::aead;
use ring::aead::Aad;
use ring::aead::LessSafeKey;
use ring::aead::Nonce;
use ring::aead::UnboundKey;
use ring::digest;
use ring::hkdf;
use ring::rand::SecureRandom;
use ring::rand::SystemRandom;
use rustls::server::ProducesTickets;
use serde::Deserialize;
use serde::Serialize;

use super::clients::Scope;
use super::disk;
use super::error::Error;
use super::store::Replaced;

/// For how long a ticket opens, and how long a key of our own making seals. The session may hold what was
/// known of a client then.
const LIFE: Duration = Duration::from_secs(6 * 3600);

const NAME: usize = 8;
const SALT: usize = 32;
const TIME: usize = 8;
const TAG: usize = 16;

/// A key that tickets are sealed with.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Key {
    name: [u8; NAME],
    secret: [u8; 32],
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Key {
    pub(super) fn new(secret: [u8; 32]) -> Self {
        // Nodes that share a key have one name for it.
        let named =
            digest::digest(&digest::SHA256, &[b"edgeproxy ticket key", &secret[..]].concat());
        let mut name = [0; NAME];
        name.copy_from_slice(&named.as_ref()[..NAME]);
        Self { name, secret }
    }

    fn random() -> Option<Self> {
        let mut secret = [0; 32];
        SystemRandom::new().fill(&mut secret).ok()?;
        Some(Self::new(secret))
    }

    /// The key of one ticket.
    fn of(&self, salt: &[u8], scope: Scope) -> Option<LessSafeKey> {
        let extracted = hkdf::Salt::new(hkdf::HKDF_SHA256, salt).extract(&self.secret);
        let info = [&b"edgeproxy ticket"[..], scope.as_bytes()];
        let made = extracted.expand(&info, &aead::AES_256_GCM).ok()?;
        Some(LessSafeKey::new(UnboundKey::from(made)))
    }
}

/// The keys in use: the first one seals, all of them open.
#[derive(Debug)]
struct Keys {
    all: Vec<Key>,
    /// Since when the first one seals; `None`: for as long as it is told.
    since: Option<SystemTime>,
}

/// Whose keys tickets are sealed with, as meant.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Resumption {
    /// Sessions do not go on.
    Off,
    /// The listener's own.
    #[default]
    Own,
    /// Those in a file, which other nodes have too.
    Shared(PathBuf),
}

/// Keys of a listener's own, on their way to the process that follows.
#[derive(Serialize, Deserialize)]
pub struct Bequeathed {
    /// Since when the first one seals, in seconds since 1970.
    since: u64,
    /// The keys, the one that seals first.
    secrets: Vec<[u8; 32]>,
}

/// Keys that were read and are not in use yet.
#[derive(Debug)]
pub(super) enum Given {
    /// The listener makes its own.
    Own,
    /// These.
    These(Vec<Key>),
}

/// The most keys that a file may have.
const MOST_KEYS: usize = 16;

/// Reads the keys that are meant. The first one of a file seals, all of them open.
///
/// # Errors
/// The file cannot be read, others may, or it holds something else.
pub(super) fn read(resumption: &Resumption) -> Result<Given, Error> {
    let file = match resumption {
        Resumption::Off | Resumption::Own => return Ok(Given::Own),
        Resumption::Shared(file) => file,
    };
    let wrong = |cause: String| Error::TicketKeys { file: file.clone(), cause };
    let mode = fs::metadata(file).map_err(Error::read(file))?.permissions().mode() & 0o777;
    // Who has a key can read what was said in sessions that went on, and can make sessions.
    if mode & 0o027 != 0 {
        return Err(wrong(format!(
            "others may read or change the keys (mode {mode:04o}); `chmod 600` it, and make new ones if they may \
             have leaked"
        )));
    }
    let text = disk::read_text(file).map_err(Error::read(file))?;
    let mut keys = Vec::new();
    for (n, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let secret = secret(line).ok_or_else(|| {
            wrong(format!(
                "line {} is no key of 64 hexadecimal digits; `openssl rand -hex 32` makes one",
                n + 1
            ))
        })?;
        keys.push(Key::new(secret));
    }
    match keys.len() {
        0 => Err(wrong("it holds no key; `openssl rand -hex 32` makes one".to_owned())),
        1..=MOST_KEYS => Ok(Given::These(keys)),
        many => Err(wrong(format!("it holds {many} keys; {MOST_KEYS} are enough"))),
    }
}

/// Looks at the file, as `edgeproxy check` does.
///
/// # Errors
/// It cannot be used.
pub fn inspect(resumption: &Resumption) -> Result<(), Error> {
    read(resumption).map(drop)
}

fn secret(text: &str) -> Option<[u8; 32]> {
    if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let mut secret = [0; 32];
    for (byte, at) in secret.iter_mut().zip((0..).step_by(2)) {
        *byte = u8::from_str_radix(text.get(at..at + 2)?, 16).ok()?;
    }
    Some(secret)
}

/// The keys of a listener's tickets.
#[derive(Debug)]
pub(super) struct Tickets {
    keys: RwLock<Keys>,
    random: SystemRandom,
}

impl Tickets {
    /// With a key of its own.
    pub(super) fn new(now: SystemTime) -> Option<Arc<Self>> {
        let keys = Keys { all: vec![Key::random()?], since: Some(now) };
        Some(Arc::new(Self { keys: RwLock::new(keys), random: SystemRandom::new() }))
    }

    /// The tickets that are issued in a scope.
    pub(super) fn within(self: &Arc<Self>, scope: Scope) -> Arc<dyn ProducesTickets> {
        Arc::new(Scoped { tickets: Arc::clone(self), scope })
    }

    /// These keys are in use from now on. Its own ones stay, where it had them before. Says whether they are
    /// others.
    pub(super) fn adopt(&self, given: Given, now: SystemTime) -> Replaced {
        let mut keys = self.keys.write();
        let next = match given {
            Given::These(all) => Keys { all, since: None },
            Given::Own if keys.since.is_some() => return Replaced::BySame,
            Given::Own => match Key::random() {
                Some(own) => Keys { all: vec![own], since: Some(now) },
                // Without random numbers there is no TLS either; what there is stays.
                None => return Replaced::BySame,
            },
        };
        let is_same = keys.since.is_none() && keys.all == next.all;
        *keys = next;
        if is_same { Replaced::BySame } else { Replaced::ByOthers }
    }

    /// Its own keys, for the process that follows. Those of a file that one reads itself.
    pub(super) fn bequeathed(&self) -> Option<Bequeathed> {
        let keys = self.keys.read();
        let since = since_epoch(keys.since?);
        Some(Bequeathed { since, secrets: keys.all.iter().map(|key| key.secret).collect() })
    }

    /// Goes on with the keys of the process before, where it would have some of its own making.
    pub(super) fn inherit(&self, from: &Bequeathed, now: SystemTime) {
        let mut keys = self.keys.write();
        if keys.since.is_none() || from.secrets.is_empty() {
            return;
        }
        let since = UNIX_EPOCH.checked_add(Duration::from_secs(from.since));
        // Clocks are set; what seems to begin later began now.
        keys.since = Some(since.map_or(now, |since| since.min(now)));
        // Nobody was given a ticket of its own keys yet, or only just now: they open, too.
        let own = std::mem::take(&mut keys.all);
        keys.all = from.secrets.iter().take(MOST_KEYS).copied().map(Key::new).chain(own).collect();
    }

    /// The key that seals now.
    fn sealing(&self, now: SystemTime) -> Option<Key> {
        let is_old = |keys: &Keys| {
            keys.since.is_some_and(|since| now.duration_since(since).is_ok_and(|age| age >= LIFE))
        };
        {
            let keys = self.keys.read();
            if !is_old(&keys) {
                return keys.all.first().cloned();
            }
        }
        let mut keys = self.keys.write();
        if is_old(&keys) {
            // The one before opens for as long as its last ticket.
            keys.all.truncate(1);
            keys.all.insert(0, Key::random()?);
            keys.since = Some(now);
        }
        keys.all.first().cloned()
    }

    fn seal(&self, session: &[u8], scope: Scope, now: SystemTime) -> Option<Vec<u8>> {
        let key = self.sealing(now)?;
        let mut salt = [0; SALT];
        self.random.fill(&mut salt).ok()?;
        let mut sealed = Vec::with_capacity(TIME + session.len() + TAG);
        sealed.extend_from_slice(&since_epoch(now).to_be_bytes());
        sealed.extend_from_slice(session);
        let once = key.of(&salt, scope)?;
        once.seal_in_place_append_tag(nonce(), Aad::from(key.name), &mut sealed).ok()?;
        Some([&key.name[..], &salt, &sealed].concat())
    }

    fn open(&self, ticket: &[u8], scope: Scope, now: SystemTime) -> Option<Vec<u8>> {
        let (name, rest) = ticket.split_first_chunk::<NAME>()?;
        let (salt, sealed) = rest.split_first_chunk::<SALT>()?;
        let key = self.keys.read().all.iter().find(|key| key.name == *name)?.clone();
        let mut sealed = sealed.to_vec();
        let once = key.of(salt, scope)?;
        let opened = once.open_in_place(nonce(), Aad::from(key.name), &mut sealed).ok()?;
        let (issued, session) = opened.split_first_chunk::<TIME>()?;
        let age = since_epoch(now).checked_sub(u64::from_be_bytes(*issued));
        // Nodes' clocks differ a little: one that seems to come from the future is new.
        let is_young = age.is_none_or(|age| age < LIFE.as_secs());
        is_young.then(|| session.to_vec())
    }
}

/// Every ticket has a key of its own.
fn nonce() -> Nonce {
    Nonce::assume_unique_for_key([0; aead::NONCE_LEN])
}

fn since_epoch(now: SystemTime) -> u64 {
    now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// The tickets of one scope.
#[derive(Debug)]
struct Scoped {
    tickets: Arc<Tickets>,
    scope: Scope,
}

impl ProducesTickets for Scoped {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        u32::try_from(LIFE.as_secs()).unwrap_or(u32::MAX)
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        self.tickets.seal(plain, self.scope, SystemTime::now())
    }

    fn decrypt(&self, cipher: &[u8]) -> Option<Vec<u8>> {
        self.tickets.open(cipher, self.scope, SystemTime::now())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn start() -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(2_000_000_000)
    }

    fn scope(seed: u8) -> Scope {
        Scope::for_tests(seed)
    }

    #[test]
    fn a_ticket_opens_where_it_was_issued_and_nowhere_else() {
        let tickets = Tickets::new(start()).unwrap();
        let ticket = tickets.seal(b"session", scope(1), start()).unwrap();
        assert_eq!(tickets.open(&ticket, scope(1), start()).as_deref(), Some(&b"session"[..]));
        assert_eq!(tickets.open(&ticket, scope(2), start()), None);
        assert_eq!(tickets.open(&ticket, Scope::OPEN, start()), None);
        let others = Tickets::new(start()).unwrap();
        assert_eq!(others.open(&ticket, scope(1), start()), None);
    }

    #[test]
    fn who_follows_opens_the_tickets_of_the_one_before_and_seals_with_its_key() {
        let [old, new] = [(); 2].map(|()| Tickets::new(start()).unwrap());
        let later = start() + 5 * HOUR;
        let before = old.seal(b"before", scope(1), later).unwrap();
        let early = new.seal(b"early", scope(1), later).unwrap();
        new.inherit(&old.bequeathed().unwrap(), later);
        for (ticket, session) in [(&before, &b"before"[..]), (&early, b"early")] {
            assert_eq!(new.open(ticket, scope(1), later).as_deref(), Some(session));
        }
        assert_eq!(new.open(&before, scope(2), later), None);
        let after = new.seal(b"after", scope(1), later).unwrap();
        assert_eq!(old.open(&after, scope(1), later).as_deref(), Some(&b"after"[..]));
        // Its age goes over, too: an hour later it is time for a new one.
        let renewed = new.seal(b"new", scope(1), start() + 6 * HOUR).unwrap();
        assert_eq!(old.open(&renewed, scope(1), start() + 6 * HOUR), None);
        assert!(new.open(&after, scope(1), start() + 6 * HOUR).is_some());
        // A key from the future would never grow old.
        let future = Bequeathed { since: u64::MAX, secrets: vec![[7; 32]] };
        new.inherit(&future, later);
        let sealed = new.seal(b"s", scope(1), later).unwrap();
        assert_ne!(new.seal(b"s", scope(1), later + 6 * HOUR).unwrap()[..NAME], sealed[..NAME]);
    }

    #[test]
    fn keys_of_a_file_are_neither_given_nor_replaced() {
        let own = Tickets::new(start()).unwrap();
        let shared = Tickets::new(start()).unwrap();
        shared.adopt(Given::These(vec![Key::new([1; 32])]), start());
        assert!(shared.bequeathed().is_none());
        shared.inherit(&own.bequeathed().unwrap(), start());
        let ticket = own.seal(b"session", scope(1), start()).unwrap();
        assert_eq!(shared.open(&ticket, scope(1), start()), None);
    }

    #[test]
    fn nodes_with_one_file_open_each_others_tickets() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("tickets");
        let write = |text: &str, mode| {
            fs::write(&file, text).unwrap();
            fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
            read(&Resumption::Shared(file.clone()))
        };
        let (old, new) = ("0f".repeat(32), "A0".repeat(32));
        let [one, two] = [(); 2].map(|()| Tickets::new(start()).unwrap());
        one.adopt(write(&old, 0o600).unwrap(), start());
        two.adopt(write(&format!("# new first\n{new}\n\n{old}\n"), 0o640).unwrap(), start());
        let ticket = one.seal(b"session", scope(1), start()).unwrap();
        assert!(two.open(&ticket, scope(1), start() + 2 * HOUR).is_some());
        assert!(two.open(&ticket, scope(1), start() + 7 * HOUR).is_none(), "whatever the key is");
        let ticket = two.seal(b"session", scope(1), start() + 9 * HOUR).unwrap();
        assert!(
            one.open(&ticket, scope(1), start() + 9 * HOUR).is_none(),
            "it has no such key yet"
        );
        // Its own ones are others, and stay.
        two.adopt(Given::Own, start());
        assert!(two.open(&ticket, scope(1), start() + 9 * HOUR).is_none());
        let ticket = two.seal(b"session", scope(1), start()).unwrap();
        two.adopt(Given::Own, start());
        assert!(two.open(&ticket, scope(1), start()).is_some());

        for (text, mode, told) in [
            (&*old, 0o604, "mode 0604"),
            (&old, 0o620, "mode 0620"),
            ("# nothing", 0o600, "it holds no key"),
            (&old[1..], 0o600, "line 1 is no key"),
            (&format!("{old}\n\u{e9}{}", &old[2..]), 0o600, "line 2 is no key"),
            (&format!("{old}\n").repeat(17), 0o600, "it holds 17 keys"),
        ] {
            let error = write(text, mode).unwrap_err().to_string();
            assert!(error.contains(told), "{told:?} is not in {error}");
        }
    }

    #[test]
    fn what_was_changed_or_cut_does_not_open() {
        let tickets = Tickets::new(start()).unwrap();
        let ticket = tickets.seal(b"session", scope(1), start()).unwrap();
        for at in 0..ticket.len() {
            let mut changed = ticket.clone();
            changed[at] ^= 1;
            assert_eq!(tickets.open(&changed, scope(1), start()), None, "byte {at}");
            assert_eq!(tickets.open(&ticket[..at], scope(1), start()), None, "{at} bytes");
        }
        assert_ne!(ticket, tickets.seal(b"session", scope(1), start()).unwrap());
    }

    #[test]
    fn keys_change_and_the_one_before_opens_what_it_sealed_to_its_end() {
        let tickets = Tickets::new(start()).unwrap();
        let first = tickets.seal(b"one", scope(1), start()).unwrap();
        let late = tickets.seal(b"two", scope(1), start() + 5 * HOUR).unwrap();
        assert_eq!(first[..NAME], late[..NAME]);
        let next = tickets.seal(b"three", scope(1), start() + 7 * HOUR).unwrap();
        assert_ne!(first[..NAME], next[..NAME]);
        let open = |ticket: &[u8], hours| tickets.open(ticket, scope(1), start() + hours * HOUR);
        assert!(open(&late, 10).is_some());
        assert!(open(&first, 7).is_none(), "it is too old, whatever the key is");
        let _ = tickets.seal(b"four", scope(1), start() + 14 * HOUR).unwrap();
        assert!(open(&late, 10).is_none(), "its key is gone");
        assert!(open(&next, 12).is_some());
    }
}

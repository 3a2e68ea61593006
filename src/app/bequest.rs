//! What an old process leaves to the new one of what it has stored: the hottest first, within bytes and time.

use std::io;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use arc_swap::ArcSwap;
use log::info;
use log::warn;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::app::fellow::ALL;
use crate::app::fellow::BODY;
use crate::app::fellow::End;
use crate::app::fellow::HELLO;
use crate::app::fellow::Hears;
use crate::app::fellow::Line;
use crate::app::fellow::Names;
use crate::app::fellow::OBJECT;
use crate::app::fellow::Role;
use crate::app::fellow::VERSION;
use crate::app::frames;
use crate::app::handover;
use crate::app::life::Life;
use crate::cache::purge::Many;
use crate::runtime::Runtime;
use crate::runtime::fellow::Fellow;
use crate::runtime::fellow::Fellows;
use crate::runtime::fellow::Word;
use crate::storage::Handover;
use crate::storage::memory::Carried;
use crate::storage::memory::Carrying;
use crate::storage::memory::Kind;
use crate::storage::memory::Memory;
use crate::storage::memory::Record;
use crate::storage::memory::Unwanted;

/// How much longer than asked for the new process waits for the end of it.
const SLACK: Duration = Duration::from_secs(2);

/// What both sides need.
#[derive(Clone)]
pub(crate) struct Beside {
    pub(crate) runtime: Arc<ArcSwap<Runtime>>,
    pub(crate) memory: &'static Memory,
    pub(crate) fellows: Arc<Fellows>,
    pub(crate) life: Arc<Life>,
}

/// How much was given, or taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Count {
    objects: u64,
    bytes: u64,
    /// What was left out.
    left: u64,
}

/// Gives to the process at the other end what it asks for, and tells it of purges until either ends. Blocks.
pub(crate) fn leave(mut stream: UnixStream, beside: &Beside) -> io::Result<()> {
    let began = Instant::now();
    let mut text = Vec::new();
    let Some(Asked { version, most, within }) = asked(&mut stream, &mut text)? else {
        return Ok(());
    };
    frames::write(&mut stream, HELLO, &[&VERSION.to_be_bytes()])?;
    if version != VERSION {
        info!(target: "edgeproxy::app",
            "the new process speaks version {version} where this one speaks {VERSION}: its cache begins empty");
        return Ok(());
    }
    let line = Line::new(stream, Role::Heir)?;
    let fellow: Arc<dyn Fellow> = Arc::clone(&line) as Arc<dyn Fellow>;
    // From here on every purge is told. What is looked at after this knows of all purges before.
    beside.fellows.join(&fellow);
    let listening = {
        let (line, beside) = (Arc::clone(&line), beside.clone());
        let thread = std::thread::Builder::new().name("heir".to_owned());
        thread.spawn(move || line.listen(&beside.runtime, &beside.fellows, &mut Nothing))
    };
    let given = listening.as_ref().map_err(|e| io::Error::other(e.to_string())).and_then(|_| {
        let count = give(&line, beside.memory, most, began + within)?;
        line.send_now(ALL, &[])?;
        Ok(count)
    });
    match given {
        Ok(Count { objects, bytes, left }) => info!(target: "edgeproxy::app",
            "handed over {objects} stored responses, {bytes} bytes, in {:?}; {left} were left", began.elapsed()),
        Err(e) => {
            warn!(target: "edgeproxy::app", "what is stored cannot be handed over: {e}");
            // Without a farewell the other side drops what it has.
            line.cut();
        }
    }
    if let Ok(listening) = listening {
        let _ = listening.join();
    }
    beside.fellows.leave(&fellow);
    if beside.fellows.is_cut_off() && !beside.fellows.has_parted() {
        warn!(target: "edgeproxy::app",
            "the process that follows this one cannot be heard any more: purges are refused here from now on");
    }
    Ok(())
}

/// What a new process asks for.
struct Asked {
    version: u16,
    most: u64,
    within: Duration,
}

/// `None`: it hung up.
fn asked(stream: &mut UnixStream, text: &mut Vec<u8>) -> io::Result<Option<Asked>> {
    let Some(kind) = frames::read(stream, text)? else { return Ok(None) };
    let parts = text.split_first_chunk::<2>().filter(|_| kind == HELLO);
    let strange = || {
        io::Error::other("another version asks for what is stored in a way that is unknown here")
    };
    let (version, rest) = parts.ok_or_else(strange)?;
    let version = u16::from_be_bytes(*version);
    let number = |bytes: Option<&[u8; 8]>| bytes.map_or(0, |bytes| u64::from_be_bytes(*bytes));
    let most = number(rest.first_chunk());
    let within = Duration::from_millis(number(rest.get(8..).and_then(|rest| rest.first_chunk())));
    Ok(Some(Asked { version, most, within }))
}

fn give(line: &Line, memory: &Memory, most: u64, until: Instant) -> io::Result<Count> {
    let mut count = Count::default();
    let all = memory.hottest(most);
    let held = memory.stats().objects;
    'all: for hot in &all {
        for Carried { record, body } in memory.carried(hot) {
            if Instant::now() >= until {
                break 'all;
            }
            let head = record.encode();
            if head.len() > frames::LONGEST {
                continue;
            }
            line.send(OBJECT, &[&head])?;
            for part in body {
                line.send(BODY, &[&part])?;
            }
            count.objects += 1;
            count.bytes += head.len() as u64 + record.body_len();
        }
    }
    count.left = held.saturating_sub(count.objects);
    Ok(count)
}

/// Takes over what the process at `path` has stored, as much as `wanted` says, and hears of purges from then
/// on. Returns when all is here that is to come; whatever goes wrong, the cache begins empty.
pub(crate) async fn inherit(path: &Path, wanted: Handover, beside: Beside) {
    let Handover { most, within } = wanted;
    if within.is_zero() || most == 0 {
        return info!(target: "edgeproxy::app", "nothing stored is taken over: cache.handover_time says so");
    }
    let (told, all_here) = oneshot::channel();
    let is_late = Arc::new(Mutex::new(false));
    let (path, late) = (path.to_owned(), Arc::clone(&is_late));
    let thread = std::thread::Builder::new().name("elder".to_owned());
    let spawned = thread.spawn(move || {
        if let Err(e) = take(&path, (most, within), &beside, (late, told)) {
            warn!(target: "edgeproxy::app", "nothing stored is taken over, the cache begins empty: {e}");
        }
    });
    if let Err(e) = spawned {
        return warn!(target: "edgeproxy::app", "the cache begins empty: {e}");
    }
    // Whoever does not tell has ended.
    if tokio::time::timeout(within.saturating_add(SLACK), all_here).await.is_err() {
        *is_late.lock() = true;
        warn!(target: "edgeproxy::app", "what is stored did not come in time; the rest is left");
    }
}

fn take(
    path: &Path,
    (most, within): (u64, Duration),
    beside: &Beside,
    (is_late, told): (Arc<Mutex<bool>>, oneshot::Sender<()>),
) -> io::Result<()> {
    // A process that is told to go waits for those before it.
    let _elder = beside.life.elder();
    let mut stream = handover::connect(path, None)?;
    handover::want_stored(&mut stream)?;
    let millis = u64::try_from(within.as_millis()).unwrap_or(u64::MAX);
    let asked = [&VERSION.to_be_bytes()[..], &most.to_be_bytes(), &millis.to_be_bytes()];
    frames::write(&mut stream, HELLO, &asked)?;
    let mut text = Vec::new();
    let spoken = match frames::read(&mut stream, &mut text)? {
        Some(HELLO) => text.first_chunk().map(|version| u16::from_be_bytes(*version)),
        _ => None,
    };
    if spoken != Some(VERSION) {
        let spoken =
            spoken.map_or_else(|| "nothing of the kind".to_owned(), |v| format!("version {v}"));
        return Err(io::Error::other(format!(
            "the running process speaks {spoken}, this one version {VERSION}"
        )));
    }
    let line = Line::new(stream, Role::Elder)?;
    let fellow: Arc<dyn Fellow> = Arc::clone(&line) as Arc<dyn Fellow>;
    beside.fellows.join(&fellow);
    let mut taking = Taking {
        memory: beside.memory,
        began: Instant::now(),
        names: Names::new(),
        current: None,
        count: Count::default(),
        is_late,
        told: Some(told),
    };
    let end = line.listen(&beside.runtime, &beside.fellows, &mut taking);
    beside.fellows.leave(&fellow);
    match end {
        End::Farewell => {
            // Where the end of it never came, nobody waits for it any more.
            taking.told.take();
        }
        End::Cut(e) => {
            // Whoever waits goes on when nothing is left of it.
            taking.current = None;
            beside.memory.purge_all();
            // Who follows this process has it from here.
            let everything = || Word::many(&Many::Everything, Kind::Hard);
            beside.fellows.tell(everything, None);
            warn!(target: "edgeproxy::app",
                "what was taken over is dropped, since nobody can say whether it was purged: {e}");
        }
    }
    Ok(())
}

/// Hears nothing but purges.
struct Nothing;

impl Hears for Nothing {
    fn heard(&mut self, kind: u8, _text: &[u8]) -> io::Result<()> {
        Err(unknown(kind))
    }
}

fn unknown(kind: u8) -> io::Error {
    io::Error::other(format!("it says what is unknown here ({kind})"))
}

/// Takes in what comes.
struct Taking {
    memory: &'static Memory,
    began: Instant,
    names: Names,
    current: Option<Current>,
    count: Count,
    /// Whether requests are served by now. Whoever holds it puts something into the store.
    is_late: Arc<Mutex<bool>>,
    /// Who waits for the end.
    told: Option<oneshot::Sender<()>>,
}

/// The response whose body is coming.
struct Current {
    /// `None`: it is left out.
    carrying: Option<Carrying>,
    bytes: u64,
    left: u64,
}

impl Hears for Taking {
    fn heard(&mut self, kind: u8, text: &[u8]) -> io::Result<()> {
        match kind {
            OBJECT => self.begin(text),
            BODY => self.go_on(text),
            ALL => self.end(),
            kind => Err(unknown(kind)),
        }
    }
}

impl Taking {
    fn begin(&mut self, text: &[u8]) -> io::Result<()> {
        if self.current.is_some() {
            return Err(io::Error::other("a body is shorter than was announced"));
        }
        if self.told.is_none() {
            return Err(io::Error::other("there is more after the end"));
        }
        let broken = || io::Error::other("something is no stored response");
        let record = Record::decode(text).ok_or_else(broken)?;
        let is_late = *self.is_late.lock();
        let carrying = match self.memory.take_in(&record, &mut self.names) {
            Ok(carrying) if !is_late => Some(carrying),
            Err(Unwanted::Broken) => return Err(broken()),
            Ok(_) | Err(Unwanted::NoRoom | Unwanted::Abandoned(_)) => None,
        };
        let (left, bytes) = (record.body_len(), record.body_len() + text.len() as u64);
        self.current = Some(Current { carrying, bytes, left });
        self.finish_if_whole();
        Ok(())
    }

    fn go_on(&mut self, part: &[u8]) -> io::Result<()> {
        let longer = || io::Error::other("a body is longer than was announced");
        let current = self.current.as_mut().ok_or_else(longer)?;
        current.left = current.left.checked_sub(part.len() as u64).ok_or_else(longer)?;
        if let Some(carrying) = &mut current.carrying
            && carrying.push(part).is_err()
        {
            current.carrying = None;
        }
        self.finish_if_whole();
        Ok(())
    }

    fn finish_if_whole(&mut self) {
        let Some(Current { carrying, bytes, .. }) =
            self.current.take_if(|current| current.left == 0)
        else {
            return;
        };
        // What requests have stored here meanwhile is newer; none of them begins while this is held.
        let is_late = self.is_late.lock();
        match carrying.filter(|_| !*is_late).map(|carrying| carrying.finish(self.memory)) {
            Some(Ok(())) => {
                self.count.objects += 1;
                self.count.bytes += bytes;
            }
            Some(Err(_)) | None => self.count.left += 1,
        }
    }

    fn end(&mut self) -> io::Result<()> {
        if self.current.is_some() {
            return Err(io::Error::other("a body is shorter than was announced"));
        }
        let Count { objects, bytes, left } = self.count;
        info!(target: "edgeproxy::app",
            "took over {objects} stored responses, {bytes} bytes, in {:?}; {left} were left out",
            self.began.elapsed());
        // Whoever waited may have gone on.
        self.told.take().map(|told| told.send(()));
        Ok(())
    }
}

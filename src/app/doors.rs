//! The listeners of a running process: which sockets are open, and what lies behind them.
//!
//! A door is a socket. It has a number, its place in the tables of every generation, for as long as it is
//! open or connections that came through it last; a listener that is renamed or speaks something else now
//! keeps its door. Shut, it lets nobody in, and tells those who are in to leave when they are done.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwap;
use log::error;
use log::info;
use log::warn;
use pingora::apps::HttpServerApp;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::app::bind;
use crate::app::bind::Prepared;
use crate::app::life::Life;
use crate::config::plan::Plan;
use crate::listen::Settings;
use crate::listen::accept::Bound;
use crate::listen::accept::Door;
use crate::listen::accept::House;
use crate::listen::accept::Pending;
use crate::listen::accept::Way;
use crate::observe::metrics::Metrics;
use crate::observe::metrics::labels::FilesRead;
use crate::runtime::build::Row;
use crate::tls;
use crate::tls::answers::Answers;
use crate::tls::error::Error;
use crate::tls::store::CertificateStore;
use crate::tls::store::Read;
use crate::tls::store::Renewed;
use crate::tls::store::Replaced;

/// The doors of a process.
#[derive(Default)]
pub(crate) struct Doors {
    open: Vec<Open>,
    leaving: Vec<Shut>,
    /// What ACME servers are shown at each of them.
    answers: Arc<Answers>,
}

/// One that lets connections in.
struct Open {
    number: usize,
    settings: Settings,
    at: SocketAddr,
    way: Arc<ArcSwap<Way>>,
    tls: Option<Arc<CertificateStore>>,
    stop: Arc<watch::Sender<bool>>,
    accepting: JoinHandle<()>,
}

/// One that lets nobody in any more. Some are still in as long as somebody listens whether to leave.
struct Shut {
    row: Row,
    number: usize,
    stop: Arc<watch::Sender<bool>>,
}

/// The doors as a plan means them, with everything done that can fail. As long as nobody carries it out,
/// nothing has changed; new sockets close again.
pub(crate) struct Prospect {
    stay: Vec<Stay>,
    new: Vec<(usize, Settings, Prepared)>,
    /// The tables' rows, by the numbers of doors.
    pub(crate) rows: Vec<Row>,
}

/// A door that stays open.
struct Stay {
    number: usize,
    settings: Settings,
    tls: Option<Arc<CertificateStore>>,
    read: Option<Read>,
}

impl Doors {
    /// Opens the first doors: each has the number of its listener in the plan.
    pub(crate) fn first<A>(
        prepared: Vec<Prepared>,
        plan: &Plan,
        answers: Arc<Answers>,
        house: &Arc<ArcSwap<House<A>>>,
        life: &Arc<Life>,
    ) -> Self
    where
        A: HttpServerApp + Send + Sync + 'static,
    {
        let mut doors = Self { answers, ..Self::default() };
        for (number, (settings, prepared)) in plan.listeners.iter().zip(prepared).enumerate() {
            doors.open.push(Open::new(number, settings.clone(), prepared, house, life));
        }
        doors
    }

    /// The rows of the tables, by the numbers of doors.
    pub(crate) fn rows(&self) -> Vec<Row> {
        let open = self.open.iter().map(|door| (door.number, door.row()));
        by_number(open.chain(self.leaving.iter().map(|door| (door.number, door.row.clone()))))
    }

    /// Does everything that can fail of what `plan` wants: reads certificates, binds what is new.
    ///
    /// # Errors
    /// What cannot be used.
    pub(crate) fn prepare(&mut self, plan: &Plan) -> Result<Prospect, String> {
        self.leaving.retain(|door| door.stop.receiver_count() > 0);
        let (now, state) = (SystemTime::now(), plan.process.state_dir.as_path());
        let mut stay = Vec::new();
        let mut new = Vec::new();
        let doors = self.matched(&plan.listeners);
        for (settings, door) in plan.listeners.iter().zip(doors) {
            let wrong = |e: Error| format!("listener \"{}\": {e}", settings.name);
            match door {
                Some(door) => {
                    stay.push(door.stays(settings, &self.answers, state, now).map_err(wrong)?);
                }
                None => {
                    let prepared = bind::listener(settings, state, &self.answers, &mut None);
                    new.push((settings, prepared.map_err(|e| e.to_string())?));
                }
            }
        }
        let mut taken: Vec<usize> = self.open.iter().map(|door| door.number).collect();
        taken.extend(self.leaving.iter().map(|door| door.number));
        let numbered = |(settings, prepared): (&Settings, Prepared)| {
            let free = (0..).find(|number| !taken.contains(number)).unwrap_or(usize::MAX);
            taken.push(free);
            (free, settings.clone(), prepared)
        };
        let new: Vec<_> = new.into_iter().map(numbered).collect();

        let row = |settings: &Settings, store: Option<&Arc<CertificateStore>>| Row {
            name: Arc::clone(&settings.name),
            certificates: store.cloned(),
            insists: settings.insists.clone(),
        };
        let rows = by_number(
            // Those that go have their rows until their connections have ended.
            (self.open.iter().map(|door| (door.number, door.row())))
                .chain(self.leaving.iter().map(|door| (door.number, door.row.clone())))
                .chain(stay.iter().map(|one| (one.number, row(&one.settings, one.tls.as_ref()))))
                .chain(new.iter().map(|(number, settings, prepared)| {
                    (*number, row(settings, prepared.tls.as_ref()))
                })),
        );
        Ok(Prospect { stay, new, rows })
    }

    /// The door of each of these listeners: the one at its address, rather of its name than of another.
    fn matched(&self, listeners: &[Settings]) -> Vec<Option<&Open>> {
        let mut free: Vec<&Open> = self.open.iter().collect();
        let mut take = |fits: &dyn Fn(&Open) -> bool| {
            let at = free.iter().position(|door| fits(door))?;
            Some(free.swap_remove(at))
        };
        let same = |one: &Settings, door: &Open| door.settings.address == one.address;
        let mut found: Vec<Option<&Open>> = listeners
            .iter()
            .map(|one| take(&|door| same(one, door) && door.settings.name == one.name))
            .collect();
        for (one, found) in listeners.iter().zip(&mut found) {
            if found.is_none() {
                *found = take(&|door| same(one, door));
            }
        }
        found
    }

    /// Carries it out. Those that are shut have closed their sockets when it returns. Says at which
    /// listeners other certificates are shown now.
    pub(crate) fn carry_out<A>(
        &mut self,
        prospect: Prospect,
        house: &Arc<ArcSwap<House<A>>>,
        life: &Arc<Life>,
        handle: &Handle,
    ) -> Vec<String>
    where
        A: HttpServerApp + Send + Sync + 'static,
    {
        let mut others = Vec::new();
        let mut before = std::mem::take(&mut self.open);
        for Stay { number, settings, tls, read } in prospect.stay {
            let Some(at) = before.iter().position(|door| door.number == number) else { continue };
            let mut door = before.swap_remove(at);
            if let (Some(tls), Some(read)) = (&tls, read)
                && tls.put(read) == Replaced::ByOthers
            {
                others.push(settings.name.to_string());
            }
            door.way.store(Arc::new(way(number, &settings, tls.as_ref())));
            (door.settings, door.tls) = (settings, tls);
            self.open.push(door);
        }
        for gone in before {
            info!(target: "edgeproxy::app", "no longer listening on {} ({})", gone.at, gone.settings.name);
            life.offered.lock().retain(|(name, _)| *name != gone.at.to_string());
            gone.stop.send_replace(true);
            // It ends at once; the socket is closed then.
            let row = gone.row();
            let _ = handle.block_on(gone.accepting);
            self.leaving.push(Shut { row, number: gone.number, stop: gone.stop });
        }
        for (number, settings, prepared) in prospect.new {
            offer(&prepared.socket, life);
            self.open.push(Open::new(number, settings, prepared, house, life));
        }
        self.open.sort_by_key(|door| door.number);
        others
    }

    /// Reads all certificates, and what belongs to them, again. What cannot be used stays as it is, and keeps
    /// nothing else from being put to use. Blocks on the file system.
    pub(crate) fn renew(&self, state: &Path, metrics: &Metrics) {
        for door in &self.open {
            let name = &door.settings.name;
            let (Some(tls), Some(settings)) = (&door.tls, &door.settings.tls) else { continue };
            let Renewed { replaced, refused } = tls.renew(settings, state, SystemTime::now());
            // A file that several hosts have is told of once.
            let refused: BTreeSet<String> = refused.iter().map(Error::to_string).collect();
            for why in &refused {
                error!(
                    target: "edgeproxy::app",
                    "certificates of listener \"{name}\" cannot be read again: {why}; those in use stay"
                );
            }
            if !refused.is_empty() {
                metrics.tls_files_read(name, FilesRead::Refused);
            }
            let result = match replaced {
                Replaced::ByOthers => FilesRead::Replaced,
                Replaced::BySame if !refused.is_empty() => continue,
                Replaced::BySame => FilesRead::Same,
            };
            info!(target: "edgeproxy::app", "certificates of listener \"{name}\" are read again");
            metrics.tls_files_read(name, result);
        }
    }

    /// The files that are read then.
    pub(crate) fn files(&self) -> Vec<PathBuf> {
        let spoken = self.open.iter().filter_map(|door| door.settings.tls.as_ref());
        spoken.flat_map(tls::Settings::files).collect()
    }
}

impl Open {
    fn new<A>(
        number: usize,
        settings: Settings,
        prepared: Prepared,
        house: &Arc<ArcSwap<House<A>>>,
        life: &Arc<Life>,
    ) -> Self
    where
        A: HttpServerApp + Send + Sync + 'static,
    {
        let scheme = if prepared.tls.is_some() { "https" } else { "http" };
        let at = prepared.socket.local_addr().unwrap_or(settings.address);
        let name = Arc::clone(&settings.name);
        info!(target: "edgeproxy::app", "listening on {scheme}://{at} ({name})");
        let tls = prepared.tls;
        let way = Arc::new(ArcSwap::from_pointee(way(number, &settings, tls.as_ref())));
        let stop = life.door();
        let door = Door {
            socket: Bound::Tcp(prepared.socket),
            way: Arc::clone(&way),
            pending: Pending::Serve,
        };
        let (house, shutdown) = (Arc::clone(house), stop.subscribe());
        let (life, accepting) = (Arc::clone(life), life.accepting());
        let accepting = tokio::spawn(async move {
            let _accepting = accepting;
            if let Err(e) = House::open(house, door, shutdown).await {
                error!(target: "edgeproxy::app", "listener \"{name}\" failed: {e}");
                life.fail(format!("listener \"{name}\" failed: {e}"));
            }
        });
        Self { number, settings, at, way, tls, stop, accepting }
    }

    fn row(&self) -> Row {
        Row {
            name: Arc::clone(&self.settings.name),
            certificates: self.tls.clone(),
            insists: self.settings.insists.clone(),
        }
    }

    /// This door, as the listener of these settings.
    fn stays(
        &self,
        settings: &Settings,
        answers: &Arc<Answers>,
        state: &Path,
        now: SystemTime,
    ) -> Result<Stay, Error> {
        let (number, settings) = (self.number, settings.clone());
        let Some(wanted) = &settings.tls else {
            return Ok(Stay { number, settings, tls: None, read: None });
        };
        let (tls, read) = match &self.tls {
            Some(tls) => (Arc::clone(tls), Some(tls.read(wanted, state, now)?)),
            None => {
                let store = CertificateStore::load(wanted, state, now)?;
                (Arc::new(store.with_answers(Arc::clone(answers))), None)
            }
        };
        Ok(Stay { number, settings, tls: Some(tls), read })
    }
}

fn way(number: usize, settings: &Settings, tls: Option<&Arc<CertificateStore>>) -> Way {
    Way {
        index: number,
        name: Arc::clone(&settings.name),
        proxied: settings.proxied.clone(),
        tls: tls.cloned(),
        h2c: settings.h2c,
    }
}

/// The rows in the places of their numbers; the last one of a number counts. Where nothing is, nobody looks.
fn by_number(rows: impl Iterator<Item = (usize, Row)>) -> Vec<Row> {
    let mut table: Vec<Option<Row>> = Vec::new();
    for (number, row) in rows {
        if table.len() <= number {
            table.resize(number + 1, None);
        }
        table[number] = Some(row);
    }
    let any = table.iter().flatten().next().cloned();
    table.into_iter().filter_map(|row| row.or_else(|| any.clone())).collect()
}

/// Gives a copy of the socket to the process that will take over, if one can.
fn offer(socket: &TcpListener, life: &Life) {
    let mut offered = life.offered.lock();
    if offered.is_empty() {
        return;
    }
    let copy = socket.local_addr().and_then(|at| Ok((at.to_string(), socket.try_clone()?)));
    match copy {
        Ok((name, socket)) => offered.push((name, OwnedFd::from(socket))),
        Err(e) => warn!(target: "edgeproxy::app", "a new listener cannot be handed over: {e}"),
    }
}

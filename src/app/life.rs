//! The end of a process, in order: stop accepting, tell clients, let what runs finish, go. And what it
//! does on which signal until then.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Weak;
use std::time::Duration;
use std::time::Instant;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use log::error;
use log::info;
use log::warn;
use parking_lot::Condvar;
use parking_lot::Mutex;
use pingora::server::ShutdownSignal;
use pingora::server::ShutdownSignalWatch;
use pingora::server::ShutdownWatch;
use tokio::signal::unix::Signal;
use tokio::signal::unix::SignalKind;
use tokio::signal::unix::signal;
use tokio::sync::Notify;
use tokio::sync::watch;

use crate::app::daemon;
use crate::app::handover::Named;
use crate::app::identity::open_log;
use crate::app::notify;
use crate::app::notify::News;
use crate::listen::census::Census;
use crate::observe::access_log::AccessLogger;
use crate::runtime::Draining;

/// How long connections that are cut may take to say so.
const LAST_LINES: Duration = Duration::from_secs(1);
/// How long requests to the admin listener may take when it is left to another process.
const ADMIN_GRACE: Duration = Duration::from_secs(2);

/// How long a kept connection may still ask when another process has taken over: whoever is about to
/// would see its request fail. Its answer says that it is the last one.
const LAST_WORD: Duration = Duration::from_secs(5);
/// How long an operator may take to hear how an upgrade went.
const LAST_ANSWER: Duration = Duration::from_secs(5);

/// What the parts of a process share about its end.
pub(crate) struct Life {
    /// Those through which connections come.
    doors: Mutex<Vec<Weak<watch::Sender<bool>>>>,
    stop_admin: watch::Sender<bool>,
    /// Whoever accepts connections holds a receiver.
    accepting: watch::Sender<()>,
    /// Whoever hears of purges from a process before this one holds a receiver.
    elders: watch::Sender<()>,
    /// The connections that are waited for.
    pub(crate) census: Arc<Census>,
    /// Told to every request.
    pub(crate) draining: Arc<Draining>,
    /// Signals are heard from here on.
    pub(crate) attentive: Notify,
    /// Another process serves: this one may go.
    replaced: watch::Sender<bool>,
    /// The same for who blocks.
    followed: (Mutex<bool>, Condvar),
    /// Held by who waits for a process that has the sockets.
    pub(crate) taking: Mutex<()>,
    /// Held by who has a successor started, until the operator knows what came of it.
    pub(crate) succession: Mutex<()>,
    /// The configuration is to be read again.
    pub(crate) reload: Notify,
    /// Certificates that were kept are to be read again.
    pub(crate) renew: Notify,
    /// The start failed, or a service ended.
    broken: Notify,
    /// Why, told once.
    failure: Mutex<Option<String>>,
    /// Copies of the listening sockets, for a process that takes over. As long as one exists, the
    /// kernel goes on taking connections.
    pub(crate) offered: Mutex<Vec<Named>>,
    /// How long requests may take when the process is told to end.
    pub(crate) drain_timeout: Mutex<Duration>,
}

impl Life {
    pub(crate) fn new(drain_timeout: Duration, offered: Vec<Named>) -> Self {
        Self {
            doors: Mutex::default(),
            stop_admin: watch::channel(false).0,
            accepting: watch::channel(()).0,
            elders: watch::channel(()).0,
            census: Arc::new(Census::default()),
            draining: Arc::new(Draining::default()),
            attentive: Notify::new(),
            replaced: watch::channel(false).0,
            followed: (Mutex::new(false), Condvar::new()),
            taking: Mutex::new(()),
            succession: Mutex::new(()),
            reload: Notify::new(),
            renew: Notify::new(),
            broken: Notify::new(),
            failure: Mutex::default(),
            offered: Mutex::new(offered),
            drain_timeout: Mutex::new(drain_timeout),
        }
    }

    /// A door: it turns true when it is shut, by whoever has it or since the process ends.
    pub(crate) fn door(&self) -> Arc<watch::Sender<bool>> {
        let door = Arc::new(watch::channel(false).0);
        let mut doors = self.doors.lock();
        doors.retain(|known| known.strong_count() > 0);
        doors.push(Arc::downgrade(&door));
        if self.draining.has_begun() {
            door.send_replace(true);
        }
        drop(doors);
        door
    }

    /// Turns true when the admin listener is another process's. While this process drains for any
    /// other reason it goes on answering: that is when it is asked.
    pub(crate) fn shutdown_admin(&self) -> ShutdownWatch {
        self.stop_admin.subscribe()
    }

    /// To be held while connections are accepted that a drain waits for.
    pub(crate) fn accepting(&self) -> watch::Receiver<()> {
        self.accepting.subscribe()
    }

    /// To be held while a process before this one tells what it purges.
    pub(crate) fn elder(&self) -> watch::Receiver<()> {
        self.elders.subscribe()
    }

    /// Waits until nobody accepts and every connection has ended. Where another process has taken over, those
    /// before this one have to end first: what they purge reaches it through here.
    async fn emptied(&self) {
        self.accepting.closed().await;
        self.census.emptied().await;
        if self.was_replaced() {
            self.elders.closed().await;
        }
    }

    /// The process cannot go on.
    pub(crate) fn fail(&self, why: String) {
        self.failure.lock().get_or_insert(why);
        self.broken.notify_one();
    }

    /// Why it could not go on, if it ended by [`Self::fail`].
    pub(crate) fn failure(&self) -> Option<String> {
        self.failure.lock().take()
    }

    /// Another process serves.
    pub(crate) fn note_replaced(&self) {
        self.replaced.send_replace(true);
        *self.followed.0.lock() = true;
        self.followed.1.notify_all();
    }

    /// Whether another process has taken this one's place, its files included.
    pub(crate) fn was_replaced(&self) -> bool {
        *self.replaced.borrow()
    }

    /// Waits until another process has.
    pub(crate) async fn until_replaced(&self) {
        let mut replaced = self.replaced.subscribe();
        // The sender is here, so it is not gone.
        let _ = replaced.wait_for(|yes| *yes).await;
    }

    /// Whether another process does so in that time. Blocks.
    pub(crate) fn is_replaced_within(&self, time: Duration) -> bool {
        let mut followed = self.followed.0.lock();
        let until = Instant::now() + time;
        while !*followed && !self.followed.1.wait_until(&mut followed, until).timed_out() {}
        *followed
    }

    /// Waits until an operator has heard of an upgrade that this process had a part in.
    pub(crate) fn last_answer(&self) {
        drop(self.succession.try_lock_for(LAST_ANSWER));
    }

    /// Cuts what is left, and waits until that is told: to clients whose answer was not begun, and in the
    /// log.
    async fn cut(&self) {
        self.draining.cut();
        self.census.cut();
        let _ = tokio::time::timeout(LAST_LINES, self.census.emptied()).await;
    }

    /// Stops accepting and tells clients.
    fn begin_drain(&self) {
        match self.was_replaced() {
            true => self.draining.begin(LAST_WORD),
            // Nobody follows: the sooner it ends, the sooner it is started again.
            false => {
                notify::tell(&News::Stopping);
                self.draining.begin(Duration::ZERO);
            }
        }
        for door in self.doors.lock().iter().filter_map(Weak::upgrade) {
            door.send_replace(true);
        }
        self.offered.lock().clear();
        info!(
            target: "edgeproxy::app",
            "draining {} connections, for at most {:?}",
            self.census.total(),
            self.drain_timeout.lock()
        );
    }
}

/// What the process does on which signal.
pub(crate) struct Signals {
    pub(crate) life: Arc<Life>,
    pub(crate) access_log: Arc<ArcSwap<AccessLogger>>,
    /// Where diagnostics go, when not to standard error.
    pub(crate) log_file: Option<PathBuf>,
}

/// The signals that are heard.
struct Heard {
    terminate: Signal,
    interrupt: Signal,
    quit: Signal,
    hangup: Signal,
    user: Signal,
}

/// What a signal asks for.
enum Wish {
    Drain,
    EndNow,
    OpenLogs,
    Reload,
}

impl Heard {
    fn new() -> Self {
        let open = |kind| signal(kind).expect("the kernel lets us handle this signal");
        Self {
            terminate: open(SignalKind::terminate()),
            interrupt: open(SignalKind::interrupt()),
            quit: open(SignalKind::quit()),
            hangup: open(SignalKind::hangup()),
            user: open(SignalKind::user_defined1()),
        }
    }

    async fn next(&mut self) -> Wish {
        tokio::select! {
            _ = self.terminate.recv() => Wish::Drain,
            _ = self.quit.recv() => Wish::Drain,
            _ = self.interrupt.recv() => Wish::EndNow,
            _ = self.user.recv() => Wish::OpenLogs,
            _ = self.hangup.recv() => Wish::Reload,
        }
    }
}

#[async_trait]
impl ShutdownSignalWatch for Signals {
    async fn recv(&self) -> ShutdownSignal {
        let mut heard = Heard::new();
        self.life.attentive.notify_one();
        if self.until_told(&mut heard).await == Stop::Drain {
            self.drain(&mut heard).await;
        }
        self.life.cut().await;
        // Pingora's own graceful ways wait a fixed time; all waiting is done.
        ShutdownSignal::FastShutdown
    }
}

/// How the process stops.
#[derive(PartialEq, Eq)]
enum Stop {
    Drain,
    Now,
}

impl Signals {
    async fn until_told(&self, heard: &mut Heard) -> Stop {
        loop {
            let wish = tokio::select! {
                wish = heard.next() => wish,
                () = self.life.broken.notified() => return Stop::Now,
                () = self.life.until_replaced() => {
                    info!(target: "edgeproxy::app", "another process has taken over");
                    self.leave_admin().await;
                    return Stop::Drain;
                }
            };
            match wish {
                Wish::Drain => return Stop::Drain,
                Wish::EndNow => return Stop::Now,
                Wish::OpenLogs => self.open_logs(),
                Wish::Reload => self.reload(),
            }
        }
    }

    /// Leaves the admin listener to the process that took over. Nobody who asks there from now on is
    /// to hear that this one drains.
    async fn leave_admin(&self) {
        let stop = &self.life.stop_admin;
        stop.send_replace(true);
        // Whoever does not ask in that time hears nothing.
        let _ = tokio::time::timeout(ADMIN_GRACE, stop.closed()).await;
    }

    /// Stops accepting and waits until nothing is left, the time is up, or it must be quick.
    async fn drain(&self, heard: &mut Heard) {
        let life = &self.life;
        life.begin_drain();
        let over = tokio::time::sleep(*life.drain_timeout.lock());
        tokio::pin!(over);
        loop {
            let wish = tokio::select! {
                () = life.emptied() => {
                    info!(target: "edgeproxy::app", "drained");
                    return;
                }
                () = &mut over => {
                    warn!(
                        target: "edgeproxy::app",
                        "{} connections are cut: the drain timeout is over",
                        life.census.total()
                    );
                    return;
                }
                wish = heard.next() => wish,
            };
            match wish {
                Wish::EndNow => {
                    warn!(
                        target: "edgeproxy::app",
                        "{} connections are cut: told to end at once",
                        life.census.total()
                    );
                    return;
                }
                // Some supervisors repeat themselves; what runs is still let finish.
                Wish::Drain => info!(
                    target: "edgeproxy::app",
                    "still draining {} connections; SIGINT ends at once",
                    life.census.total()
                ),
                Wish::OpenLogs => self.open_logs(),
                Wish::Reload => self.reload(),
            }
        }
    }

    /// Opens the log files again, after somebody renamed them.
    fn open_logs(&self) {
        if let Some(path) = &self.log_file {
            match open_log(path).and_then(daemon::redirect) {
                Ok(()) => info!(target: "edgeproxy::app", "log files are opened again"),
                Err(e) => error!(
                    target: "edgeproxy::app",
                    "{} cannot be opened again: {e}; the old file goes on being written",
                    path.display()
                ),
            }
        }
        self.access_log.load().reopen();
    }

    fn reload(&self) {
        info!(target: "edgeproxy::app", "SIGHUP: the configuration is read and log files are opened again");
        self.open_logs();
        self.life.reload.notify_one();
    }
}

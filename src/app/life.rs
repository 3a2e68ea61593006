//! The end of a process, in order: stop accepting, tell clients, let what runs finish, go.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_trait::async_trait;
use log::info;
use log::warn;
use pingora::server::ShutdownSignal;
use pingora::server::ShutdownSignalWatch;
use pingora::server::ShutdownWatch;
use tokio::signal::unix::Signal;
use tokio::signal::unix::SignalKind;
use tokio::signal::unix::signal;
use tokio::sync::Notify;
use tokio::sync::watch;

use crate::listen::census::Census;
use crate::observe::access_log::AccessLogger;
use crate::runtime::Draining;

/// What the parts of a process share about its end.
pub(crate) struct Life {
    stop: watch::Sender<bool>,
    /// The connections that are waited for.
    pub(crate) census: Arc<Census>,
    /// Told to every request.
    pub(crate) draining: Arc<Draining>,
    /// Another process serves: this one may go.
    pub(crate) replaced: Notify,
    /// The start failed after the process became a daemon, or a service ended.
    pub(crate) broken: Notify,
    failed: AtomicBool,
    drain_timeout: Duration,
}

impl Life {
    pub(crate) fn new(drain_timeout: Duration) -> Self {
        Self {
            stop: watch::channel(false).0,
            census: Arc::new(Census::default()),
            draining: Arc::new(Draining::default()),
            replaced: Notify::new(),
            broken: Notify::new(),
            failed: AtomicBool::new(false),
            drain_timeout,
        }
    }

    /// Turns true when accepting ends.
    pub(crate) fn shutdown(&self) -> ShutdownWatch {
        self.stop.subscribe()
    }

    /// The process cannot go on.
    pub(crate) fn fail(&self) {
        self.failed.store(true, Ordering::Release);
        self.broken.notify_one();
    }

    /// Whether it ended by [`Self::fail`].
    pub(crate) fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Acquire)
    }

    /// Stops accepting and waits until nothing is left, the time is up, or it must be quick.
    async fn drain(&self, quick: &mut Signal) {
        self.draining.begin();
        self.stop.send_replace(true);
        info!(
            target: "edgeproxy::app",
            "draining {} connections, for at most {:?}",
            self.census.total(),
            self.drain_timeout
        );
        tokio::select! {
            () = self.census.emptied() => info!(target: "edgeproxy::app", "drained"),
            () = tokio::time::sleep(self.drain_timeout) => warn!(
                target: "edgeproxy::app",
                "{} connections are cut: the drain timeout is over",
                self.census.total()
            ),
            _ = quick.recv() => {}
        }
    }
}

/// What the process does on which signal.
pub(crate) struct Signals {
    pub(crate) life: Arc<Life>,
    pub(crate) access_log: Arc<AccessLogger>,
}

#[async_trait]
impl ShutdownSignalWatch for Signals {
    async fn recv(&self) -> ShutdownSignal {
        let open = |kind| signal(kind).expect("the kernel lets us handle this signal");
        let mut terminate = open(SignalKind::terminate());
        let mut interrupt = open(SignalKind::interrupt());
        let mut quit = open(SignalKind::quit());
        let mut hangup = open(SignalKind::hangup());
        let mut user = open(SignalKind::user_defined1());
        loop {
            tokio::select! {
                _ = terminate.recv() => {
                    self.life.drain(&mut interrupt).await;
                    break;
                }
                _ = quit.recv() => {
                    self.life.drain(&mut interrupt).await;
                    break;
                }
                () = self.life.replaced.notified() => {
                    info!(target: "edgeproxy::app", "another process has taken over");
                    self.life.drain(&mut interrupt).await;
                    break;
                }
                _ = interrupt.recv() => break,
                () = self.life.broken.notified() => break,
                _ = user.recv() => self.access_log.reopen(),
                _ = hangup.recv() => {
                    warn!(
                        target: "edgeproxy::app",
                        "SIGHUP: log files are opened again; to change the configuration, start \
                         the new process with -u"
                    );
                    self.access_log.reopen();
                }
            }
        }
        // Pingora's own graceful ways wait a fixed time; all waiting is done.
        ShutdownSignal::FastShutdown
    }
}
